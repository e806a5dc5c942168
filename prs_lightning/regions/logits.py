"""How far apart a network's two largest logits are, where cross-entropy underflows, and the torchmetrics twin."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prs_lightning.errors import ConfigError
from prs_lightning.regions.metrics import Measure


def logit_gap(logits: Tensor) -> Tensor:
    """Largest minus second largest logit of each sample, 0 or more: (N,) of logits (N, classes).

    >>> logit_gap(torch.tensor([[1.0, 5.0, 3.0], [2.0, 2.0, 0.0]]))
    tensor([2., 0.])

    Raises:
        ConfigError: not two logits or more a sample.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ConfigError(f"logits of shape {tuple(logits.shape)}: expected (N, classes) with two classes or more")
    first, second = logits.detach().topk(2, dim=1).values.unbind(1)
    return first - second


def loss_underflow(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each sample's cross-entropy is exactly 0 in float32: bool (N,) of logits (N, classes), labels (N,).

    So it is from a margin of about 17 on, where the others' probabilities are lost beside 1: the gradient with respect
    to the logits is then smaller than 1e-6, and exactly 0 from a margin of 104 on.

    >>> loss_underflow(torch.tensor([[20.0, 0.0], [20.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 1, 0]))
    tensor([ True, False, False])
    """
    return F.cross_entropy(logits.detach().float(), labels, reduction="none") == 0


def median(values: Tensor) -> Tensor:
    """The middle of values (N,); of an even number the mean of the two in the middle, as numpy's; NaN of none.

    >>> median(torch.tensor([4.0, 1.0, 2.0, torch.inf])).item()
    3.0
    """
    if not len(values):
        return values.new_full((), torch.nan)
    ordered, half = values.double().sort().values, len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


class LogitScale(Measure):
    """``gap``, the median of `logit_gap` over the samples that are classified correctly, NaN if none is, and
    ``loss_underflow``, the share of all samples for which `loss_underflow` holds: float64, over all processes.

    The gaps themselves are kept and exchanged, 4 bytes a sample: a median of medians would be another number.

    >>> metric = LogitScale()
    >>> metric.update(torch.tensor([[20.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 0]))
    >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
    {'gap': 11.5, 'loss_underflow': 0.333}
    """

    plot_lower_bound = 0.0
    gaps: list[Tensor]
    underflows: Tensor
    samples: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_table("gaps", torch.cat, columns=1, dtype=torch.float32)
        for count in ("underflows", "samples"):
            self.add_state(count, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Look at logits (N, classes) of samples with labels, int (N,)."""
        gaps = logit_gap(logits).float()
        self.gaps.append(gaps[logits.argmax(1) == labels].unsqueeze(1))
        self.underflows = self.underflows + loss_underflow(logits, labels).sum()
        self.samples = self.samples + len(labels)

    def compute(self) -> dict[str, Tensor]:
        """The two, as scalars on the metric's device."""
        return {"gap": median(self.table("gaps").flatten()), "loss_underflow": self.underflows.double() / self.samples}
