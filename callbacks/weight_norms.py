"""weights/log_norm: log10 of the product of the layers' spectral norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prs_lightning.callbacks.measuring import Measuring, finite
from prs_lightning.errors import ConfigError
from prs_lightning.measures import LOG_NORM
from prs_lightning.measuring_pass import Watched
from prs_lightning.regions.layers import Tap
from prs_lightning.regions.norms import log_norms, named_weights


class WeightNorms(Measuring):
    """Logs ``weights/log_norm`` at the end of an epoch: the sum over all layers, see :func:`log_norms`.

    Nothing where a weight is 0 throughout, whose logarithm is -inf.

    Args:
        layers: whose norm is logged too, as ``weights/log_norm/<layer>``: ``all``, or names; None: the sum alone.
        train, test: see :class:`Measuring`.
    """

    def __init__(self, *, layers: str | list[str] | None = None, train: Any = None, test: Any = None) -> None:
        super().__init__(train=train, test=test)
        if isinstance(layers, str) and layers != "all":
            raise ConfigError(f"layers={layers!r}: expected all, or a list of names")
        self.layers = layers

    def start(self, watched: Watched) -> Sequence[Tap]:
        self.model = watched.network.model
        known = list(named_weights(self.model))
        self.chosen = known if self.layers == "all" else self.layers or []
        if unknown := [name for name in self.chosen if name not in known]:
            raise ConfigError(f"layer {unknown[0]!r} has no weight matrix: expected some of {', '.join(known)}")
        return ()

    def values(self) -> Mapping[str, Tensor]:
        norms = log_norms(self.model)
        found = {LOG_NORM: sum(norms.values())} | {f"{LOG_NORM}/{name}": norms[name] for name in self.chosen}
        return finite({name: torch.tensor(value) for name, value in found.items()})
