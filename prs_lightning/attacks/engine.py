"""The one loop behind every gradient attack: it keeps batches full while samples come and go."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prs_lightning.attacks.ball import check_inside
from prs_lightning.attacks.losses import margin, resolve
from prs_lightning.attacks.network import AttackedNetwork, Gradient, check_classes, refuse_not_finite
from prs_lightning.attacks.samples import AttackResult, Progress, Samples
from prs_lightning.attacks.threat_model import ThreatModel, check_count
from prs_lightning.errors import ConfigError
from prs_lightning.seeding import draw_key


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
    network = AttackedNetwork(model, resolve(threat.loss), threat.precision, samples.labels.device)
    rows = torch.arange(len(samples.labels), device=samples.labels.device)
    check_classes(samples.labels, network.logits(samples.gather(rows[:8])).shape[1])
    attack = Attack(network, samples, threat, batch_size, keep_images=keep_adversarial or diagnose)
    attack.begin(among, diagnose, progress)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    for restart in range(threat.restarts):
        attack.run(attack.correct_after.nonzero().flatten(), draw_key(generator), restart)
    check_inside(attack.excess, threat.epsilon)
    return attack.result(diagnose=diagnose, keep_adversarial=keep_adversarial)


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
        gradient = network.exact_gradient(samples.gather(rows), samples.labels[rows])
        refuse_not_finite(rows, gradient.logits, gradient.images)
        correct[rows], zero[rows] = gradient.logits.argmax(1) == samples.labels[rows], gradient.zero
    return correct, zero


class Batch(NamedTuple):
    """Samples on their way, one row each.

    ``rows`` are their places among all samples, ``taken`` the steps taken so far, ``images`` the iterates, ``checked``
    whether an exact pass found the iterate classified correctly, ``remembered`` an earlier iterate (`circle_length`).
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


