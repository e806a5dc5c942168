"""What an audit attacks, and what is known of each sample: how one attack after another is run and noted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning.attacks import AttackResult, ThreatModel, pgd
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.audit.findings import Trial

Progress = Callable[[str, int, int], None]
"""Called with what is done, the samples done of it, and those in all; with 0 done at its start."""


@dataclass
class Battery:
    """What is attacked, and what is known of each sample so far.

    ``reached`` (N,) is the smallest epsilon at which a sample is known to be misclassified: 0 for the clean image, inf
    where nothing is known. ``chosen`` (N,) are the samples of the curve, ``among`` (N,) the survivors of the first
    attack that the others meet: those of ``chosen``, and more that are spread evenly.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    threat: ThreatModel
    seed: int
    batch_size: int
    progress: Progress | None

    def __post_init__(self) -> None:
        self.reached = torch.full(self.labels.shape, torch.inf, device=self.labels.device)
        self.network = AttackedNetwork(self.model, self.labels.device)
        self.trials: list[Trial] = []

    def told(self, name: str) -> Callable[[int, int, int], None] | None:
        """The engine's progress under a name; its start is told at once."""
        if (progress := self.progress) is None:
            return None
        progress(name, 0, 0)
        return lambda done, total, withstood: progress(name, done, total)

    def run(
        self, name: str, attack: Callable[..., AttackResult] = pgd, key: int | None = None, **changes: Any
    ) -> AttackResult:
        """The threat model's attack with ``changes``, from the random starts of ``key``."""
        threat = {"epsilon": self.threat.epsilon, "step_size": self.threat.step_size, "steps": self.threat.steps}
        options: dict[str, Any] = {"keep_adversarial": False, "diagnose": False, "batch_size": self.batch_size}
        options["generator"] = torch.Generator().manual_seed(self.seed if key is None else key)
        given = threat | options | {"progress": self.told(name)} | changes
        return attack(self.model, self.images, self.labels, **given)

    def note(self, fooled: Tensor, epsilon: float) -> None:
        self.reached = torch.where(fooled, self.reached.clamp_max(epsilon), self.reached)

    def start(self, subset: int | None) -> AttackResult:
        """The first attack: PGD with cross-entropy on all samples."""
        self.first = self.run("cross-entropy", diagnose=True)
        self.reached[~self.first.correct_before] = 0
        self.note(~self.first.correct_after, self.threat.epsilon)
        self.chosen = some(torch.ones_like(self.first.correct_after), subset)
        self.among = self.first.correct_after & self.chosen
        if subset is not None and (places := subset - int(self.among.sum())) > 0:
            self.among = self.among | some(self.first.correct_after & ~self.among, places)
        return self.first

    def tried(self, name: str, family: str, attack: Callable[[], Tensor], among: Tensor | None = None) -> Tensor:
        """Note what an attack does to the survivors; ``attack`` gives who withstood, bool (N,).

        Args:
            among: whom it meets of them; the others are known to fall. None: all.
        """
        begun = time.perf_counter()
        met = self.among if among is None else among
        after = attack() & met if bool(met.any()) else met
        self.note(self.among & ~after, self.threat.epsilon)
        count, left = int(self.among.sum()), int(after.sum())
        self.trials.append(Trial(name, family, count, count - left, time.perf_counter() - begun))
        return after

    def white_box(self, name: str, family: str, among: Tensor | None = None, **changes: Any) -> Tensor:
        met = self.among if among is None else among
        return self.tried(name, family, lambda: self.run(name, among=met, **changes).correct_after, met)


def some(flags: Tensor, most: int | None) -> Tensor:
    """At most so many of the true ones, bool (N,), spread evenly over all."""
    rows = flags.nonzero().flatten()
    if most is None or len(rows) <= most:
        return flags
    chosen = torch.zeros_like(flags)
    chosen[rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).round().to(torch.int64)]] = True
    return chosen
