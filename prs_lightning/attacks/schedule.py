"""The robust accuracies of one epoch, from one process's shard of the test set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from prs_lightning.attacks.distance import distances_of
from prs_lightning.attacks.engine import Progress, Samples, gradient_attack, look_at_gradients
from prs_lightning.attacks.gradient_noise import gradient_noise
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.attacks.targets import Targets
from prs_lightning.attacks.threat_model import ThreatModel
from prs_lightning.data import balanced_subset, spread_subset
from prs_lightning.errors import ConfigError, at_least
from prs_lightning.regions.logits import median
from prs_lightning.schema.attacks import BESIDE, refuse_taken, resolved
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
        temperatures: the attack at each of these in turn, for the smallest robust accuracy of them.
        distance: the distance to the decision boundary instead, in this norm.
    """

    threat: ThreatModel
    survivors: bool = False
    art: bool = False
    temperatures: tuple[float, ...] = ()
    distance: bool = False

    def __post_init__(self) -> None:
        self.at_temperatures()  # which refuses those that no threat model can have

    def at_temperatures(self) -> dict[float, ThreatModel]:
        """The threat models by their temperatures; none of what goes by no gradient of ours."""
        temperatures = () if self.art or self.distance else self.temperatures or (self.threat.temperature,)
        return {each: replace(self.threat, temperature=each) for each in temperatures}


