"""The attacks of an audit: the first, what is tried on those that withstood it, and what all of them tell."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning.attacks import ThreatModel, bim, distances, fgsm, pgd
from prs_lightning.audit.battery import Battery, Progress
from prs_lightning.audit.findings import Findings, Trial
from prs_lightning.audit.gradients import look
from prs_lightning.audit.indicators import indicators

TEMPERATURES = (10, 100, 1000)
TARGETS = 3
"""The targeted attack goes for so many classes, the likeliest first."""
FRACTIONS = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Of epsilon, at which the curve is attacked."""
CURVE_POINTS = 31
NOISE_DRAWS = 10


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
    curve, audited_curve, found = over_epsilon(battery)
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
        curve_of=int(battery.chosen.sum()),
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


def over_epsilon(battery: Battery) -> tuple[Curve, Curve, tuple[float, ...]]:
    """Robust accuracy over epsilon of cross-entropy PGD and of everything that is known, and the distances.

    The balls are nested: who is fooled at a smaller epsilon is not attacked again. The step size grows with epsilon.
    At the audited epsilon the first attack is the point. What is known of a sample, at any epsilon, is the least
    radius at which any attack or the search for the boundary found a misclassified image.
    """
    threat, first = battery.threat, battery.first
    chosen = battery.chosen
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
