"""prs/...: the populated regions of the training set, and the share of test samples that they include."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from prs_lightning.callbacks.measuring import Measuring
from prs_lightning.errors import ConfigError
from prs_lightning.measuring_pass import Batch, Watched
from prs_lightning.regions.layers import Tap, find_layer, hidden_layers
from prs_lightning.regions.metrics import PopulatedRegions, RegionStatistics


class Regions(Measuring):
    """Logs at the end of an epoch:

    ``prs/ratio``, ``prs/count``, ``prs/inclusion_ratio`` (where there is a test set); ``prs/dead_units``,
    ``prs/live_units``, ``prs/always_positive_units`` and ``prs/mean_positive_units`` (numbers of units, not shares);
    ``prs/entropy`` (nats), ``prs/singleton_share``, ``prs/purity``, ``prs/hamming_to_major`` (units); and
    ``prs/ratio/<layer>`` for each further layer.

    Args:
        layer: whose output are the penultimate pre-activations, as in ``named_modules()``; None: found by running the
            network, what enters the activation before its last linear layer.
        layers: ``penultimate``, ``all``, or names of further layers.
        train, test: see :class:`Measuring`.
    """

    def __init__(
        self, *, layer: str | None = None, layers: str | list[str] = "penultimate", train: Any = None, test: Any = None
    ) -> None:
        super().__init__(train=train, test=test)
        if isinstance(layers, str) and layers not in ("penultimate", "all"):
            raise ConfigError(f"layers={layers!r}: expected penultimate, all or a list of names")
        self.layer, self.layers = layer, layers

    def start(self, watched: Watched) -> Sequence[Tap]:
        model = watched.network.model
        self.penultimate = Tap(self.layer) if self.layer is not None else watched.ends.penultimate
        names = self.layers
        if names == "all":
            names = hidden_layers(model, find_layer(model, watched.ends.final))
        self.further = {Tap(name): PopulatedRegions() for name in ([] if names == "penultimate" else names)}
        self.statistics = RegionStatistics(classes=watched.classes)
        for metric in (self.statistics, *self.further.values()):
            metric.to(watched.device)
        self.tested = watched.test is not None
        return list(dict.fromkeys([self.penultimate, *self.further]))

    def see_tap(self, tap: Tap, tensor: Tensor, batch: Batch) -> None:
        if tap == self.penultimate:
            self.statistics.update(tensor, batch.labels if batch.split == "train" else None)
        if tap in self.further and batch.split == "train":
            self.further[tap].update(tensor)

    def values(self) -> Mapping[str, Tensor]:
        values = self.statistics.compute()
        if not self.tested:
            del values["inclusion_ratio"]
        values |= {f"ratio/{tap.name}": metric.compute()["ratio"] for tap, metric in self.further.items()}
        return {f"prs/{name}": value for name, value in values.items()}
