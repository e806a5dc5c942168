"""The robust accuracies of one epoch, from one process's shard of the test set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from prs_lightning.attacks.engine import Progress, Samples, gradient_attack, look_at_gradients
from prs_lightning.attacks.gradient_noise import gradient_noise
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.attacks.targets import Targets
from prs_lightning.attacks.threat_model import ThreatModel
from prs_lightning.data import balanced_subset, spread_subset
from prs_lightning.errors import ConfigError, at_least
from prs_lightning.schema.attacks import refuse_taken, resolved
from prs_lightning.seeding import keyed_generator, mixed_seed

GROUP = 128
"""Samples per call of ART's AutoAttack."""

Bar = Callable[[str], AbstractContextManager[Progress | None]]
Total = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GridAttack:
    """One more attack at the grid's epochs.

    Args:
        threat: its threat model.
        survivors: it meets only those that withstood the epoch's first attack; the others count as fooled.
        art: ART's AutoAttack instead, with this epsilon and step size.
    """

    threat: ThreatModel
    survivors: bool = False
    art: bool = False


def grid_attacks(
    entries: Mapping[str, Mapping[str, Any] | None] | Sequence[str], threat: ThreatModel
) -> dict[str, GridAttack]:
    """The attacks of the grid's epochs: ``entries`` as :func:`prs_lightning.schema.attacks.resolved` takes them.

    Raises:
        ConfigError: as there; or a value that a threat model refuses.
    """
    own = {field.name: getattr(threat, field.name) for field in fields(ThreatModel)}
    flags = ("survivors", "art")
    return {
        name: GridAttack(
            ThreatModel(**{key: value for key, value in attack.items() if key not in flags}),
            **{flag: bool(attack[flag]) for flag in flags},
        )
        for name, attack in resolved(entries, own).items()
    }


