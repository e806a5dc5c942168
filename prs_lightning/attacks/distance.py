"""The distance to the decision boundary: the smallest perturbation found that changes a sample's class."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from prs_lightning.attacks.ball import BALLS, Ball, check_inside
from prs_lightning.attacks.engine import (
    CHECK_NEXT,
    Attack,
    AttackResult,
    Batch,
    Progress,
    Samples,
    check_targets,
    likeliest_others,
)
from prs_lightning.attacks.losses import margin
from prs_lightning.attacks.network import AttackedNetwork, Gradient, check_classes
from prs_lightning.attacks.threat_model import ThreatModel, check_count
from prs_lightning.regions.logits import median
from prs_lightning.seeding import draw_key

STEPS = 100
"""Gradients per sample at most. On plainly trained networks about 12 are taken, on adversarially trained ones 30."""
SMALLEST = 0.1
"""The search ends where its steps would be smaller than this share of the radius."""
BEYOND = 1.06
"""How far beyond the root of the linear margin the next radius goes."""
LEAST = 0.86
"""The next radius is at least this share of the nearest distance: where the network is curved the root is too near, and
a search that follows it never comes back (in L2, on an adversarially trained CNN-6, twice the distance)."""
HOPELESS = 1.5
"""No search goes on towards a class whose boundary is, at the first gradient, this much farther than one found."""
PRECISION = 0.002
"""The bisection ends where its two radii differ by this share."""
HALVINGS = 50
"""Or after so many passes: within some 1e-5 of the boundary the grid of float32 is coarser than that share."""


@dataclass(frozen=True)
class Distances:
    """One row per given sample; N samples of shape (C, H, W).

    Attributes:
        distance: float32 (N,): norm of (adversarial - clean image), in pixel units, of the nearest image in [0, 1] that
            an exact float32 pass found misclassified: an upper bound. 0 where the clean image is misclassified,
            infinite where nothing was found in the whole cube [0, 1].
        adversarial: float32 (N, C, H, W): those images; the clean one where nothing was found. None if not asked for.
        correct: bool (N,): the clean image is classified correctly.
    """

    distance: Tensor
    adversarial: Tensor | None
    correct: Tensor

    @property
    def median(self) -> float:
        """Over the correctly classified samples; infinite if one in the middle is, NaN without any."""
        return float(median(self.distance[self.correct]))


def distances(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    steps: int = STEPS,
    targets: int = 0,
    generator: torch.Generator | None = None,
    batch_size: int = 128,
    keep_adversarial: bool = True,
    indices: Tensor | None = None,
    among: Tensor | None = None,
    progress: Progress | None = None,
) -> Distances:
    """The distance of each sample to the decision boundary of a network, by `Pursuit`.

    Args:
        model: any module in eval mode that maps images in [0, 1] to logits (N, classes). It is left as it was.
        images: float (N, C, H, W) in [0, 1].
        labels: whole class numbers (N,).
        norm: ``"linf"``, or ``"l2"``, the root of the sum of squares over all pixels.
        steps: gradients per sample at most; a bisection by forward passes follows.
        targets: n, to search again towards each of the n likeliest other classes, unless the first gradient says that
            it is farther; 3 lower the median by up to 3%, at 2 to 3 times the cost.
        generator, batch_size, keep_adversarial, indices, among: as for :func:`prs_lightning.attacks.pgd`.
        progress: called with (done, total, those of the done ones for which nothing was found).

    Raises:
        ConfigError: values, images, labels or a network that cannot work; the message names the value.
        RunError: a network that returns NaN, or an adversarial image outside [0, 1].
    """
    return distances_of(
        model,
        Samples.of(images, labels, indices),
        norm=norm,
        steps=steps,
        targets=targets,
        generator=generator,
        batch_size=batch_size,
        keep_adversarial=keep_adversarial,
        among=among,
        progress=progress,
    )


def distances_of(
    model: nn.Module,
    samples: Samples,
    *,
    norm: str = "linf",
    steps: int = STEPS,
    targets: int = 0,
    generator: torch.Generator | None = None,
    batch_size: int = 128,
    keep_adversarial: bool = False,
    among: Tensor | None = None,
    progress: Progress | None = None,
) -> Distances:
    """:func:`distances` of samples that need not be in memory; its keywords and errors."""
    check_count("batch_size", batch_size)
    if targets:
        check_count("targets", targets)
    labels = samples.labels
    rows = torch.arange(len(labels), device=labels.device)
    some = samples.gather(rows[:8])
    widest = 1.0 if norm == "linf" else math.sqrt(some[0].numel())  # from corner to corner of [0, 1]
    threat = ThreatModel(
        epsilon=widest, step_size=widest, steps=steps, norm=norm, loss=smooth_margin, random_start=False
    )
    network = AttackedNetwork(model, labels.device, smooth_margin)
    classes = network.logits(some).shape[1]
    check_classes(labels, classes)
    check_targets(targets, classes)
    correct = torch.ones_like(rows, dtype=torch.bool) if among is None else among.clone()
    images = samples.gather(rows) if keep_adversarial else None
    nothing = torch.zeros_like(correct)
    found = AttackResult(images, correct, correct.clone(), nothing, nothing.clone(), torch.full_like(rows, -1))
    distance, excess = torch.where(correct, math.inf, 0.0), torch.zeros(len(rows), device=rows.device)

    def tell(done: int, total: int, _: int) -> None:
        assert progress is not None
        progress(done, total, int(distance.isinf().sum()) - total + done)

    told = tell if progress is not None else None
    pursuit = Pursuit(network, samples, threat, found, excess, batch_size, False, told, distance)
    pursuit.run(correct.nonzero().flatten(), 0, 0)
    correct &= distance > 0
    for each in likeliest_others(network, samples, correct, targets, batch_size=batch_size) if targets else ():
        pursuit.run(correct.nonzero().flatten(), 0, 0, each)
    unmoved = distance.isinf().nonzero().flatten()
    if len(unmoved):  # where no gradient leads out of the class
        pursuit.threat = replace(threat, random_start=True)
        pursuit.run(unmoved, draw_key(torch.Generator().manual_seed(0) if generator is None else generator), 0)
    check_inside(excess, widest)
    return Distances(distance, images, correct)


def smooth_margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """The margin loss whose maximum over the other classes is smoothed: sum_i w_i z_i - z_y.

    w = softmax(z_i / s) over i != y, held constant, with s a fifth of the margin: far from the boundary it goes for all
    classes that are likely, near it for the likeliest, whatever the scale of the logits. Targeted: z_t - z_y.
    """
    if targets is not None:
        return margin(logits, labels, targets)
    own = labels[:, None]
    others = logits.detach().scatter(1, own, float("-inf"))
    largest = others.amax(1, keepdim=True)
    gap = (largest - logits.detach().gather(1, own)).abs()
    scale = (gap / 5 + 1e-6 * largest.abs()).clamp_min(1e-30)
    weights = ((others - largest) / scale).softmax(1)
    return (weights * logits).sum(1) - logits.gather(1, own).squeeze(1)


@dataclass
class Pursuit(Attack):
    """The engine's loop in search of the nearest misclassified image of each sample, whose radius is its own.

    At each iterate the margin is taken as linear; the next radius is that of the ball around the clean image in which
    the linear margin just reaches 0, and a little more: the root that a bisection halves its way to. Where that was too
    little the next radius follows from the new gradient; where an image is misclassified it bounds all later radii.
    Iterates are kept from radius to radius, so that no search starts anew. Steps shrink from a whole radius, as in
    DeepFool (Moosavi-Dezfooli et al. 2016, algorithm 2) and FAB (Croce & Hein 2020), to what settles the pixels whose
    gradient changes sign. They shrink when nothing nearer was found for a while, the longer the search the longer; FMN
    (Pintor et al. 2021, algorithm 1) anneals them over a number of steps that is the same for all samples. At the end
    the nearest image is drawn towards the clean one, by bisection, with forward passes alone.

    ``taken`` counts gradients, and is ``steps`` or more in the bisection; ``remembered`` is the nearest misclassified
    image, ``distance`` (N,) how far it is, ``refuted`` (N,) the largest radius of the bisection that was not enough.
    """

    distance: Tensor

    def run(self, queue: Tensor, key: int, turn: int, targets: Tensor | None = None) -> None:
        self.before, self.refuted = self.distance.clone(), torch.full_like(self.distance, -1)
        self.share, self.mark = torch.ones_like(self.distance), torch.full_like(self.distance, math.inf)
        self.marked = torch.zeros(len(self.distance), dtype=torch.int64, device=self.distance.device)
        super().run(queue, key, turn, targets)

    def _moved(self, batch: Batch, gradient: Gradient) -> Batch:
        near, batch = self._nearest(batch, gradient.logits)
        rows, taken, clean, ball = batch.rows, batch.taken, batch.clean, self.threat.ball
        share = self._share(rows, taken, near)
        ahead = margin(gradient.logits, batch.labels, None if self.targets is None else self.targets[rows])
        back = (gradient.images * (clean - batch.images)).flatten(1).sum(1)
        root = ball.reach(gradient.images, -ahead - back, clean)
        radius = root * torch.where(near.isinf(), BEYOND + 0.1 * taken, BEYOND)
        radius = torch.maximum(radius, ball.length(batch.images - clean) / 2)
        radius = torch.where(near.isfinite(), torch.maximum(radius, near * LEAST), radius)
        radius = torch.minimum(radius, near * (0.998 - 0.05 * share))
        images = self._ball(radius).step(batch.images, gradient.images, radius * share, clean)
        # Where no gradient is left the bisection begins, over all that is nearer.
        blind = gradient.largest == 0
        hopeless = (taken == 0) & (root > HOPELESS * near)
        self.refuted[rows] = torch.where(hopeless, near, torch.where(blind, 0, self.refuted[rows]))
        images = torch.where(_each(blind, images), self._between(batch, near), images)
        last = blind | (share < SMALLEST) | (near.isinf() & (taken >= self.threat.steps // 3))
        return batch._replace(images=images, taken=torch.where(last, self.threat.steps, taken + 1))

    def _share(self, rows: Tensor, taken: Tensor, near: Tensor) -> Tensor:
        """The step size as a share of the radius (n,): smaller where ``near`` has not become so for some gradients."""
        better = near < 0.99 * self.mark[rows]
        self.mark[rows] = torch.where(better, near, self.mark[rows])
        since = torch.where(better | near.isinf(), taken, self.marked[rows])
        waited = taken - since >= (taken // 3 - 2).clamp_min(2)
        self.marked[rows] = torch.where(waited, taken, since)
        self.share[rows] *= torch.where(waited, 0.4, 1.0)
        return self.share[rows]

    def _may_end(self, batch: Batch, moved: Batch, gradient: Gradient) -> Tensor:
        return moved.taken >= self.threat.steps

    def _looked(self, batch: Batch, logits: Tensor) -> tuple[Batch, Tensor]:
        near, batch = self._nearest(batch, logits)
        rows, last = batch.rows, batch.taken == self.threat.steps
        reached = self.threat.ball.length(batch.images - batch.clean)
        refuted = torch.maximum(self.refuted[rows], torch.where(reached < near, reached, -1))
        self.refuted[rows] = torch.where(last & (self.refuted[rows] < 0), 0.97 * near, refuted)
        onward = batch._replace(images=self._between(batch, near), taken=batch.taken + 1)
        return onward, torch.full_like(rows, CHECK_NEXT)

    def _judge(self, batch: Batch, wrong: Tensor, zero: Tensor) -> Tensor:
        near = self.distance[batch.rows]
        settled = near.isfinite() & (near - self.refuted[batch.rows] <= PRECISION * near)
        ends = (near == self.before[batch.rows]) & (zero | (batch.taken >= self.threat.steps))
        return (near == 0) | settled | ends | (batch.taken >= self.threat.steps + HALVINGS)

    def _leave(self, batch: Batch, over: Tensor, wrong: Tensor, zero: Tensor) -> None:
        """Nothing: what was found stands already."""

    def _nearest(self, batch: Batch, logits: Tensor) -> tuple[Tensor, Batch]:
        """How far the nearest misclassified images are (n,), and the batch that remembers them, by an exact pass."""
        rows, near = batch.rows, self.distance[batch.rows]
        length = self.threat.ball.length(batch.images - batch.clean)
        nearer = (logits.argmax(1) != batch.labels) & (length < near)
        near = torch.where(nearer, length, near)
        remembered = torch.where(_each(nearer, batch.images), batch.images, batch.remembered)
        self.distance[rows] = near
        outside = self.threat.ball.excess(batch.images, batch.clean)
        self.excess[rows] = torch.where(nearer, outside, self.excess[rows])
        if self.found.adversarial is not None:
            better = rows[nearer]
            self.found.adversarial[better] = batch.images[nearer]
        return near, batch._replace(remembered=remembered)

    def _between(self, batch: Batch, near: Tensor) -> Tensor:
        """The remembered images drawn to the middle of the bisection's two radii."""
        middle = (near + self.refuted[batch.rows].clamp_min(0)) / 2
        return self._ball(middle).project(batch.remembered, batch.clean)

    def _ball(self, radius: Tensor) -> Ball:
        return BALLS[self.threat.norm](radius)


def _each(flags: Tensor, images: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (images.ndim - 1))
