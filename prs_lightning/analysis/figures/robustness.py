"""Figures 3, 6a and 6b: networks A and B under attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor, nn

from prs_lightning.analysis.figures.inference import both, first_samples, on_device_of, outputs
from prs_lightning.analysis.figures.registry import Sizes, figure
from prs_lightning.analysis.figures.style import (
    BLUE,
    COLOURS,
    GREY,
    LINES,
    MARKERS,
    ORANGE,
    SKY,
    VERMILION,
    Drawing,
    legend,
    panels,
    say,
)
from prs_lightning.analysis.networks import NetworkPair
from prs_lightning.attacks import AttackResult, bim, fgsm, pgd, robustness_curve

Attack = Callable[..., AttackResult]
ATTACKS: dict[str, tuple[Attack, int]] = {
    "FGSM": (fgsm, 1),
    "BIM-5": (bim, 5),
    "PGD-20": (pgd, 20),
    "PGD-100": (pgd, 100),
}
FRACTIONS = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Parts of the data set's epsilon at which curves are drawn; closer where RA falls."""
OUTCOMES = {
    "success": "attack succeeds",
    "failure_with_gradient": "fails with a gradient",
    "failure_zero_gradient": "fails with zero gradient",
}


def epsilons(networks: NetworkPair) -> list[float]:
    """Radii from 0 to the data set's epsilon, in pixel units."""
    return [fraction * networks.epsilon for fraction in FRACTIONS]


def _reach(networks: NetworkPair, *attacks: str) -> str:
    """Which of the attacks cannot get to the edge of the largest ball, in a sentence; empty if all can."""
    short = {
        name: ATTACKS[name][1] * networks.step_size
        for name in attacks
        if ATTACKS[name][1] * networks.step_size < networks.epsilon
    }
    if not short:
        return ""
    reached = " and ".join(f"{name} moves a pixel by at most {distance:.3g}" for name, distance in short.items())
    return f" With steps of {networks.step_size:.3g}, {reached}; larger balls are not searched to their edge."


def thrifty(attack: Attack, steps: int, withstood: dict[float, Tensor], **options: object) -> Attack:
    """``attack`` for ``robustness_curve``, without work whose result is known.

    In a ball of radius 0 nothing moves, so one step is enough there. ``withstood`` (epsilon -> samples) holds what a
    shorter attack from the same start left standing, and gets what this one leaves: with the same random start the
    first 20 iterates of PGD-100 are those of PGD-20, so what PGD-20 fooled PGD-100 fools as well.
    """

    def run(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, among: Tensor | None) -> AttackResult:
        if epsilon in withstood:
            among = withstood[epsilon] if among is None else among & withstood[epsilon]
        taken = steps if epsilon > 0 else min(steps, 1)
        saved = {"keep_adversarial": False, "diagnose": False}
        result = attack(model, images, labels, epsilon=epsilon, steps=taken, among=among, **saved, **options)
        withstood[epsilon] = result.correct_after
        return result

    return run


def accuracy_curves(
    network: nn.Module, images: Tensor, labels: Tensor, radii: list[float], step_size: float
) -> dict[str, list[float]]:
    """RA at each radius under each of ``ATTACKS``; FGSM steps to the edge of the ball."""
    by_attack: dict[Attack, dict[float, Tensor]] = {}
    curves = {}
    for name, (attack, steps) in ATTACKS.items():
        options = {} if attack is fgsm else {"step_size": step_size}
        thrift = thrifty(attack, steps, by_attack.setdefault(attack, {}), **options)
        curves[name] = robustness_curve(network, images, labels, thrift, radii)
    return curves


