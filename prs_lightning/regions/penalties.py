"""What is added to a loss so that samples fall into few decision regions, or into many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prs_lightning.regions.signs import sign_patterns


def pattern_hinge(pre_activations: Tensor, signs: Tensor, *, scale: Tensor, margin: float) -> Tensor:
    """mean over samples and units of max(0, margin - s z / scale): 0 where each z lies on its side, by the margin.

    Args:
        pre_activations: z, (N, D).
        signs: s, -1 or 1, (N, D).
        scale: of z; a constant, so that a sign, not a larger z, is what is paid for.

    >>> pattern_hinge(torch.tensor([[2.0, -1.0]]), torch.ones(1, 2), scale=torch.tensor(2.0), margin=0.5).item()
    0.5
    """
    return (margin - signs * pre_activations / scale).clamp_min(0).mean()


def border_hinge(pre_activations: Tensor, *, scale: Tensor, margin: float) -> Tensor:
    """`pattern_hinge` with s the sign that z does not have: each z is drawn to the border of its unit.

    Its gradient is as large as that of `pattern_hinge` where it is not met: 1 / (N D scale) for each z.

    >>> border_hinge(torch.tensor([[2.0, -1.0]]), scale=torch.tensor(2.0), margin=0.5).item()
    1.25
    """
    return pattern_hinge(pre_activations, -pre_activations.detach().sign(), scale=scale, margin=margin)


@dataclass(frozen=True)
class PatternCounts:
    """How often the units were positive for the samples of each class, older batches counting less.

    Attributes:
        positive: float32 (classes, D).
        samples: float32 (classes, 1).
        size: float32 (classes, 1), the sums of mean |z| over units.
    """

    positive: Tensor
    samples: Tensor
    size: Tensor

    @classmethod
    def of(cls, pre_activations: Tensor, labels: Tensor, classes: int) -> PatternCounts:
        """Those of one batch: z (N, D) and labels (N,)."""
        of_class = torch.nn.functional.one_hot(labels, classes).float().T
        size = pre_activations.detach().abs().float().mean(1, keepdim=True)
        return cls(of_class @ sign_patterns(pre_activations).float(), of_class.sum(1, keepdim=True), of_class @ size)

    @classmethod
    def unpacked(cls, packed: Tensor) -> PatternCounts:
        return cls(packed[:, :-2], packed[:, -2:-1], packed[:, -1:])

    def packed(self) -> Tensor:
        """All of it as one tensor (classes, D + 2), which processes add up."""
        return torch.cat([self.positive, self.samples, self.size], 1)

    def then(self, batch: PatternCounts, decay: float) -> PatternCounts:
        """With one batch more; each older one counts ``decay`` times as much as before."""
        return PatternCounts.unpacked(decay * self.packed() + batch.packed())

    def majority(self) -> Tensor:
        """The sign that most samples of each class have, -1 or 1, float32 (classes, D); -1 where as many have either.

        >>> z = torch.tensor([[1.0, -1.0], [2.0, 3.0], [1.0, -2.0]])
        >>> PatternCounts.of(z, torch.tensor([0, 0, 0]), classes=1).majority().tolist()
        [[1.0, -1.0]]
        """
        return torch.where(self.positive * 2 > self.samples, 1.0, -1.0)

    def scale(self) -> Tensor:
        """The mean of |z| over samples and units, ()."""
        return self.size.sum() / self.samples.sum()
