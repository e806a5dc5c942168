"""One attempt on every sample of a queue: the loop that keeps batches full while samples come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from prs_lightning.attacks.losses import margin
from prs_lightning.attacks.steps import bounds, random_start, sign_step

if TYPE_CHECKING:
    from prs_lightning.attacks.engine import Engine
    from prs_lightning.attacks.network import Look


def circle_sought(visits: Tensor) -> Tensor:
    """Up to which length circles are sought after so many steps: every so many steps an iterate is remembered.

    On CNN-6 the common circles had 4, 2, 12 and 8 iterates, short ones first.
    """
    return 2 + 2 * (visits >= 16) + 4 * (visits >= 32) + 8 * (visits >= 64)


class Batch(NamedTuple):
    """Samples on their way, one row each.

    ``rows`` are their places among all samples, ``visits`` the steps taken so far, ``images`` the iterates of the
    attack, ``lower`` and ``upper`` their limits, ``remembered`` the iterates at the last multiple of `circle_sought`
    steps.
    """

    rows: Tensor
    labels: Tensor
    visits: Tensor
    images: Tensor
    lower: Tensor
    upper: Tensor
    remembered: Tensor

    @property
    def size(self) -> int:
        return len(self.rows)

    def take(self, places: Tensor | slice) -> Batch:
        return Batch(*(field[places] for field in self))

    def join(self, other: Batch) -> Batch:
        return Batch(*(torch.cat(fields) for fields in zip(self, other, strict=True)))


class Attempt:
    """Attacks the samples of a queue once, from the random starts of one key.

    Two kinds of passes take turns. A *visit* is a forward and a backward pass of samples at an iterate x_0 ... x_steps:
    it judges the iterate and gives the gradient of the next step. A *judgement* is a pass by the exact network; it is
    forward only, if neither a diagnosis nor a gradient that vanished asks for more. It is for samples

    - of which an approximate visit (bfloat16, folded batch normalisation) says what has to be certain: that they are
      misclassified, that their gradient is zero, that they withstood to the last iterate;
    - whose next iterate need not have a gradient, because it is the last, or probably ends the attack: to first order,
      the step and the gradient make them misclassified. Where that turns out to be wrong, the iterate is visited after
      all.

    A sample is done once it was misclassified (clean, or at any iterate with ``early_exit``), its gradient is exactly
    zero, for then every later iterate is the same, or its steps are used up; the next of the queue takes its place.

    Where PGD does not succeed it soon runs in circles between corners of its ball. An iterate that equals an earlier
    one, bit for bit, therefore counts as many steps as whole rounds fit into those that are left. Like the zero
    gradient this takes the network to be deterministic, which the audit checks.

    On a GPU the host waits once a pass, for the counts of samples that go each way; all else is indexing on the device
    by an order whose parts have these counts.
    """

    def __init__(self, engine: Engine, queue: Tensor, key: int, restart: int, *, begins_clean: bool) -> None:
        self.engine, self.settings, self.network = engine, engine.settings, engine.network
        self.queue, self.key, self.restart, self.begins_clean = queue, key, restart, begins_clean
        # Of the judged samples, ``onward`` is where those go on that are not done.
        self.moving = self.waiting = self.judged = self.onward = self._start(queue[:0])
        diagnose = engine.settings.diagnose
        clean_images = begins_clean and self.network.approximate
        self.always_gradients = diagnose is True or (diagnose == "clean" and clean_images)
        self.doubted_zeros = 0
        self.finished = 0
        self.withstood = torch.zeros((), dtype=torch.int64, device=queue.device)

    def run(self, done_before: int) -> None:
        """Attack until the queue is empty; ``done_before`` samples count as done in the progress."""
        total, progress = done_before + len(self.queue), self.engine.progress
        while self._fill():
            before = self.finished
            full = self.judged.size >= self.settings.batch_size
            withstood = self._judge() if full or not self.moving.size else self._visit()
            if progress is not None and self.finished > before:
                progress(done_before + self.finished, total, withstood)

    def _start(self, rows: Tensor) -> Batch:
        settings, samples = self.settings, self.engine.samples
        images = samples.gather(rows)
        lower, upper = bounds(images, settings.epsilon)
        if settings.random_start and len(rows):
            images = random_start(images, samples.indices[rows], self.key, settings.epsilon, lower, upper)
        return Batch(rows, samples.labels[rows], torch.zeros_like(rows), images, lower, upper, images)

    def _fill(self) -> bool:
        """Fill free places, first with those that a judgement sent on; False if nobody is left."""
        room = self.settings.batch_size - self.moving.size
        if room and self.waiting.size:
            self.moving = self.moving.join(self.waiting.take(slice(room)))
            self.waiting = self.waiting.take(slice(room, None))
            room = self.settings.batch_size - self.moving.size
        if room and len(self.queue):
            self.moving = self.moving.join(self._start(self.queue[:room]))
            self.queue = self.queue[room:]
        return bool(self.moving.size or self.judged.size)

    def _visit(self) -> int:
        """One forward and backward pass of the moving samples; returns how many withstood so far."""
        batch, exact = self.moving, not self.network.approximate
        look = self.network.look(batch.images, batch.labels)
        logits, gradient, _ = look
        wrong, zero, bad = _seen(logits, gradient, batch.labels)
        last, clean = self._last(batch), self._clean(batch)
        ends = wrong | zero | last | clean
        if exact:
            done, doubted = self._note(batch, wrong, zero), torch.zeros_like(ends)
        else:
            done, doubted = torch.zeros_like(ends), ends
        moved = self._step(batch, gradient)
        suspected = self._suspected(batch, moved, look) & ~done & ~doubted
        ways = done + 2 * doubted.to(torch.int8) + 3 * suspected.to(torch.int8)
        counts = torch.stack(
            [done.sum(), doubted.sum(), suspected.sum(), (doubted & zero).sum(), bad.sum(), self.withstood]
        )
        finished, doubts, suspects, zeros, failures, withstood = counts.tolist()  # the host waits here
        if failures:
            self.engine.refuse(batch.rows, logits, bad)
        if finished + doubts + suspects:
            order = ways.argsort(stable=True)
            kept, ended, unsure, near = order.split(
                [batch.size - finished - doubts - suspects, finished, doubts, suspects]
            )
            self._finish(batch.take(ended), wrong[ended], zero[ended])
            self._put(batch.take(unsure), moved.take(unsure))
            self._put(moved.take(near), moved.take(near))
            moved = moved.take(kept)
            self.doubted_zeros += zeros
        self.moving = moved
        return withstood

    def _step(self, batch: Batch, gradient: Tensor) -> Batch:
        """The next iterates, without the rounds that would only repeat earlier ones."""
        images = sign_step(batch.images, gradient, self.settings.step_size, batch.lower, batch.upper)
        repeats = (images == batch.remembered).flatten(1).all(1)
        length = circle_sought(batch.visits)
        since = batch.visits % length + 1
        visits = batch.visits + 1
        skipped = (self.settings.steps - visits) // since * since * repeats
        forget = (since == length).view(-1, *[1] * (images.ndim - 1))
        remembered = torch.where(forget, images, batch.remembered)
        return batch._replace(images=images, visits=visits + skipped, remembered=remembered)

    def _suspected(self, batch: Batch, moved: Batch, look: Look) -> Tensor:
        """Which samples (N,) need no gradient at their next iterate, as far as one can tell before it is visited."""
        if self.settings.diagnose is True:
            return torch.zeros_like(moved.visits, dtype=torch.bool)
        last = self._last(moved)
        if not self.settings.early_exit:
            return last
        growth = ((moved.images - batch.images) * look.gradient).flatten(1).sum(1) / look.slope
        return last | (margin(look.logits, batch.labels) + growth > 0)

    def _put(self, batch: Batch, onward: Batch) -> None:
        if batch.size:
            self.judged, self.onward = self.judged.join(batch), self.onward.join(onward)

    def _judge(self) -> int:
        """One pass of the exact network over samples that wait for it; returns how many withstood so far."""
        size = self.settings.batch_size
        batch, onward = self.judged.take(slice(size)), self.onward.take(slice(size))
        self.judged, self.onward = self.judged.take(slice(size, None)), self.onward.take(slice(size, None))
        if self.always_gradients or self.doubted_zeros:
            logits, gradient, _ = self.network.exact_look(batch.images, batch.labels)
            onward = self._step(batch, gradient)
            wrong, zero, bad = _seen(logits, gradient, batch.labels)
        else:
            logits = self.network.exact(batch.images)
            wrong, zero, bad = _seen(logits, None, batch.labels)
        if not self.judged.size:
            self.doubted_zeros = 0
        done = self._note(batch, wrong, zero)
        finished, failures, withstood = torch.stack([done.sum(), bad.sum(), self.withstood]).tolist()  # and here
        if failures:
            self.engine.refuse(batch.rows, logits, bad)
        on, ended = done.to(torch.int8).argsort(stable=True).split([batch.size - finished, finished])
        self._finish(batch.take(ended), wrong[ended], zero[ended])
        self.waiting = self.waiting.join(onward.take(on))
        return withstood

    def _last(self, batch: Batch) -> Tensor:
        return batch.visits == self.settings.steps

    def _clean(self, batch: Batch) -> Tensor:
        return (batch.visits == 0) & self.begins_clean

    def _note(self, batch: Batch, wrong: Tensor, zero: Tensor) -> Tensor:
        """Keep what is certain about these iterates; returns which samples are done (N,)."""
        clean = self._clean(batch)
        done = (wrong if self.settings.early_exit else clean & wrong) | zero | self._last(batch)
        self.engine.note(batch.rows, batch.visits + self.restart * self.settings.steps, wrong, zero, clean)
        self.withstood += (done & ~wrong).sum()
        return done

    def _finish(self, batch: Batch, wrong: Tensor, zero: Tensor) -> None:
        if batch.size:
            self.engine.finish(batch.rows, batch.images, wrong, zero)
            self.finished += batch.size


def _seen(logits: Tensor, gradient: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row (N,): is it misclassified, is its gradient exactly zero, is a value not finite."""
    wrong, finite = logits.argmax(1) != labels, logits.isfinite().all(1)
    if gradient is None:
        return wrong, torch.zeros_like(wrong), ~finite
    largest = gradient.abs().flatten(1).amax(1)
    return wrong, largest == 0, ~(finite & largest.isfinite())
