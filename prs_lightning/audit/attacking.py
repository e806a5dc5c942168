"""The attacks of an audit: the first, what is tried on those that withstood it, and what all of them tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning.attacks import AttackResult, ThreatModel, bim, distances, fgsm, pgd
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.audit.findings import Findings, Trial
from prs_lightning.audit.gradients import look
from prs_lightning.audit.indicators import indicators

Progress = Callable[[str, int, int], None]
"""Called with what is done, the samples done of it, and those in all; with 0 done at its start."""

TEMPERATURES = (10, 100, 1000)
TARGETS = 3
"""The targeted attack goes for so many classes, the likeliest first."""
FRACTIONS = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Of epsilon, at which the curve is attacked."""
CURVE_POINTS = 31
NOISE_DRAWS = 10


@dataclass
class Battery:
    """What is attacked, and what is known of each sample so far.

    ``reached`` (N,) is the smallest epsilon at which a sample is known to be misclassified: 0 for the clean image, inf
    where nothing is known. ``among`` (N,) are the survivors of the first attack that the others meet.
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
        self.among = some(self.first.correct_after, subset)
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


def find(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    restarts: int,
    square_steps: int,
    seed: int,
    batch_size: int,
    against: nn.Module | None,
    subset: int | None,
    progress: Progress | None,
) -> Findings:
    """Attack a network in every way of the audit; the arguments are those of `prs_lightning.audit.audit`."""
    battery = Battery(model, images, labels, threat, seed, batch_size, progress)
    first, classes = battery.start(subset), battery.network.logits(images[:1].float()).shape[1]
    if progress:
        progress("gradients", 0, 0)
    gradients = look(model, images, labels, first, battery.among, batch_size=batch_size)
    epsilon, steps = threat.epsilon, threat.steps
    left = battery.among
    losses = ["margin", "dlr", "rescaled_cross_entropy", "top_two_cross_entropy"]
    if classes < 3:
        losses.remove("dlr")
    for loss in losses:
        left = left & battery.white_box(loss, "scale", loss=loss)
    for temperature in TEMPERATURES:
        left = left & battery.white_box(f"temperature {temperature}", "scale", temperature=temperature)
    if (targets := min(TARGETS, classes - 1)) > 1:
        battery.white_box("targeted margin", "stronger", left, loss="margin", targets=targets)
    edge: dict[str, Any] = {"steps": 1, "step_size": epsilon}
    weaker = (
        ("FGSM", battery.run("FGSM", fgsm, **edge).robust_accuracy),
        ("BIM", battery.run("BIM", bim).robust_accuracy),
    )
    longer: dict[str, Any] = {"steps": 5 * steps, "step_size": max(threat.step_size, 0.5 * epsilon / steps)}
    battery.white_box(f"PGD-{5 * steps} after PGD-{steps}", "more", **longer)
    battery.white_box(f"{restarts} restarts more", "more", key=seed + 1, restarts=restarts)
    # With the whole cube within reach every image can become any other: only a blind attack leaves survivors.
    unbounded = battery.run("without a bound", among=battery.among, epsilon=1.0, step_size=2.5 / steps).correct_after
    draws: dict[str, Any] = {"steps": 1, "step_size": 0.0, "restarts": NOISE_DRAWS}
    battery.white_box("noise", "blind", key=seed + 2, **draws)
    battery.tried("Square", "blind", lambda: blind(battery, square_steps))
    if against is not None:
        battery.tried("images of the other network", "transfer", lambda: transferred(battery, against))
    curve, audited_curve, found = over_epsilon(battery, subset)
    survivors, met = int(first.correct_after.sum()), int(battery.among.sum())
    stand = int((battery.among & (battery.reached > epsilon)).sum())
    return Findings(
        samples=len(labels),
        classes=classes,
        correct=int(first.correct_before.sum()),
        largest_class=float(labels.bincount().max()) / len(labels),
        epsilon=epsilon,
        step_size=threat.step_size,
        steps=steps,
        standing=survivors,
        met=met,
        audited=stand,
        weaker=weaker,
        unbounded=int(unbounded.sum()),
        trials=tuple(battery.trials),
        gradients=gradients,
        indicators=indicators(battery, first, gradients, unbounded),
        curve=curve,
        audited_curve=audited_curve,
        curve_of=int(some(torch.ones_like(first.correct_before), subset).sum()),
        distances=found,
    )


def blind(battery: Battery, queries: int) -> Tensor:
    """Who withstands Square, which needs no gradient (Andriushchenko et al. 2020)."""
    from prs_lightning.attacks.art import square  # imports ART, which takes seconds

    if (told := battery.told("Square")) is not None:
        told(0, int(battery.among.sum()), 0)
    options: dict[str, Any] = {"seed": battery.seed, "batch_size": battery.batch_size, "max_iter": queries}
    result = square(
        battery.model, battery.images, battery.labels, among=battery.among, epsilon=battery.threat.epsilon, **options
    )
    return result.correct_after


def transferred(battery: Battery, against: nn.Module) -> Tensor:
    """Who withstands images that were made on another network.

    They go on for all steps, with a loss that sees through that network's scale: an image that has only just crossed
    its border would seldom have crossed another's.
    """
    rows = battery.among.nonzero().flatten()
    threat, told = battery.threat, battery.told("images of the other network")
    made = pgd(
        against, battery.images[rows], battery.labels[rows], loss="rescaled_cross_entropy", early_exit=False,
        epsilon=threat.epsilon, step_size=threat.step_size, steps=threat.steps, diagnose=False,
        among=torch.ones_like(rows, dtype=torch.bool), indices=rows, batch_size=battery.batch_size, progress=told,
        generator=torch.Generator().manual_seed(battery.seed),
    ).adversarial  # fmt: skip
    assert made is not None
    after = torch.zeros_like(battery.among)
    after[rows] = (
        torch.cat([battery.network.logits(part) for part in made.split(battery.batch_size)]).argmax(1)
        == battery.labels[rows]
    )
    return after


Curve = tuple[tuple[float, float], ...]


def over_epsilon(battery: Battery, subset: int | None) -> tuple[Curve, Curve, tuple[float, ...]]:
    """Robust accuracy over epsilon of cross-entropy PGD and of everything that is known, and the distances.

    The balls are nested: who is fooled at a smaller epsilon is not attacked again. The step size grows with epsilon.
    At the audited epsilon the first attack is the point. What is known of a sample, at any epsilon, is the least
    radius at which any attack or the search for the boundary found a misclassified image.
    """
    threat, first = battery.threat, battery.first
    chosen = some(torch.ones_like(first.correct_before), subset)
    looked = chosen & first.correct_before
    begun, told = time.perf_counter(), battery.told("distances")
    found = distances(
        battery.model, battery.images, battery.labels, among=looked, batch_size=battery.batch_size,
        generator=torch.Generator().manual_seed(battery.seed), keep_adversarial=False, progress=told,
    ).distance  # fmt: skip
    met = looked & first.correct_after
    fell = int((met & (found <= threat.epsilon)).sum())
    battery.trials.append(
        Trial("search for the boundary", "stronger", int(met.sum()), fell, time.perf_counter() - begun)
    )
    if bool((looked | ~battery.among).all()):  # or its finds would count for some of the survivors only
        battery.reached = torch.where(looked, torch.minimum(battery.reached, found), battery.reached)
    standing, points = looked, [(0.0, share(looked, chosen))]
    for fraction in FRACTIONS:
        epsilon = fraction * threat.epsilon
        if fraction == 1:
            standing = standing & first.correct_after
        else:
            changes: dict[str, Any] = {"epsilon": epsilon, "step_size": fraction * threat.step_size}
            standing = battery.run(f"epsilon {epsilon:.3g}", among=standing, **changes).correct_after
        battery.note(chosen & ~standing, epsilon)
        points.append((epsilon, share(standing, chosen)))
    radii = torch.linspace(0, FRACTIONS[-1] * threat.epsilon, CURVE_POINTS).tolist()
    least = torch.where(looked, torch.minimum(battery.reached, found), battery.reached)
    known = tuple((radius, share(chosen & (least > radius), chosen)) for radius in radii)
    return tuple(points), known, tuple(found[looked].tolist())


def share(flags: Tensor, among: Tensor) -> float:
    return int(flags.sum()) / int(among.sum())