@figure("3", "RA over epsilon", needs="networks")
def figure_3(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """RA over epsilon for FGSM, BIM-5, PGD-20 and PGD-100, on the training and the test set, for both networks."""
    canvas, grid = panels(2, 2, height=1.9, sharex=True, sharey=True)
    radii, handles, rows = epsilons(networks), {}, []
    for row, named in enumerate(both(networks)):
        for column, (name, whole) in enumerate((("training", networks.train), ("test", networks.test))):
            axes, split = grid[row, column], first_samples(whole, sizes.curve)
            images, labels = on_device_of(named.network, split)
            curves = accuracy_curves(named.network, images, labels, radii, networks.step_size)
            for position, (attack, curve) in enumerate(curves.items()):
                (handles[attack],) = axes.plot(
                    radii, curve, color=COLOURS[position], linestyle=LINES[position], marker=MARKERS[position]
                )
                rows += [
                    {
                        "network": named.letter, "split": name, "attack": attack, "epsilon": radius,
                        "robust_accuracy": accuracy, "n": len(labels),
                    }
                    for radius, accuracy in zip(radii, curve, strict=True)
                ]  # fmt: skip
            axes.set_title(f"{named.letter}, {name} set, n = {len(labels)}")
            axes.set(xlabel="epsilon" if row else "", ylabel="" if column else "RA", ylim=(-0.03, 1.03))
    legend(canvas, handles)
    words = "; ".join(named.words for named in both(networks))
    caption = (
        f"RA over epsilon. {words}. A sample fooled at a smaller epsilon counts as fooled at larger "
        f"ones.{_reach(networks, 'BIM-5', 'PGD-20', 'PGD-100')} To see: RA falls with epsilon and with the strength "
        "of the attack; a curve that stays high, and is the same for one step and for a hundred, points to gradients "
        "that give the attack nothing to follow."
    )
    return caption, canvas, pd.DataFrame(rows)


class Attacked(NamedTuple):
    """One network's correctly classified test samples under PGD-20: logits (N, classes) and what became of each."""

    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray
    outcome: np.ndarray
    given: int


@lru_cache(maxsize=1)
def attack_outcomes(networks: NetworkPair, samples: int) -> dict[str, Attacked]:
    """PGD-20 with cross-entropy on both networks; kept for the second figure that is made from it."""
    found = {}
    split = first_samples(networks.test, samples)
    for named in both(networks):
        images, labels = on_device_of(named.network, split)
        result = pgd(named.network, images, labels, epsilon=networks.epsilon, step_size=networks.step_size, steps=20)
        assert result.adversarial is not None
        tried = result.correct_before
        outcome = np.where(
            ~result.correct_after.cpu(),
            "success",
            np.where(result.zero_gradient_end.cpu(), "failure_zero_gradient", "failure_with_gradient"),
        )
        found[named.letter] = Attacked(
            labels=labels[tried].cpu().numpy(),
            before=outputs(named.network, images[tried])[0].cpu().numpy() if tried.any() else np.empty((0, 0)),
            after=outputs(named.network, result.adversarial[tried])[0].cpu().numpy()
            if tried.any()
            else np.empty((0, 0)),
            outcome=outcome[tried.cpu().numpy()],
            given=len(labels),
        )
    return found


@figure("6a", "Outcomes of PGD-20", needs="networks")
def figure_6a(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """Shares of successful attacks, failures with a gradient and failures with zero gradient."""
    found = attack_outcomes(networks, sizes.attacked)
    canvas, grid = panels(1, 1, height=1.5, width=4.6)
    axes = grid[0, 0]
    colours = dict(zip(OUTCOMES, (SKY, ORANGE, VERMILION), strict=True))
    handles, rows = {}, []
    for place, (letter, attacked) in enumerate(found.items()):
        start, n = 0.0, len(attacked.outcome)
        for outcome, words in OUTCOMES.items():
            count = int((attacked.outcome == outcome).sum())
            share = count / n if n else 0.0
            handles[words] = axes.barh(place, share, left=start, height=0.6, color=colours[outcome], edgecolor="white")
            if share > 0.06:
                axes.text(start + share / 2, place, f"{share:.1%}", ha="center", va="center", fontsize=6.5)
            start += share
            rows.append({"network": letter, "outcome": outcome, "count": count, "share": share, "n": n})
    ticks = [f"{letter}, n = {len(attacked.outcome)}" for letter, attacked in found.items()]
    axes.set_yticks(range(len(found)), ticks)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of correctly classified test samples")
    axes.grid(axis="y", visible=False)
    legend(canvas, handles)
    words = "; ".join(named.words for named in both(networks))
    caption = (
        f"PGD-20 at epsilon {networks.epsilon:.3g} on the correctly classified ones of {sizes_shown(found)} test "
        f"samples. {words}.{_reach(networks, 'PGD-20')} To see: an attack that fails where the loss gradient is "
        "exactly 0 was never tried; such failures say nothing about robustness."
    )
    return caption, canvas, pd.DataFrame(rows)


def sizes_shown(found: dict[str, Attacked]) -> str:
    """How many samples were given, in words."""
    return f"{max(attacked.given for attacked in found.values()):,}"


def true_and_other(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logit of the true class and the highest of the others, each (N,).

    >>> true_and_other(np.array([[3.0, 1.0, 2.0]]), np.array([0]))
    (array([3.]), array([2.]))
    """
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    return logits[rows, labels], others.max(axis=1)


@figure("6b", "Logits before and after PGD-20", needs="networks")
def figure_6b(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """The true class's logit against the highest other one, before and after PGD-20, for both networks."""
    found = attack_outcomes(networks, sizes.attacked)
    canvas, grid = panels(1, 2, height=2.8)
    handles: dict[str, object] = {}
    tables = []
    for axes, named in zip(grid[0], both(networks), strict=True):
        attacked = found[named.letter]
        axes.set(xlabel="highest logit of another class", ylabel="logit of the true class")
        axes.set_title(f"{named.words}\nn = {len(attacked.labels)} correctly classified test samples")
        if not len(attacked.labels):
            say(axes, "no sample is classified correctly")
            continue
        tables.append(_logits(axes, attacked, handles).assign(network=named.letter))
    legend(canvas, handles)
    caption = (
        f"Each sample before and after PGD-20 at epsilon {networks.epsilon:.3g}; the dashed line is the decision "
        "boundary: above it the sample is classified correctly. In float32 the loss gradient is exactly 0 from a "
        "margin of about 104. To see: how far from the boundary the samples start, whether the attack carries them "
        "over it, and whether some do not move at all."
    )
    empty = pd.DataFrame(columns=["moment", "label", "true_logit", "highest_other_logit", "outcome", "network"])
    numbers = pd.concat(tables, ignore_index=True) if tables else empty
    return caption, canvas, numbers


def _logits(axes: Axes, attacked: Attacked, handles: dict[str, object]) -> pd.DataFrame:
    series: Sequence[tuple[str, np.ndarray, str, str]] = (
        ("before", attacked.before, BLUE, "o"),
        ("after", attacked.after, VERMILION, "^"),
    )
    tables = []
    for moment, logits, colour, marker in series:
        true, other = true_and_other(logits, attacked.labels)
        handles[f"{moment} PGD-20"] = axes.scatter(
            other, true, s=9, color=colour, marker=marker, alpha=0.5, linewidths=0
        )
        tables.append(
            pd.DataFrame(
                {
                    "moment": moment, "label": attacked.labels, "true_logit": true, "highest_other_logit": other,
                    "outcome": attacked.outcome,
                }
            )
        )  # fmt: skip
    ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
    (handles["decision boundary"],) = axes.plot(ends, ends, "--", color=GREY, linewidth=0.9)
    axes.set(xlim=ends, ylim=ends)
    return pd.concat(tables, ignore_index=True)
