"""Figures 3, 6a and 6b: networks A and B under attack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from prs_lightning.analysis.figures import style
from prs_lightning.analysis.figures.inference import first_samples, on_device_of, outputs
from prs_lightning.analysis.figures.registry import Drawing, Sizes, figure
from prs_lightning.analysis.networks import NetworkPair
from prs_lightning.attacks import AttackResult, bim, fgsm, pgd, robustness_curve
from prs_lightning.data import Split

Attack = Callable[..., AttackResult]
ATTACKS: dict[str, tuple[Attack, int]] = {
    "FGSM": (fgsm, 1), "BIM-5": (bim, 5), "PGD-20": (pgd, 20), "PGD-100": (pgd, 100),
}  # fmt: skip
FRACTIONS = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Parts of the data set's epsilon at which curves are drawn; closer where RA falls."""
OUTCOMES = {
    "success": ("attack succeeds", style.SKY),
    "failure_with_gradient": ("fails with a gradient", style.ORANGE),
    "failure_zero_gradient": ("fails with zero gradient", style.VERMILION),
}


def _reach(networks: NetworkPair, *attacks: str) -> str:
    """Which of the attacks cannot get to the edge of the largest ball, in a sentence; empty if all can."""
    farthest = {name: ATTACKS[name][1] * networks.step_size for name in attacks}
    short = {name: distance for name, distance in farthest.items() if distance < networks.epsilon}
    if not short:
        return ""
    reached = " and ".join(f"{name} moves a pixel by at most {distance:.3g}" for name, distance in short.items())
    return f" With steps of {networks.step_size:.3g}, {reached}; larger balls are not searched to their edge."


def over_epsilon(
    networks: NetworkPair,
    network: nn.Module,
    split: Split,
    attack: str,
    withstood: dict[float, Tensor],
    indices: Tensor | None = None,
) -> pd.DataFrame:
    """RA of ``split`` under one of ``ATTACKS``, from epsilon 0 to the data set's, without work whose result is known.

    In a ball of radius 0 nothing moves, so one step is enough there. ``withstood`` (epsilon -> samples) holds what a
    shorter attack from the same start left standing, and gets what this one leaves: with the same random start the
    first 20 iterates of PGD-100 are those of PGD-20, so what PGD-20 fooled PGD-100 fools as well. ``indices`` are the
    samples' numbers, which their random starts follow from; None: 0 ... N-1.

    Returns:
        Columns epsilon (pixel units), robust_accuracy (NaN without samples), n.
    """
    run, steps = ATTACKS[attack]
    options: dict[str, Any] = {"keep_adversarial": False, "diagnose": False}
    if run is not fgsm:  # that one steps to the edge of the ball
        options["step_size"] = networks.step_size

    def thrifty(*given: Any, epsilon: float, among: Tensor | None) -> AttackResult:
        if epsilon in withstood:
            among = withstood[epsilon] if among is None else among & withstood[epsilon]
        result = run(*given, epsilon=epsilon, steps=steps if epsilon > 0 else 1, among=among, **options)
        withstood[epsilon] = result.correct_after
        return result

    images, labels = on_device_of(network, split)
    if indices is not None:
        options["indices"] = indices.to(labels.device)
    radii = [fraction * networks.epsilon for fraction in FRACTIONS]
    accuracies = robustness_curve(network, images, labels, thrifty, radii) if len(labels) else np.nan
    return pd.DataFrame({"epsilon": radii, "robust_accuracy": accuracies, "n": len(labels)})


