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
    for restart in range(settings.restarts):
        if restart or among is not None:
            rows = (engine.correct_after if restart else among).nonzero().flatten()  # type: ignore[union-attr]
            if among is not None and not restart:
                engine.correct_before |= among
            engine.attempt(rows, draw_key(generator), restart, clean_visit=not settings.random_start)
        else:
            rows = torch.arange(len(samples.labels), device=samples.labels.device)
            engine.attempt(rows, draw_key(generator), restart, clean_visit=True)
    check_ball(engine.excess, settings.epsilon)
    return engine.result()


class _Engine:
    """The results so far, and the loop that fills them.

    A *visit* is one forward and backward pass of a sample. The first visit sees the clean image (it decides
    ``correct_before`` and ``zero_gradient_clean``), the next ones the iterates x_0 ... x_steps; without a random start
    the clean image is x_0. One visit thus both judges an iterate and gives the gradient of the next step.

    A sample leaves after a visit if it was misclassified (clean, or at any iterate with ``early_exit``), if its
    gradient is exactly zero, for then every later iterate is the same, or if its steps are used up; samples from the
    queue take the free places. On a GPU the host waits once a visit, for the three counts that decide how many places
    are free; all else is indexing on the device by masks whose sizes follow from those counts.
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

    def attempt(self, queue: Tensor, key: int, restart: int, *, clean_visit: bool) -> None:
        """Attack the samples of ``queue`` (rows, int64) once."""
        settings, samples = self.settings, self.samples
        starts_at_random = settings.random_start
        last = settings.steps + starts_at_random
        total = len(queue)
        rows = queue[:0]
        images = lower = upper = samples.gather(rows)
        labels = visits = rows
        taken = finished_before = withstood = 0
        while True:
            new = min(settings.batch_size - len(rows), total - taken)
            if new > 0:
                fresh = queue[taken : taken + new]
                taken += new
                clean = samples.gather(fresh)
                fresh_lower, fresh_upper = bounds(clean, settings.epsilon)
                if not clean_visit:
                    clean = random_start(clean, samples.indices[fresh], key, settings.epsilon, fresh_lower, fresh_upper)
                rows, images = torch.cat([rows, fresh]), torch.cat([images, clean])
                lower, upper = torch.cat([lower, fresh_lower]), torch.cat([upper, fresh_upper])
                labels = samples.labels[rows]
                visits = torch.cat([visits, torch.full_like(fresh, 0 if clean_visit else 1)])
            if not len(rows):
                break
            first = visits == 0
            logits, gradient = self._look(images, labels, first, visits == last)
            largest = gradient.abs().flatten(1).amax(1)
            wrong, zero = logits.argmax(1) != labels, largest == 0
            bad = ~(logits.isfinite().all(1) & largest.isfinite())
            before_start = first & starts_at_random
            done = (
                (first & wrong) | (wrong if settings.early_exit else False) | (zero & ~before_start) | (visits == last)
            )
            self._note(rows, restart, visits, wrong, zero, first)
            # The only place where the host waits for the device.
            finished, withstanding, failures = torch.stack([done.sum(), (done & ~wrong).sum(), bad.sum()]).tolist()
            if failures:
                self._refuse(rows, logits, gradient, bad)
            moved = sign_step(images, gradient, settings.step_size, lower, upper)
            if starts_at_random and clean_visit and new > 0:
                tail = slice(len(rows) - new, None)
                moved[tail] = random_start(
                    images[tail], samples.indices[rows[tail]], key, settings.epsilon, lower[tail], upper[tail]
                )
            visits = visits + 1
            if finished:
                order = done.to(torch.int8).argsort(stable=True)
                kept, ended = order[: len(rows) - finished], order[len(rows) - finished :]
                self._finish(rows[ended], images[ended], wrong[ended], zero[ended])
                rows, moved, lower, upper = rows[kept], moved[kept], lower[kept], upper[kept]
                labels, visits = labels[kept], visits[kept]
                finished_before += finished
                withstood += withstanding
                if self.progress is not None:
                    self.progress(finished_before, total, withstood)
            images = moved

    def _look(self, images: Tensor, labels: Tensor, first: Tensor, final: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and gradients; whatever a decision hangs on is computed again by the exact network.

        That is the clean image, the last iterate, a success and a zero gradient. The others are steps on the way,
        where an approximate gradient only makes another, equally valid, path through the ball.
        """
        logits, gradient = self.network.gradient(images, labels)
        if self.network.approximate:
            zero = gradient.abs().flatten(1).amax(1) == 0
            doubted = (first | final | zero | (logits.argmax(1) != labels)).nonzero().flatten()
            if len(doubted):
                exact = self.network.exact_gradient(images[doubted], labels[doubted])
                logits[doubted], gradient[doubted] = exact
        return logits, gradient

    def _note(self, rows: Tensor, restart: int, visits: Tensor, wrong: Tensor, zero: Tensor, first: Tensor) -> None:
        """Keep what a visit says of its samples, whether they leave or not."""
        self.correct_before[rows] = torch.where(first, ~wrong, self.correct_before[rows])
        self.zero_gradient_clean[rows] = torch.where(first, zero, self.zero_gradient_clean[rows])
        steps = (visits - int(self.settings.random_start)).clamp_min(0) + restart * self.settings.steps
        known = self.steps_to_success[rows]
        self.steps_to_success[rows] = torch.where(wrong & (known < 0), steps, known)

    def _finish(self, rows: Tensor, images: Tensor, wrong: Tensor, zero: Tensor) -> None:
        """Keep the end of the attack on these samples."""
        self.correct_after[rows] = ~wrong
        self.zero_gradient_end[rows] = zero
        self.excess[rows] = excess(images, self.samples.gather(rows), self.settings.epsilon)
        if self.adversarial is not None:
            self.adversarial[rows] = images

    def _refuse(self, rows: Tensor, logits: Tensor, gradient: Tensor, bad: Tensor) -> None:
        broken = ~logits.isfinite().all(1)
        place = int((broken if bool(broken.any()) else bad).nonzero()[0])
        row, values = int(rows[place]), logits[place]
        if bool(broken[place]):
            value = float(values[~values.isfinite()][0])
            raise RunError(f"the network returned {value} for row {row}: expected finite logits")
        raise RunError(f"the loss gradient of row {row} is not finite: use loss='margin', or rescale the logits")