@dataclass(frozen=True)
class EpochAttacks:
    """What is attacked with what after an epoch.

    ``measure`` gives, over the test set (or its class-balanced subset), each in [0, 1]:

    - ``pgd{steps}``: robust accuracy under the threat model, in the config PGD with cross-entropy from a random start;
    - ``zero_gradient``: share of *all* given samples, misclassified ones included, whose cross-entropy gradient at
      the *clean* image is exactly 0;
    - ``pgd{steps}_audited``: robust accuracy after those that withstood were attacked again, from the same random
      starts, with the margin loss;
    - ``masking_gap``: the first minus the third;
    - ``gradient_noise``: of a class-balanced subset of ``gradient_noise`` of these samples, the share for which
      :func:`prs_lightning.attacks.gradient_noise.gradient_noise` holds; None or 0: not measured;
    - at the grid's epochs the robust accuracy under each of ``grid``, by name.

    ``batch_size`` images are attacked at a time.

    Raises:
        ConfigError: a threat model that is not what ``pgd{steps}`` says, or an attack of the grid that takes one of
            these names.
    """

    threat: ThreatModel
    seed: int = 0
    limit: int | None = None
    audit: bool = True
    grid: Mapping[str, GridAttack] | None = None
    batch_size: int = 128
    gradient_noise: int | None = None

    def __post_init__(self) -> None:
        at_least("callbacks.robustness.batch_size", self.batch_size, 1)
        if self.limit is not None:
            at_least("callbacks.robustness.limit", self.limit, 1)
        at_least("callbacks.robustness.gradient_noise", self.gradient_noise or 0, 0)
        for key, meant in (("loss", "cross_entropy"), ("random_start", True)):
            if (value := getattr(self.threat, key)) != meant:
                raise ConfigError(
                    f"callbacks.robustness.{key}={value}, but {self.name} is PGD with cross-entropy from a random "
                    "start: give it as an entry of grid_attacks"
                )
        refuse_taken(self.grid or {}, self.threat.steps)

    @property
    def name(self) -> str:
        return f"pgd{self.threat.steps}"

    def warning(self) -> str | None:
        """What is questionable about the threat model, in one line."""
        reach = self.threat.steps * self.threat.step_size
        if reach >= self.threat.epsilon:
            return None
        return (
            f"robustness: steps * step_size = {reach:.3g} < epsilon = {self.threat.epsilon:.3g}: "
            "the attack cannot reach the edge of its ball, robust accuracy is overestimated; raise step_size"
        )

    def refuse_two_classes(self, classes: int) -> None:
        """Raise ConfigError, before anything is trained, for a DLR loss on a network of two classes."""
        for name, attack in (self.grid or {}).items():
            if classes < 3 and not attack.art and attack.threat.loss == "dlr":
                raise ConfigError(
                    f"grid_attacks.{name}: the DLR loss needs 3 classes or more, the network has {classes}: leave it "
                    f"out, grid_attacks.{name}=null"
                )

    def measure(
        self, test: Targets, epoch: int, *, grid: bool, rank: int, world: int, total: Total, bar: Bar
    ) -> dict[str, float]:
        """Attack the shard ``[rank::world]``; ``total`` adds counts (float64) up over the processes.

        Random starts are keyed by (seed, epoch, index in the test set): any number of processes gives the same values.
        """
        model, device = test.network, test.labels.device
        chosen = torch.arange(len(test.labels), device=device)
        if self.limit is not None:
            chosen = balanced_subset(test.labels, self.limit)
        mine = chosen[rank::world]
        samples = Samples(lambda rows: test.gather(mine[rows]), test.labels[mine], mine)
        correct, zero = look_at_gradients(AttackedNetwork(model, device), samples, batch_size=self.batch_size)

        def by_art(threat: ThreatModel) -> Tensor:
            """ART draws for a batch, not for a sample: processes share out whole groups, each with its own seed."""
            from prs_lightning.attacks.art import auto_attack  # imports ART, which takes seconds

            options: dict[str, Any] = {"epsilon": threat.epsilon, "eps_step": threat.step_size}
            options["batch_size"] = self.batch_size
            withstood = [torch.zeros(0, dtype=torch.bool, device=device)]
            for number, rows in list(enumerate(chosen.split(GROUP)))[rank::world]:
                images, seed = test.gather(rows), mixed_seed(self.seed, epoch, number)
                withstood.append(auto_attack(model, images, test.labels[rows], seed=seed, **options).correct_after)
            return torch.cat(withstood)

        audited = f"{self.name}_audited"
        attacks = {self.name: GridAttack(self.threat)}
        if self.audit:
            attacks[audited] = GridAttack(replace(self.threat, loss="margin"), survivors=True)
        if grid:
            attacks |= self.grid or {}
        found = {"zero_gradient": zero}
        for name, attack in attacks.items():
            if attack.art:
                found[name] = by_art(attack.threat)
                continue
            among = found[self.name] if attack.survivors else correct
            generator = keyed_generator(self.seed, epoch)
            with bar(f"{self.name} audit" if name == audited else name) as progress:
                result = gradient_attack(
                    model,
                    samples,
                    attack.threat,
                    generator=generator,
                    among=among,
                    batch_size=self.batch_size,
                    progress=progress,
                )
            found[name] = result.correct_after
        shares = total(torch.stack([flags.sum() for flags in found.values()]).double()) / len(chosen)
        values = dict(zip(found, shares.tolist(), strict=True))
        if self.gradient_noise:
            few = chosen[spread_subset(test.labels[chosen], self.gradient_noise)]
            noisy = zero.new_zeros((), dtype=torch.float64)
            for rows in few[rank::world].split(max(1, self.batch_size // 2)):  # float64 takes twice the memory
                if len(rows):
                    noisy += gradient_noise(model, test.gather(rows), test.labels[rows]).sum()
            values["gradient_noise"] = float(total(noisy)) / len(few)
        if self.audit:
            values["masking_gap"] = values[self.name] - values[audited]
        return values