@figure("3", "RA over epsilon", needs="networks")
def figure_3(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """RA over epsilon for FGSM, BIM-5, PGD-20 and PGD-100, on the training and the test set, for both networks."""
    canvas, grid = style.panels(2, 2, height=1.9, sharex=True, sharey=True)
    tables = []
    for row, named in enumerate(networks.both):
        for column, (name, whole) in enumerate((("training", networks.train), ("test", networks.test))):
            axes, split = grid[row, column], first_samples(whole, sizes.curve)
            withstood: dict[Attack, dict[float, Tensor]] = defaultdict(dict)
            for position, (words, (attack, _)) in enumerate(ATTACKS.items()):
                table = over_epsilon(networks, named.network, split, words, withstood[attack])
                axes.plot(table["epsilon"], table["robust_accuracy"], label=words, **style.curve(position))
                tables.append(pd.DataFrame({"network": named.letter, "split": name, "attack": words, **table}))
            axes.set(xlabel="epsilon" if row else "", ylabel="" if column else "RA", ylim=(-0.03, 1.03))
            axes.set_title(f"{named.letter}, {name} set, n = {len(split.labels)}")
    style.legend(canvas)
    caption = (
        f"RA over epsilon. {networks.words}. A sample fooled at a smaller epsilon counts as fooled at larger "
        f"ones.{_reach(networks, 'BIM-5', 'PGD-20', 'PGD-100')} To see: RA falls with epsilon and with the strength "
        "of the attack; a curve that stays high, and is the same for one step and for a hundred, points to gradients "
        "that give the attack nothing to follow."
    )
    return caption, canvas, pd.concat(tables, ignore_index=True)


def _attack(networks: NetworkPair, network: nn.Module, split: Split, *, keep: bool) -> tuple[AttackResult, np.ndarray]:
    """PGD-20 with cross-entropy, and the outcome (one of ``OUTCOMES``) of each sample that was classified correctly."""
    images, labels = on_device_of(network, split)
    threat: dict[str, Any] = {
        "epsilon": networks.epsilon,
        "step_size": networks.step_size,
        "steps": ATTACKS["PGD-20"][1],
    }
    result = pgd(network, images, labels, keep_adversarial=keep, **threat)
    tried = result.correct_before
    succeeded, zero_gradient = (~result.correct_after)[tried].cpu(), result.zero_gradient_end[tried].cpu()
    return result, np.select([succeeded, zero_gradient], ["success", "failure_zero_gradient"], "failure_with_gradient")


@lru_cache(maxsize=1)
def attacked_samples(networks: NetworkPair, limit: int) -> pd.DataFrame:
    """The correctly classified ones of ``limit`` test samples under PGD-20 with cross-entropy.

    Kept for the second figure that is made from it.

    Returns:
        A row per network, moment ("before" and "after" the attack) and sample: moment, label, true_logit,
        highest_other_logit, outcome (one of ``OUTCOMES``), network.
    """
    split, tables = first_samples(networks.test, limit), []
    for named in networks.both:
        images, labels = on_device_of(named.network, split)
        result, outcomes = _attack(networks, named.network, split, keep=True)
        assert result.adversarial is not None
        tried = result.correct_before
        true_class = labels[tried].unsqueeze(1)
        for moment, given in (("before", images), ("after", result.adversarial)):
            logits = outputs(named.network, given[tried])[0]
            numbers = {
                "label": labels[tried], "true_logit": logits.gather(1, true_class).squeeze(1),
                "highest_other_logit": logits.scatter(1, true_class, -np.inf).amax(dim=1),
            }  # fmt: skip
            columns = {"moment": moment} | {name: values.cpu().numpy() for name, values in numbers.items()}
            tables.append(pd.DataFrame(columns | {"outcome": outcomes, "network": named.letter}))
    return pd.concat(tables, ignore_index=True)


def counted_outcomes(networks: NetworkPair, limit: int) -> pd.DataFrame:
    """How often each of ``OUTCOMES`` is seen in networks A and B and in their siblings of other seeds.

    Returns:
        Columns network, seed, outcome, count, share (of n; 0 for no samples), n.
    """
    samples, split, rows = attacked_samples(networks, limit), first_samples(networks.test, limit), []
    own = samples[samples["moment"] == "before"].groupby("network")["outcome"].agg(list).to_dict()
    for named in networks.both:
        for seed, network in named.over_seeds():
            known = network is named.network
            outcomes = list(own.get(named.letter, []) if known else _attack(networks, network, split, keep=False)[1])
            n = len(outcomes)
            for outcome in OUTCOMES:
                count = outcomes.count(outcome)
                rows.append((named.letter, seed, outcome, count, count / n if n else 0.0, n))
    return pd.DataFrame(rows, columns=["network", "seed", "outcome", "count", "share", "n"])


@figure("6a", "Outcomes of PGD-20", needs="networks")
def figure_6a(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """Shares of successful attacks, failures with a gradient and failures with zero gradient, mean over seeds."""
    table = counted_outcomes(networks, sizes.attacked)
    canvas, grid = style.panels(1, 1, height=1.5)
    canvas.set_figwidth(4.6)
    axes, names = grid[0, 0], []
    for place, (letter, of_letter) in enumerate(table.groupby("network")):
        shares = of_letter.pivot_table("share", "seed", "outcome")[[*OUTCOMES]]
        start = 0.0
        for outcome, (words, colour) in OUTCOMES.items():
            share = float(shares[outcome].mean())
            axes.barh(place, share, left=start, height=0.6, color=colour, edgecolor="white", label=words)
            if share > 0.1:
                axes.text(start + share / 2, place, f"{share:.1%}", ha="center", va="center")
            start += share
        if len(shares) > 1:  # where each seed has the borders between the parts
            heights = place + np.linspace(-0.2, 0.2, len(shares))
            for borders in shares.cumsum(axis=1).to_numpy()[:, :2].T:
                axes.scatter(borders, heights, s=6, color=style.BLACK, linewidths=0, zorder=3, clip_on=False)
        least, most = int(of_letter["n"].min()), int(of_letter["n"].max())
        many = f"\n{len(shares)} seeds" * (len(shares) > 1)
        names.append(f"{letter}, n = {least}" + f" to {most}" * (most > least) + many)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of correctly classified test samples")
    axes.grid(axis="y", visible=False)
    style.legend(canvas)
    caption = (
        f"PGD-20 at epsilon {networks.epsilon:.3g} on the correctly classified ones of "
        f"{min(sizes.attacked, len(networks.test.labels)):,} test samples. {networks.words}. Mean over the runs that "
        "differ from these in the seed alone, where there are any; the dots are where each of them has the borders "
        f"between the parts.{_reach(networks, 'PGD-20')} To see: an attack that fails where the loss gradient is "
        "exactly 0 was never tried; such failures say nothing about robustness."
    )
    return caption, canvas, table


@figure("6b", "Logits before and after PGD-20", needs="networks")
def figure_6b(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """The true class's logit against the highest other one, before and after PGD-20, for both networks."""
    samples = attacked_samples(networks, sizes.attacked)
    canvas, grid = style.panels(1, 2, height=2.8)
    for axes, named in zip(grid[0], networks.both, strict=True):
        tried = samples[samples["network"] == named.letter]
        axes.set(xlabel="highest logit of another class", ylabel="logit of the true class")
        axes.set_title(f"{named.words}\nn = {len(tried) // 2} correctly classified test samples")
        if tried.empty:
            style.say(axes, "no sample is classified correctly")
            continue
        for position, moment in enumerate(("before", "after")):
            x, y = (tried.loc[tried["moment"] == moment, name] for name in ("highest_other_logit", "true_logit"))
            axes.scatter(x, y, s=9, alpha=0.5, linewidths=0, label=f"{moment} PGD-20", **style.points(position))
        ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
        axes.plot(ends, ends, "--", color=style.GREY, linewidth=0.9, label="decision boundary")
        axes.set(xlim=ends, ylim=ends)
    style.legend(canvas)
    caption = (
        f"Each sample before and after PGD-20 at epsilon {networks.epsilon:.3g}; the dashed line is the decision "
        "boundary: above it the sample is classified correctly. In float32 the loss gradient is exactly 0 from a "
        "margin of about 104. To see: how far from the boundary the samples start, whether the attack carries them "
        "over it, and whether some do not move at all."
    )
    return caption, canvas, samples