def grid_attacks(
    entries: Mapping[str, Mapping[str, Any] | None] | Sequence[str], threat: ThreatModel
) -> dict[str, GridAttack]:
    """The attacks of the grid's epochs: ``entries`` as :func:`prs_lightning.schema.attacks.resolved` takes them.

    Raises:
        ConfigError: as there; or a value that a threat model refuses.
    """
    own = {field.name: getattr(threat, field.name) for field in fields(ThreatModel)}
    return {
        name: GridAttack(
            ThreatModel(**{key: value for key, value in attack.items() if key not in BESIDE}),
            **{key: attack[key] for key in BESIDE},
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
    - at the grid's epochs the robust accuracy under each of ``grid``, by name; of one with temperatures the smallest;
      of a distance, in pixel units, the median over those classified correctly (NaN without any, infinite if for half
      of them nothing was found).

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
        plain = {"loss": "cross_entropy", "random_start": True, "norm": "linf", "temperature": 1, "targets": 0}
        for key, meant in plain.items():
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

    def refuse_few_classes(self, classes: int) -> None:
        """Raise ConfigError, before anything is trained, for an attack that needs more classes than the network has."""
        for name, attack in (self.grid or {}).items():
            targets = attack.threat.targets
            if classes < 3 + (targets > 0) and attack.threat.loss == "dlr" and attack.at_temperatures():
                raise ConfigError(
                    f"grid_attacks.{name}: the DLR loss needs {3 + (targets > 0)} classes or more, the network has "
                    f"{classes}: leave it out, grid_attacks.{name}=null"
                )
            if targets >= classes:
                raise ConfigError(
                    f"grid_attacks.{name}: targets={targets}, the network has {classes} classes: expected at most "
                    f"{classes - 1}"
                )

    def measure(
        self, test: Targets, epoch: int, *, grid: bool, rank: int, world: int, total: Total, bar: Bar
    ) -> dict[str, float]:
        """Attack the shard ``[rank::world]``; ``total`` adds counts (float64) up over the processes.

        Random starts are keyed by (seed, epoch, index in the test set): any number of processes gives the same values.
        """
        chosen = torch.arange(len(test.labels), device=test.labels.device)
        if self.limit is not None:
            chosen = balanced_subset(test.labels, self.limit)
        shard = _Shard(test, chosen, (self.seed, epoch), self.batch_size, rank, world, total, bar)
        correct, zero = shard.look()
        first = shard.withstood(self.name, self.threat, correct)
        found = {(self.name, 1.0): first, ("zero_gradient", 1.0): zero}
        distances = {}
        audited = f"{self.name}_audited"
        if self.audit:
            margin = replace(self.threat, loss="margin")
            found[audited, 1.0] = shard.withstood(f"{self.name} audit", margin, first)
        for name, attack in (self.grid or {}).items() if grid else ():
            if attack.distance:
                distances[name] = shard.median_distance(name, attack.threat.norm, correct)
            elif attack.art:
                found[name, 1.0] = shard.withstood_art(attack.threat)
            for temperature, threat in attack.at_temperatures().items():
                title = f"{name}, T = {temperature:g}" if attack.temperatures else name
                among = first if attack.survivors else correct
                again = threat == self.threat and among is correct
                found[name, temperature] = first if again else shard.withstood(title, threat, among)
        values: dict[str, float] = {}
        for (name, _), share in zip(found, shard.shares(list(found.values())), strict=True):
            values[name] = min(share, values.get(name, 1.0))
        if self.audit:
            values["masking_gap"] = values[self.name] - values[audited]
        if self.gradient_noise:
            values["gradient_noise"] = shard.gradient_noise(self.gradient_noise)
        return values | distances


class _Shard:
    """One process's share of the ``chosen`` samples of a test set under the attacks of an epoch.

    ``words`` key the random starts; ``total`` adds tensors (float64) up over the processes.
    """

    def __init__(
        self, test: Targets, chosen: Tensor, words: tuple[int, ...], batch_size: int, rank: int, world: int,
        total: Total, bar: Bar,
    ) -> None:  # fmt: skip
        self.test, self.chosen, self.words, self.batch_size = test, chosen, words, batch_size
        self.rank, self.world, self.total, self.bar = rank, world, total, bar
        mine = chosen[rank::world]
        self.samples = Samples(lambda rows: test.gather(mine[rows]), test.labels[mine], mine)

    def look(self) -> tuple[Tensor, Tensor]:
        """Of each sample, bool (n,): is it classified correctly, and is its gradient exactly 0."""
        network = AttackedNetwork(self.test.network, self.chosen.device)
        return look_at_gradients(network, self.samples, batch_size=self.batch_size)

    def withstood(self, title: str, threat: ThreatModel, among: Tensor) -> Tensor:
        """Of each sample, bool (n,), whether it is one of ``among`` that withstood."""
        return self._attacked(title, gradient_attack, threat, among=among).correct_after

    def median_distance(self, title: str, norm: str, correct: Tensor) -> float:
        """Over the correctly classified samples of all processes."""
        found = self._attacked(title, distances_of, norm=norm, among=correct)
        everywhere = torch.zeros(len(self.chosen), dtype=torch.float64, device=self.chosen.device)
        everywhere[self.rank :: self.world] = found.distance.double()
        everywhere = self.total(everywhere)
        return float(median(everywhere[everywhere > 0]))  # it is 0 where the clean image is misclassified

    def _attacked(self, title: str, attack: Callable[..., Any], *given: Any, **options: Any) -> Any:
        generator = keyed_generator(*self.words)
        with self.bar(title) as progress:
            return attack(
                self.test.network,
                self.samples,
                *given,
                generator=generator,
                batch_size=self.batch_size,
                progress=progress,
                **options,
            )

    def withstood_art(self, threat: ThreatModel) -> Tensor:
        """ART draws for a batch, not for a sample: processes share out whole groups, each with its own seed."""
        from prs_lightning.attacks.art import auto_attack  # imports ART, which takes seconds

        options: dict[str, Any] = {"epsilon": threat.epsilon, "eps_step": threat.step_size}
        options["batch_size"] = self.batch_size
        withstood = [torch.zeros(0, dtype=torch.bool, device=self.chosen.device)]
        for number, rows in list(enumerate(self.chosen.split(GROUP)))[self.rank :: self.world]:
            images, seed = self.test.gather(rows), mixed_seed(*self.words, number)
            found = auto_attack(self.test.network, images, self.test.labels[rows], seed=seed, **options)
            withstood.append(found.correct_after)
        return torch.cat(withstood)

    def gradient_noise(self, size: int) -> float:
        """Share, of a class-balanced subset of all processes' samples, whose gradient's signs are noise."""
        chosen = self.chosen[spread_subset(self.test.labels[self.chosen], size)]
        noisy = torch.zeros((), dtype=torch.float64, device=chosen.device)
        size = max(1, self.batch_size // 2)  # float64 takes twice the memory
        for rows in chosen[self.rank :: self.world].split(size):
            if len(rows):
                noisy += gradient_noise(self.test.network, self.test.gather(rows), self.test.labels[rows]).sum()
        return float(self.total(noisy)) / len(chosen)

    def shares(self, flags: Sequence[Tensor]) -> list[float]:
        """Of all processes' samples, of each of several flags (n,)."""
        counts = torch.stack([each.sum() for each in flags]).double()
        return (self.total(counts) / len(self.chosen)).tolist()