class Attack:
    """What is known of every sample, and the loop that finds it out.

    The loop takes a gradient step with all samples of the batch. Who needs no further gradient meets one exact forward
    pass: whose next iterate is the last or is forecast to be misclassified, and, where gradients are approximate, who
    looks misclassified. A sample is done once it was misclassified (at the clean image, or anywhere with
    ``early_exit``), its gradient is exactly zero, for then every later iterate is the same, or its steps are used up.
    The rest go on, and the next of the queue take the free places.

    On a GPU the host waits once a pass, for the counts of samples that go each way.
    """

    def __init__(
        self, network: AttackedNetwork, samples: Samples, threat: ThreatModel, batch_size: int, *, keep_images: bool
    ) -> None:
        self.network, self.samples, self.threat, self.batch_size = network, samples, threat, batch_size
        self.ball = threat.ball
        count, device = len(samples.labels), samples.labels.device
        self.all_rows = torch.arange(count, device=device)
        self.correct_before, self.correct_after, self.zero_clean, self.zero_end, self.attacked = torch.zeros(
            5, count, dtype=torch.bool, device=device
        )
        self.steps_to_success = torch.full((count,), -1, dtype=torch.int64, device=device)
        self.excess = torch.zeros(count, device=device)
        self.adversarial = samples.gather(self.all_rows) if keep_images else None

    def begin(self, among: Tensor | None, diagnose: bool, progress: Progress | None) -> None:
        """Find out whom to attack: ``among``, or all that are classified correctly."""
        self.progress = progress
        # Without a random start the clean image is the first iterate, which the loop judges, if its passes are exact.
        self.starts_clean = among is None and not (diagnose or self.threat.random_start) and self.network.exact
        if among is not None:
            correct = among
        elif diagnose:
            correct, self.zero_clean = look_at_gradients(self.network, self.samples, batch_size=self.batch_size)
        elif self.starts_clean:
            correct = torch.ones_like(self.correct_after)
        else:
            parts = self.all_rows.split(self.batch_size)
            logits = torch.cat([self.network.logits(self.samples.gather(rows)) for rows in parts])
            refuse_not_finite(self.all_rows, logits)
            correct = logits.argmax(1) == self.samples.labels
        if among is None:
            self.steps_to_success = torch.where(correct, -1, 0)
        self.correct_before, self.correct_after = correct.clone(), correct.clone()

    def run(self, queue: Tensor, key: int, restart: int) -> None:
        """Attack the samples of a queue (rows, int64) once, from the random starts of one key."""
        self.queue, self.key, self.restart = queue, key, restart
        self.moving = self.checking = self._start(queue[:0])
        self.withstood = torch.zeros((), dtype=torch.int64, device=queue.device)
        self.attacked[queue] = True
        self.finished = len(self.all_rows) - len(queue)
        while True:
            free = self.batch_size - len(self.moving.rows)
            if free > 0 and len(self.queue):
                self.moving = self.moving.join(self._start(self.queue[:free]))
                self.queue = self.queue[free:]
            before = self.finished
            if len(self.checking.rows) >= self.batch_size or not len(self.moving.rows):
                if not len(self.checking.rows):
                    return
                batch, self.checking = self._first(self.checking)
                withstood = self._check(batch)
            else:
                withstood = self._step()
            if self.progress is not None and self.finished > before:
                self.progress(self.finished, len(self.all_rows), withstood)

    def _first(self, batch: Batch) -> tuple[Batch, Batch]:
        """As many samples as one pass takes, and the rest."""
        return batch.take(slice(self.batch_size)), batch.take(slice(self.batch_size, None))

    def _start(self, rows: Tensor) -> Batch:
        clean = images = self.samples.gather(rows)
        if self.threat.random_start and len(rows):
            images = self.ball.random_start(clean, self.samples.indices[rows], self.key)
        none = torch.zeros_like(rows)
        return Batch(rows, self.samples.labels[rows], none, clean, images, none.bool(), images)

    def _step(self) -> int:
        """A gradient step with the samples of one batch; returns how many withstood so far."""
        batch, rest = self._first(self.moving)
        gradient = self.network.gradient(batch.images, batch.labels)
        wrong, zero = gradient.logits.argmax(1) != batch.labels, gradient.zero
        moved = self._moved(batch, gradient)
        check_moved = (moved.taken == self.threat.steps) | self._forecast(batch, moved, gradient)
        none = torch.zeros_like(wrong)
        if self.network.exact:
            done, stuck, doubted = self._judge(batch, wrong, zero), none, none
        else:
            done, stuck = none, zero
            doubted = wrong & ~zero & ~batch.checked & (self.steps_to_success[batch.rows] < 0)
        check_moved &= ~(done | stuck | doubted)
        ways = check_moved + 2 * doubted + 3 * done + 4 * stuck
        numbers = [(ways == way).sum() for way in range(5)]
        *counts, broken, withstood = torch.stack([*numbers, gradient.broken.sum(), self.withstood]).tolist()  # waits
        if broken:
            refuse_not_finite(batch.rows, gradient.logits, gradient.images)
        on, looks, doubts, ended, zeros = ways.argsort(stable=True).split(counts)
        self.moving = moved.take(on).join(rest)
        self.checking = self.checking.join(batch.take(doubts)).join(moved.take(looks))
        self._finish(batch.take(ended), wrong[ended], zero[ended])
        if len(zeros):
            self._check(batch.take(zeros), with_gradient=True)
        return withstood

    def _moved(self, batch: Batch, gradient: Gradient) -> Batch:
        """The next iterates. One that equals an earlier one counts all whole rounds of that circle that still fit."""
        images = self.ball.step(batch.images, gradient.images, self.threat.step_size, batch.clean)
        taken, length = batch.taken + 1, circle_length(batch.taken)
        since = batch.taken % length + 1
        repeats = (images == batch.remembered).flatten(1).all(1)
        taken = taken + (self.threat.steps - taken) // since * since * repeats
        forget = (since == length).view(-1, *[1] * (images.ndim - 1))
        remembered = torch.where(forget, images, batch.remembered)
        return batch._replace(
            images=images, taken=taken, remembered=remembered, checked=torch.zeros_like(batch.checked)
        )

    def _forecast(self, batch: Batch, moved: Batch, gradient: Gradient) -> Tensor:
        """Whether the step makes a sample misclassified, to first order, and so probably ends its attack."""
        if not self.threat.early_exit:
            return torch.zeros_like(batch.checked)
        growth = ((moved.images - batch.images) * gradient.images).flatten(1).sum(1) / gradient.slope
        return margin(gradient.logits, batch.labels) + growth > 0

    def _check(self, batch: Batch, *, with_gradient: bool = False) -> int:
        """An exact pass, forward only or a gradient step; returns how many withstood so far.

        The iterate that a gradient step leads to is checked in its turn, for it may be the last.
        """
        if with_gradient:
            gradient = self.network.exact_gradient(batch.images, batch.labels)
            logits, zero, broken = gradient.logits, gradient.zero, gradient.broken
            onward = self._moved(batch, gradient)
        else:
            logits = self.network.logits(batch.images)
            broken = ~logits.isfinite().all(1)
            zero, onward = torch.zeros_like(broken), batch._replace(checked=torch.ones_like(broken))
        wrong = logits.argmax(1) != batch.labels
        done = self._judge(batch, wrong, zero)
        ended, failed, withstood = torch.stack([done.sum(), broken.sum(), self.withstood]).tolist()  # the host waits
        if failed:
            refuse_not_finite(batch.rows, logits, gradient.images if with_gradient else None)
        on, over = done.to(torch.int8).argsort(stable=True).split([len(done) - ended, ended])
        self._finish(batch.take(over), wrong[over], zero[over])
        if with_gradient:
            self.checking = self.checking.join(onward.take(on))
        else:
            self.moving = self.moving.join(onward.take(on))
        return withstood

    def _judge(self, batch: Batch, wrong: Tensor, zero: Tensor) -> Tensor:
        """Keep what is certain about these iterates; returns which samples are done (n,)."""
        clean = (batch.taken == 0) & self.starts_clean
        taken = batch.taken + self.restart * self.threat.steps
        known = self.steps_to_success[batch.rows]
        self.steps_to_success[batch.rows] = torch.where(wrong & (known < 0), taken, known)
        self.correct_before[batch.rows] &= ~(clean & wrong)
        done = zero | (wrong & (clean | self.threat.early_exit)) | (batch.taken == self.threat.steps)
        self.withstood += (done & ~wrong).sum()
        return done

    def _finish(self, batch: Batch, wrong: Tensor, zero: Tensor) -> None:
        """Keep the end of the attack on these samples."""
        if not len(batch.rows):
            return
        self.finished += len(batch.rows)
        self.correct_after[batch.rows], self.zero_end[batch.rows] = ~wrong, zero
        self.excess[batch.rows] = self.ball.excess(batch.images, batch.clean)
        if self.adversarial is not None:
            self.adversarial[batch.rows] = batch.images

    def result(self, *, diagnose: bool, keep_adversarial: bool) -> AttackResult:
        """What became of every sample; with ``diagnose`` the gradients where the attack ended are looked at."""
        if diagnose and self.adversarial is not None:
            ends = Samples.of(self.adversarial, self.samples.labels)
            _, self.zero_end = look_at_gradients(self.network, ends, among=self.attacked, batch_size=self.batch_size)
        return AttackResult(
            adversarial=self.adversarial if keep_adversarial else None,
            correct_before=self.correct_before,
            correct_after=self.correct_after,
            zero_gradient_clean=self.zero_clean,
            zero_gradient_end=self.zero_end,
            steps_to_success=self.steps_to_success,
        )


def circle_length(taken: Tensor) -> Tensor:
    """Up to which length circles of iterates are noticed after so many steps: one in so many is remembered.

    Where PGD does not succeed it soon runs in circles between corners of its ball, bit for bit. On CNN-6 the common
    circles had 4, 2, 12 and 8 iterates, short ones first. Like the zero gradient this takes the network to be
    deterministic, which the audit checks.
    """
    return 2 + 2 * (taken >= 16) + 4 * (taken >= 32) + 8 * (taken >= 64)
