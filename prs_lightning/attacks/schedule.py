"""The robust accuracies of one epoch, from one process's shard of the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning.attacks.checks import check_settings
from prs_lightning.attacks.engine import gradient_attack
from prs_lightning.attacks.results import AttackResult, Progress, Samples, Settings
from prs_lightning.data import Split, balanced_subset, to_unit_range
from prs_lightning.errors import ConfigError
from prs_lightning.seeding import keyed_generator, mixed_seed

GRID_ATTACKS = ("fgsm", "bim5", "pgd100", "dlr", "autoattack")

GROUP = 128
"""Samples per call of ART's AutoAttack."""


@dataclass(frozen=True)
class EpochAttacks:
    """What is attacked with what after an epoch.

    ``measure`` gives, over the test set (or its class-balanced subset), each in [0, 1]:

    - ``pgd{steps}``: robust accuracy under PGD with cross-entropy from a random start;
    - ``zero_gradient``: share of *all* given samples, misclassified ones included, whose cross-entropy gradient at
      the *clean* image is exactly 0;
    - ``pgd{steps}_audited``: robust accuracy after those that withstood were attacked again, from the same random
      starts, with the margin loss;
    - ``masking_gap``: the first minus the third;
    - at the grid's epochs ``fgsm``, ``bim5``, ``pgd100``, ``autoattack``, and ``dlr``: robust accuracy after those
      that withstood PGD were attacked again with the scale-free DLR loss.

    Raises:
        ConfigError: an attack that is unknown, or settings that no attack can use.
    """

    epsilon: float
    step_size: float
    steps: int
    seed: int
    limit: int | None
    audit: bool
    early_exit: bool
    precision: str
    grid_attacks: Sequence[str]

    def __post_init__(self) -> None:
        for name in self.grid_attacks:
            if name not in GRID_ATTACKS:
                raise ConfigError(f"grid_attacks={name!r} is unknown: expected one of {', '.join(GRID_ATTACKS)}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(
                f"callbacks.robustness.limit={self.limit} must be 1 or more, or null for the whole test set"
            )
        check_settings(self._settings())

    def warning(self) -> str | None:
        """What is questionable about the settings, in one line."""
        if self.steps * self.step_size < self.epsilon:
            return (
                f"robustness: steps * step_size = {self.steps * self.step_size:.3g} < epsilon = {self.epsilon:.3g}: "
                "the attack cannot reach the edge of its ball, robust accuracy is overestimated; raise step_size"
            )
        return None

    def _settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "epsilon": self.epsilon,
            "step_size": self.step_size,
            "steps": self.steps,
            "early_exit": self.early_exit,
            "precision": self.precision,
        }
        return Settings(**(values | changes))

    def measure(
        self,
        model: nn.Module,
        test: Split,
        epoch: int,
        *,
        grid: bool = False,
        rank: int = 0,
        world: int = 1,
        total: Callable[[Tensor], Tensor] = lambda counts: counts,
        bar: Callable[[str], AbstractContextManager[Progress | None]] = lambda name: nullcontext(),
    ) -> dict[str, float]:
        """Attack the shard ``[rank::world]``; ``total`` adds counts (float64) up over the processes.

        Random starts are keyed by (seed, epoch, index in the test set): any number of processes gives the same values.
        """
        device = test.labels.device
        chosen = torch.arange(len(test.labels), device=device)
        if self.limit is not None:
            chosen = balanced_subset(test.labels, self.limit)
        mine = chosen[rank::world]
        samples = Samples(lambda rows: Samples.of(test.images, test.labels).gather(mine[rows]), test.labels[mine], mine)

        def attacked(name: str, among: Tensor | None = None, **changes: Any) -> AttackResult:
            with bar(name) as progress:
                return gradient_attack(
                    model,
                    samples,
                    self._settings(**changes),
                    generator=keyed_generator(self.seed, epoch),
                    among=among,
                    progress=progress,
                )

        name = f"pgd{self.steps}"
        result = attacked(name, diagnose="clean")
        counts = {name: result.correct_after.sum(), "zero_gradient": result.zero_gradient_clean.sum()}
        if self.audit:
            audited = attacked(f"{name} audit", among=result.correct_after, loss="margin", diagnose=False).correct_after
            counts[f"{name}_audited"] = audited.sum()
        if grid:
            settings: dict[str, dict[str, Any]] = {
                "fgsm": {"steps": 1, "step_size": self.epsilon, "random_start": False},
                "bim5": {"steps": 5, "random_start": False},
                "pgd100": {"steps": 100},
                "dlr": {"among": result.correct_after, "loss": "dlr"},
            }
            for other in self.grid_attacks:
                if other in settings:
                    counts[other] = attacked(other, diagnose=False, **settings[other]).correct_after.sum()
                else:
                    counts[other] = self._auto_attack(model, test, chosen, epoch, rank, world)
        sums = total(torch.stack(list(counts.values())).double()) / len(chosen)
        values = dict(zip(counts, sums.tolist(), strict=True))
        if self.audit:
            values["masking_gap"] = values[name] - values[f"{name}_audited"]
        return values

    def _auto_attack(self, model: nn.Module, test: Split, chosen: Tensor, epoch: int, rank: int, world: int) -> Tensor:
        """How many of this process's groups of samples withstand ART's AutoAttack.

        ART draws for a batch, not for a sample: whole groups are divided over the processes, each with its own seed.
        """
        from prs_lightning.attacks.art import auto_attack  # imports ART, which takes seconds

        groups = list(enumerate(chosen.split(GROUP)))[rank::world]
        withstood = torch.zeros((), dtype=torch.int64, device=chosen.device)
        for number, rows in groups:
            images, labels = to_unit_range(test.images[rows]), test.labels[rows]
            seed = mixed_seed(self.seed, epoch, number)
            result = auto_attack(model, images, labels, epsilon=self.epsilon, seed=seed, eps_step=self.step_size)
            withstood += result.correct_after.sum()
        return withstood
