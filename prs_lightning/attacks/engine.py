"""What stands behind every gradient attack: restarts, the clean images, and the results."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prs_lightning.attacks.attempt import Attempt
from prs_lightning.attacks.checks import check_ball, check_classes, check_model, check_settings, excess
from prs_lightning.attacks.losses import resolve
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.attacks.results import AttackResult, Progress, Samples, Settings
from prs_lightning.attacks.steps import draw_key
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
    engine = Engine(model, samples, settings, adversarial, progress)
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
        Attempt(engine, rows, key, restart, begins_clean=begins_clean).run(done)
    check_ball(engine.excess, settings.epsilon)
    return engine.result()


class Engine:
    """The results so far, and the look at the clean images; the loop is in `Attempt`.

    The clean image is looked at beforehand, or, without a random start, is x_0. Without ``diagnose`` no backward pass
    is spent on the clean image or on the last iterate, which only have to be judged.
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
                logits, gradient, _ = self.network.exact_look(images, labels)
                largest = gradient.abs().flatten(1).amax(1)
                self.zero_gradient_clean[rows] = largest == 0
                bad = ~largest.isfinite()
                if bool(bad.any()):
                    self.refuse(rows, logits, bad)
            else:
                logits = self.network.exact(images)
            self.broken[rows] = _not_finite(logits)
            correct.append(logits.argmax(1) == labels)
        self._refuse_broken()
        self.correct_before[queue] = torch.cat(correct) if correct else False
        self.steps_to_success[queue] = self.correct_before[queue].to(torch.int64).neg()
        return queue[self.correct_before[queue]]

    def note(self, rows: Tensor, steps: Tensor, wrong: Tensor, zero: Tensor, clean: Tensor) -> None:
        """Keep what is certain about iterates of samples, whether these are done or not.

        Args:
            steps: taken until this iterate, restarts counted on.
            clean: the iterate is the clean image.
        """
        self.correct_before[rows] = torch.where(clean, ~wrong, self.correct_before[rows])
        self.zero_gradient_clean[rows] = torch.where(clean, zero, self.zero_gradient_clean[rows])
        known = self.steps_to_success[rows]
        self.steps_to_success[rows] = torch.where(wrong & (known < 0), steps, known)

    def finish(self, rows: Tensor, images: Tensor, wrong: Tensor, zero: Tensor) -> None:
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

    def refuse(self, rows: Tensor, logits: Tensor, bad: Tensor) -> None:
        """Raise RunError for the first row that is not finite."""
        self.broken[rows] = _not_finite(logits)
        self._refuse_broken()
        row = int(rows[bad.nonzero()[0]])
        raise RunError(f"the loss gradient of row {row} is not finite: use loss='margin', or rescale the logits")


def _not_finite(logits: Tensor) -> Tensor:
    """Of each row a value that is not finite, or 0."""
    return torch.where(logits.isfinite(), 0, logits).sum(1)
