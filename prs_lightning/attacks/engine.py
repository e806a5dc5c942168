"""The one loop behind every gradient attack: it keeps batches full while samples come and go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prs_lightning.attacks.ball import check_inside
from prs_lightning.attacks.losses import margin
from prs_lightning.attacks.network import AttackedNetwork, Gradient, check_classes, check_images, refuse_not_finite
from prs_lightning.attacks.threat_model import ThreatModel, check_count
from prs_lightning.errors import ConfigError
from prs_lightning.seeding import draw_key

Progress = Callable[[int, int, int], None]
"""Called with the samples done, the samples in all, and how many of the done ones withstood."""


class Samples(NamedTuple):
    """A source of images that need not be in memory as floats.

    ``gather(rows)`` gives the images (n, ...), float32 in [0, 1]; ``labels`` is int64 (N,); ``indices`` (N,) are
    the numbers by which random starts are keyed, so that a shard of a data set draws what the whole would.
    """

    gather: Callable[[Tensor], Tensor]
    labels: Tensor
    indices: Tensor

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, indices: Tensor | None = None) -> Samples:
        """Images that are in memory; ConfigError for what `check_images` refuses. ``indices`` None: 0 ... N-1."""
        check_images(images, labels)
        images = images.detach()
        if indices is None:
            indices = torch.arange(len(labels), device=labels.device)
        return cls(lambda rows: images[rows].to(torch.float32), labels.to(torch.int64), indices)


@dataclass(frozen=True)
class AttackResult:
    """One row per given sample; N samples of shape (C, H, W).

    Attributes:
        adversarial: float32 (N, C, H, W): the image at which the attack ended, in the ball and in [0, 1]; the clean
            image where it was misclassified already. None if it was not asked for.
        correct_before: bool (N,): the clean image is classified correctly.
        correct_after: bool (N,): the sample withstood. With ``early_exit`` it was never misclassified at any
            iterate (worst case); without, it is classified correctly at the last iterate.
        zero_gradient_clean: bool (N,): the loss gradient at the clean image is exactly 0 everywhere.
            False where nobody looked (``diagnose``, ART).
        zero_gradient_end: bool (N,): so is the gradient at the image where the attack ended.
        steps_to_success: int64 (N,): steps taken until the sample was first misclassified, restarts counted
            on; 0 if the clean image or the random start was; -1 if it never was.
    """

    adversarial: Tensor | None
    correct_before: Tensor
    correct_after: Tensor
    zero_gradient_clean: Tensor
    zero_gradient_end: Tensor
    steps_to_success: Tensor

    @property
    def robust_accuracy(self) -> float:
        """Share of *all* given samples that are still classified correctly, in [0, 1]."""
        return float(self.correct_after.double().mean())


def gradient_attack(
    model: nn.Module,
    samples: Samples,
    threat: ThreatModel,
    *,
    generator: torch.Generator | None = None,
    among: Tensor | None = None,
    keep_adversarial: bool = False,
    diagnose: bool = False,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> AttackResult:
    """Attack samples under a threat model; the keywords and errors are those of :func:`prs_lightning.attacks.pgd`.

    Unless adversarial images are kept or gradients diagnosed, nothing but one batch of images is held at a time.
    """
    check_count("batch_size", batch_size)
    if not isinstance(diagnose, bool):
        raise ConfigError(f"diagnose={diagnose!r} is unknown: expected True or False")
    labels = samples.labels
    network = AttackedNetwork(model, labels.device, threat.objective(), threat.precision)
    rows = torch.arange(len(labels), device=labels.device)
    classes = network.logits(samples.gather(rows[:8])).shape[1]
    check_classes(labels, classes)
    check_targets(threat.targets, classes)
    # Without a random start the clean image is the first iterate, which the loop judges, if its passes are exact.
    starts_clean = among is None and not (diagnose or threat.random_start) and network.exact
    correct, zero = torch.ones_like(rows, dtype=torch.bool), torch.zeros_like(rows, dtype=torch.bool)
    if among is not None:
        correct = among.clone()
    elif diagnose:
        correct, zero = look_at_gradients(network, samples, batch_size=batch_size)
    elif not starts_clean:
        logits = torch.cat([network.logits(samples.gather(part)) for part in rows.split(batch_size)])
        refuse_not_finite(rows, logits)
        correct = logits.argmax(1) == labels
    images = samples.gather(rows) if keep_adversarial or diagnose else None
    steps = torch.where(correct | (among is not None), -1, 0)
    found = AttackResult(images, correct, correct.clone(), zero, torch.zeros_like(zero), steps)
    excess = torch.zeros(len(rows), device=rows.device)
    attack = Attack(network, samples, threat, found, excess, batch_size, starts_clean, progress)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    targets = likeliest_others(network, samples, found.correct_after, threat.targets, batch_size=batch_size)
    for restart in range(threat.restarts):
        key = draw_key(generator)
        for place, each in enumerate(targets):
            attack.run(found.correct_after.nonzero().flatten(), key, restart * len(targets) + place, each)
    check_inside(excess, threat.epsilon)
    if starts_clean:
        correct &= steps != 0
    if images is not None and diagnose:
        ends = samples._replace(gather=lambda rows: images[rows])
        _, zero = look_at_gradients(network, ends, among=correct, batch_size=batch_size)
        found = replace(found, zero_gradient_end=zero)
    return found if keep_adversarial else replace(found, adversarial=None)


def look_at_gradients(
    network: AttackedNetwork, samples: Samples, *, among: Tensor | None = None, batch_size: int = 128
) -> tuple[Tensor, Tensor]:
    """Of each image, bool (N,): is it classified correctly, and is its loss gradient exactly 0 everywhere.

    Args:
        among: bool (N,), the samples to look at; of the others both are False. None: all.

    Raises:
        RunError: logits or gradients that are not finite.
    """
    correct, zero = torch.zeros(2, len(samples.labels), dtype=torch.bool, device=samples.labels.device)
    chosen = torch.ones_like(correct) if among is None else among
    for rows in chosen.nonzero().flatten().split(batch_size):
        gradient = network.gradient(samples.gather(rows), samples.labels[rows])
        refuse_not_finite(rows, gradient.logits, gradient.largest)
        correct[rows], zero[rows] = gradient.logits.argmax(1) == samples.labels[rows], gradient.largest == 0
    return correct, zero


def check_targets(targets: int, classes: int) -> None:
    """Raise ConfigError for more targets than there are other classes."""
    if targets >= classes:
        raise ConfigError(f"targets={targets}: the network has {classes} classes, expected {classes - 1} at most")


def likeliest_others(
    network: AttackedNetwork, samples: Samples, among: Tensor, count: int, *, batch_size: int
) -> Sequence[Tensor | None]:
    """The classes that are attacked towards, the likeliest first: ``count`` tensors int64 (N,), known where ``among``
    is true; of 0 targets one None."""
    if not count:
        return (None,)
    labels = samples.labels
    targets = labels.repeat(count, 1)
    for rows in among.nonzero().flatten().split(batch_size):
        others = network.logits(samples.gather(rows)).scatter(1, labels[rows, None], float("-inf"))
        targets[:, rows] = others.topk(count, dim=1).indices.T
    return targets.unbind()


GO_ON, CHECK_NEXT, CHECK_HERE, DONE, STEP_EXACTLY = range(5)
"""The ways of a sample after a pass. Checked is its next iterate, or the one where it stands."""


class Batch(NamedTuple):
    """Samples on their way, one row each.

    ``rows`` are their places among all samples, ``taken`` the steps taken so far, ``images`` the iterates, ``checked``
    whether an exact pass found the iterate classified correctly, ``remembered`` an earlier iterate (`Attack._moved`).
    """

    rows: Tensor
    labels: Tensor
    taken: Tensor
    clean: Tensor
    images: Tensor
    checked: Tensor
    remembered: Tensor

    def take(self, places: Tensor | slice) -> Batch:
        return Batch(*(field[places] for field in self))

    def join(self, other: Batch) -> Batch:
        return Batch(*(torch.cat(fields) for fields in zip(self, other, strict=True)))

    def split(self, count: int) -> tuple[Batch, Batch]:
        """The first ``count`` samples, and the rest."""
        return self.take(slice(count)), self.take(slice(count, None))


@dataclass
class Attack:
    """What is known of every sample, and the loop that finds it out.

    The loop takes a gradient step with all samples of the batch. Who needs no further gradient meets one exact forward
    pass: whose next iterate is the last or is forecast to be misclassified, and, where gradients are approximate, who
    looks misclassified. A sample is done once it was misclassified (at the clean image, or anywhere with
    ``early_exit``), its gradient is exactly zero, for then every later iterate is the same, or its steps are used up.
    On a GPU the host waits once a pass, for the counts of samples that go each way.
    """

    network: AttackedNetwork
    samples: Samples
    threat: ThreatModel
    found: AttackResult
    excess: Tensor
    batch_size: int
    starts_clean: bool
    progress: Progress | None

    def run(self, queue: Tensor, key: int, turn: int, targets: Tensor | None = None) -> None:
        """Attack the samples of a queue (rows, int64) once, from the random starts of one key.

        ``turn`` counts the attacks of before; ``targets`` (N,) are the classes that a targeted loss goes for.
        """
        total = len(self.found.steps_to_success)
        self.finished, self.withstood, self.steps_before = total - len(queue), 0, turn * self.threat.steps
        self.targets = targets
        self.moving = self.checking = self._start(queue[:0], key)
        while len(queue) or len(self.moving.rows) or len(self.checking.rows):
            if len(queue) and (free := self.batch_size - len(self.moving.rows)) > 0:
                self.moving = self.moving.join(self._start(queue[:free], key))
                queue = queue[free:]
            before = self.finished
            if len(self.checking.rows) >= self.batch_size or not len(self.moving.rows):
                batch, self.checking = self.checking.split(self.batch_size)
                self._pass(batch, step=False, exact=True)
            else:
                batch, self.moving = self.moving.split(self.batch_size)
                self._pass(batch, step=True, exact=self.network.exact)
            if self.progress is not None and self.finished > before:
                self.progress(self.finished, total, self.withstood)

    def _start(self, rows: Tensor, key: int) -> Batch:
        clean = images = self.samples.gather(rows)
        if self.threat.random_start and len(rows):
            images = self.threat.ball.random_start(clean, self.samples.indices[rows], key)
        none = torch.zeros_like(rows)
        return Batch(rows, self.samples.labels[rows], none, clean, images, none.bool(), images)

    def _pass(self, batch: Batch, *, step: bool, exact: bool) -> None:
        """A gradient step with the samples of one batch, or only a look at where they are; who is done leaves."""
        if step:
            targets = None if self.targets is None else self.targets[batch.rows]
            gradient = self.network.gradient(batch.images, batch.labels, targets=targets, exact=exact)
            logits, largest, onward = gradient.logits, gradient.largest, self._moved(batch, gradient)
            ways = torch.where(self._may_end(batch, onward, gradient), CHECK_NEXT, GO_ON)
            if exact and not self.network.exact:  # for a sample whose gradient only exact steps see
                ways.fill_(CHECK_NEXT)
        else:
            logits = self.network.logits(batch.images)
            largest, (onward, ways) = logits.new_ones(len(logits)), self._looked(batch, logits)
        wrong, zero = logits.argmax(1) != batch.labels, largest == 0
        if exact:
            ways = torch.where(self._judge(batch, wrong, zero), DONE, ways)
        else:
            doubted = wrong & ~batch.checked & (self.found.steps_to_success[batch.rows] < 0)
            ways = torch.where(zero, STEP_EXACTLY, torch.where(doubted, CHECK_HERE, ways))
        broken = ~(logits.isfinite().all(1) & largest.isfinite())
        numbers = [(ways == way).sum() for way in range(5)]
        *counts, failed, withstood = torch.stack([*numbers, broken.sum(), ((ways == DONE) & ~wrong).sum()]).tolist()
        if failed:  # tolist is where the host waits
            refuse_not_finite(batch.rows, logits, largest)
        on, looks, doubts, over, blind = ways.argsort(stable=True).split(counts)
        self.moving = self.moving.join(onward.take(on))
        self.checking = self.checking.join(batch.take(doubts)).join(onward.take(looks))
        self.finished, self.withstood = self.finished + len(over), self.withstood + withstood
        if len(over):
            self._leave(batch, over, wrong, zero)
        if len(blind):
            self._pass(batch.take(blind), step=True, exact=True)

    def _leave(self, batch: Batch, over: Tensor, wrong: Tensor, zero: Tensor) -> None:
        """Keep where the samples at the places ``over`` of a batch ended."""
        rows, images = batch.rows[over], batch.images[over]
        self.found.correct_after[rows], self.found.zero_gradient_end[rows] = ~wrong[over], zero[over]
        self.excess[rows] = self.threat.ball.excess(images, batch.clean[over])
        if self.found.adversarial is not None:
            self.found.adversarial[rows] = images

    def _looked(self, batch: Batch, logits: Tensor) -> tuple[Batch, Tensor]:
        """Where samples go on from an exact look at where they are, and their ways (n,) unless they are done."""
        return batch._replace(checked=torch.ones_like(batch.checked)), torch.full_like(batch.taken, GO_ON)

    def _moved(self, batch: Batch, gradient: Gradient) -> Batch:
        """The next iterates; if one equals an iterate that was remembered, all whole rounds that still fit are counted.

        Where PGD does not succeed it soon runs in circles between corners of its ball, bit for bit. On CNN-6 the common
        circles had 4, 2, 12 and 8 iterates, short ones first: so one iterate in 2 is remembered, later one in 4, 8, 16.
        Like the zero gradient this takes the network to be deterministic, which the audit checks.
        """
        threat, taken = self.threat, batch.taken
        images = threat.ball.step(batch.images, gradient.images, threat.step_size, batch.clean)
        length = 2 + 2 * (taken >= 16) + 4 * (taken >= 32) + 8 * (taken >= 64)
        since = taken % length + 1
        circles = (images == batch.remembered).flatten(1).all(1)
        return batch._replace(
            images=images,
            taken=taken + 1 + (threat.steps - taken - 1) // since * since * circles,
            remembered=torch.where((since == length).view(-1, *[1] * (images.ndim - 1)), images, batch.remembered),
            checked=torch.zeros_like(batch.checked),
        )

    def _may_end(self, batch: Batch, moved: Batch, gradient: Gradient) -> Tensor:
        """Whether the attack probably ends at the next iterate: the last, or misclassified to first order (n,)."""
        last = moved.taken == self.threat.steps
        if not self.threat.early_exit:
            return last
        growth = ((moved.images - batch.images) * gradient.images).flatten(1).sum(1) / gradient.slope
        return last | (margin(gradient.logits, batch.labels) + growth > 0)

    def _judge(self, batch: Batch, wrong: Tensor, zero: Tensor) -> Tensor:
        """Keep what is certain about these iterates; returns which samples are done (n,)."""
        rows, taken, steps = batch.rows, batch.taken, self.found.steps_to_success
        steps[rows] = torch.where(wrong & (steps[rows] < 0), taken + self.steps_before, steps[rows])
        ends = self.threat.early_exit | (self.starts_clean & (taken == 0))
        return zero | (wrong & ends) | (taken == self.threat.steps)
