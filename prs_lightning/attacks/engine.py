"""The loop behind every gradient attack: batches that stay full while samples come and go."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prs_lightning.attacks.checks import check_ball, check_classes, check_model, check_settings, excess
from prs_lightning.attacks.losses import resolve
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.attacks.results import AttackResult, Progress, Samples, Settings
from prs_lightning.attacks.steps import bounds, draw_key, random_start, sign_step
from prs_lightning.errors import RunError


def gradient_attack(
    model: nn.Module,
    samples: Samples,
    settings: Settings,
    *,
    generator: torch.Generator | None = None,
    among: Tensor | None = None,
    adversarial: Tensor | None = None,
    progress: Progress | None = None,
) -> AttackResult:
    """Attack samples by sign steps; the public attacks are this function with their own settings.

    Args:
        samples: where images and labels come from. Nothing but one batch of images is held.
        generator: gives one key per restart; the random starts follow from the key and ``samples.indices``. None
            stands for a generator seeded with 0.
        among: bool (N,), samples known to be classified correctly: only they are attacked, the others are reported
            as misclassified. None: all are looked at.
        adversarial: float32 (N, C, H, W), holding the clean images, to be overwritten by the adversarial ones.
        progress: called whenever samples are done.

    Raises:
        ConfigError: settings, samples or a network that cannot work.
        RunError: a network that returns values that are not finite, or an attack that left the ball.
    """
    check_settings(settings)
    check_model(model, samples.labels.device)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    engine = _Engine(model, samples, settings, adversarial, progress)
    rows = torch.arange(len(samples.labels), device=samples.labels.device)
    for restart in range(settings.restarts):
        key, begins_clean, done = draw_key(generator), False, 0
        if restart:
            rows = engine.correct_after.nonzero().flatten()
        elif among is not None:
            rows = among.nonzero().flatten()
            engine.correct_before |= among
        elif settings.random_start:
            rows = engine.look_at_clean(rows)
            done = len(samples.labels) - len(rows)
        else:
            begins_clean = True
        engine.attempt(rows, key, restart, begins_clean=begins_clean, done_before=done)
    check_ball(engine.excess, settings.epsilon)
    return engine.result()


class _Engine:
    """The results so far, and the loop that fills them.

    A *visit* is one forward and backward pass of a sample at an iterate x_0 ... x_steps. It both judges the iterate and
    gives the gradient of the next step. The clean image is looked at beforehand, or, without a random start, is x_0.

    A sample leaves after a visit if it was misclassified (clean, or at any iterate with ``early_exit``), if its
    gradient is exactly zero, for then every later iterate is the same, or if its steps are used up; samples from the
    queue take the free places. Without ``diagnose`` no backward pass is spent on the clean image or on the last
    iterate, which only have to be judged. On a GPU the host waits once a visit, for the counts that decide how many
    places are free; all else is indexing on the device by masks whose sizes follow from those counts.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Samples,
        settings: Settings,
        adversarial: Tensor | None,
        progress: Progress | None,
    ) -> None:
        self.samples, self.settings, self.adversarial, self.progress = samples, settings, adversarial, progress
        device, count = samples.labels.device, len(samples.labels)
        example = samples.gather(torch.arange(min(count, 8), device=device))
        self.network = AttackedNetwork(model, resolve(settings.loss), settings.precision, example)
        check_classes(samples.labels, self.network.exact(example).shape[1])
        flags = torch.zeros(4, count, dtype=torch.bool, device=device)
        self.correct_before, self.correct_after, self.zero_gradient_clean, self.zero_gradient_end = flags
        # Of each sample a logit that was not finite, else 0: looked at when the host waits anyway.
        self.broken = torch.zeros(count, device=device)
        self.steps_to_success = torch.full((count,), -1, dtype=torch.int64, device=device)
        self.excess = torch.zeros(count, device=device)

    def result(self) -> AttackResult:
        return AttackResult(
            adversarial=self.adversarial,
            correct_before=self.correct_before,
            correct_after=self.correct_after,
            zero_gradient_clean=self.zero_gradient_clean,
            zero_gradient_end=self.zero_gradient_end,
            steps_to_success=self.steps_to_success,
        )

    def look_at_clean(self, queue: Tensor) -> Tensor:
        """Judge the clean images of ``queue`` (rows, int64); returns the rows that are classified correctly."""
        correct = []
        for rows in queue.split(self.settings.batch_size):
            images, labels = self.samples.gather(rows), self.samples.labels[rows]
            if self.settings.diagnose:
                logits, gradient = self.network.exact_gradient(images, labels)
                largest = gradient.abs().flatten(1).amax(1)
                self.zero_gradient_clean[rows] = largest == 0
                bad = ~largest.isfinite()
                if bool(bad.any()):
                    self._refuse(rows, logits, bad)
            else:
                logits = self.network.exact(images)
            self.broken[rows] = _not_finite(logits)
            correct.append(logits.argmax(1) == labels)
        self._refuse_broken()
        self.correct_before[queue] = torch.cat(correct) if correct else False
        self.steps_to_success[queue] = self.correct_before[queue].to(torch.int64).neg()
        return queue[self.correct_before[queue]]

    def attempt(self, queue: Tensor, key: int, restart: int, *, begins_clean: bool, done_before: int) -> None:
        """Attack the samples of ``queue`` (rows, int64) once; ``begins_clean``: x_0 has to be judged as clean."""
        settings, samples = self.settings, self.samples
        total = done_before + len(queue)
        rows = queue[:0]
        images = lower = upper = samples.gather(rows)
        labels = visits = rows
        taken, finished = 0, done_before
        withstood = torch.zeros((), dtype=torch.int64, device=queue.device)
        while True:
            fresh = queue[taken : taken + settings.batch_size - len(rows)]
            if len(fresh):
                taken += len(fresh)
                start = samples.gather(fresh)
                fresh_lower, fresh_upper = bounds(start, settings.epsilon)
                if settings.random_start:
                    start = random_start(start, samples.indices[fresh], key, settings.epsilon, fresh_lower, fresh_upper)
                rows, images = torch.cat([rows, fresh]), torch.cat([images, start])
                lower, upper = torch.cat([lower, fresh_lower]), torch.cat([upper, fresh_upper])
                labels, visits = samples.labels[rows], torch.cat([visits, torch.zeros_like(fresh)])
            if not len(rows):
                break
            clean, last = (visits == 0) & begins_clean, visits == settings.steps
            logits, gradient = self._look(images, labels, clean, last)
            largest = gradient.abs().flatten(1).amax(1)
            wrong, zero = logits.argmax(1) != labels, largest == 0
            bad = ~(logits.isfinite().all(1) & largest.isfinite())
            done = (wrong if settings.early_exit else clean & wrong) | zero | last
            self._note(rows, restart, visits, wrong, zero, clean)
            withstood += (done & ~wrong).sum()
            visits = visits + 1
            judged = ~done & (visits == settings.steps) & (not settings.diagnose)
            # The only place where the host waits for the device.
            counts = torch.stack([done.sum(), judged.sum(), bad.sum(), withstood]).tolist()
            done_now, judged_now, failures, withstood_so_far = counts
            if failures:
                self._refuse(rows, logits, bad)
            looked_at, images = images, sign_step(images, gradient, settings.step_size, lower, upper)
            if done_now + judged_now:
                order = (done + 2 * judged).to(torch.int8).argsort(stable=True)
                kept, ended, final = order.split([len(rows) - done_now - judged_now, done_now, judged_now])
                self._finish(rows[ended], looked_at[ended], wrong[ended], zero[ended])
                if judged_now:
                    withstood += self._judge(rows[final], images[final], labels[final], restart)
                rows, images, lower, upper = rows[kept], images[kept], lower[kept], upper[kept]
                labels, visits = labels[kept], visits[kept]
                finished += done_now + judged_now
                if self.progress is not None:
                    self.progress(finished, total, withstood_so_far)
        self._refuse_broken()
        if self.progress is not None and total:
            self.progress(total, total, int(withstood))

    def _judge(self, rows: Tensor, images: Tensor, labels: Tensor, restart: int) -> Tensor:
        """Finish samples at their last iterate by a forward pass; returns how many withstood."""
        logits = self.network.exact(images)
        self.broken[rows] = _not_finite(logits)
        wrong, no = logits.argmax(1) != labels, torch.zeros_like(labels, dtype=torch.bool)
        self._note(rows, restart, torch.full_like(rows, self.settings.steps), wrong, no, no)
        self._finish(rows, images, wrong, no)
        return (~wrong).sum()

    def _look(self, images: Tensor, labels: Tensor, clean: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and gradients; whatever a decision hangs on is computed again by the exact network.

        That is the clean image, the last iterate, a success and a zero gradient. The others are steps on the way,
        where an approximate gradient only makes another, equally valid, path through the ball.
        """
        logits, gradient = self.network.gradient(images, labels)
        if self.network.approximate:
            zero = gradient.abs().flatten(1).amax(1) == 0
            doubted = (clean | last | zero | (logits.argmax(1) != labels)).nonzero().flatten()
            if len(doubted):
                exact = self.network.exact_gradient(images[doubted], labels[doubted])
                logits[doubted], gradient[doubted] = exact
        return logits, gradient

    def _note(self, rows: Tensor, restart: int, visits: Tensor, wrong: Tensor, zero: Tensor, clean: Tensor) -> None:
        """Keep what a visit says of its samples, whether they leave or not."""
        self.correct_before[rows] = torch.where(clean, ~wrong, self.correct_before[rows])
        self.zero_gradient_clean[rows] = torch.where(clean, zero, self.zero_gradient_clean[rows])
        known = self.steps_to_success[rows]
        self.steps_to_success[rows] = torch.where(wrong & (known < 0), visits + restart * self.settings.steps, known)

    def _finish(self, rows: Tensor, images: Tensor, wrong: Tensor, zero: Tensor) -> None:
        """Keep the end of the attack on these samples."""
        self.correct_after[rows] = ~wrong
        self.zero_gradient_end[rows] = zero
        self.excess[rows] = excess(images, self.samples.gather(rows), self.settings.epsilon)
        if self.adversarial is not None:
            self.adversarial[rows] = images

    def _refuse_broken(self) -> None:
        if bool((self.broken != 0).any()):
            row = int(self.broken.nonzero()[0])
            raise RunError(f"the network returned {float(self.broken[row])} for row {row}: expected finite logits")

    def _refuse(self, rows: Tensor, logits: Tensor, bad: Tensor) -> None:
        self.broken[rows] = _not_finite(logits)
        self._refuse_broken()
        row = int(rows[bad.nonzero()[0]])
        raise RunError(f"the loss gradient of row {row} is not finite: use loss='margin', or rescale the logits")


def _not_finite(logits: Tensor) -> Tensor:
    """Of each row a value that is not finite, or 0."""
    return torch.where(logits.isfinite(), 0, logits).sum(1)
