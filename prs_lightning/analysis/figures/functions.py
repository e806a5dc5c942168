"""Figure 16: the same function at other PRS ratios, and the same PRS ratio at other robust accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor, nn

from prs_lightning.analysis.figures import style
from prs_lightning.analysis.figures.inference import first_samples, on_device_of, outputs
from prs_lightning.analysis.figures.registry import Drawing, Sizes, figure
from prs_lightning.analysis.networks import NetworkPair
from prs_lightning.attacks import pgd
from prs_lightning.attacks.attacks import Attack
from prs_lightning.errors import ConfigError
from prs_lightning.regions import prs_ratio
from prs_lightning.regions.units import inert_units, scaled, without_dead_units

NEAR = 0.99
"""Units are shown until the PRS ratios of both networks are that near to 1."""
ADDED = (0, *(2**power for power in range(13)))
SCALES = tuple(2.0**power for power in (-6, -3, 0, 2, 4, 7, 10))
"""Powers of two: with these the logits are exactly the factor times what they were."""
MEASURES = {
    "prs_ratio": ("PRS ratio", "-"),
    "robust_accuracy": ("RA (cross-entropy)", (0, (5, 1.5))),
    "audited_accuracy": ("audited RA", (0, (1.2, 1.2))),
    "accuracy": ("test accuracy", (0, (5, 1.5, 1.2, 1.5))),
}
"""Columns, in words, and their lines."""
OF_IMAGES = [*MEASURES][1:]
"""Those that are measured on test samples."""
CAPTION = (
    "(a) Penultimate units of random weights in and zero weights out are added: every logit of every image stays the "
    "same to the bit, so that RA is drawn flat and was not attacked again. Left of 0 the units that are positive for "
    "none of these training samples are removed, which changes nothing on these samples, but may on others. (b) Weight "
    "and bias of the final layer times c: every prediction, decision boundary and region stays the same; the audit "
    "counts what withstood cross-entropy and the margin loss. "
    "What follows: the PRS ratio is a property of the parameters, not of the function that they compute, and RA under "
    "cross-entropy is one of the scale of the logits; neither alone says that a network is robust. What does not: "
    "nobody trained networks like these. It is not shown that the paper's relation is absent among networks as "
    "training leaves them, nor what moves their ratio and their scale: for that see figures 4 and 4b, and the "
    "statistics."
)


def ratios_by_units(network: nn.Module, images: Tensor) -> pd.DataFrame:
    """PRS ratio over images in [0, 1] with each number of inert units in ``ADDED``, and without dead units.

    Returns:
        Columns added (units; below 0 the dead ones that were removed), units, prs_ratio. There is no row for dead
        units where there are none, or where they cannot be removed.
    """
    # The first units of many are those of a few, so one pass tells the regions of all.
    z = outputs(inert_units(network, ADDED[-1], images=images), images)[1]
    units = z.shape[1] - ADDED[-1]
    rows = [(added, prs_ratio(z[:, : units + added])) for added in ADDED]
    try:
        alive = outputs(without_dead_units(network, images), images)[1]
    except ConfigError:  # all are dead, or they pass something on
        alive = z[:, :units]
    if alive.shape[1] < units:
        rows.insert(0, (alive.shape[1] - units, prs_ratio(alive)))
    table = pd.DataFrame(rows, columns=["added", "prs_ratio"])
    return table.assign(units=units + table["added"])


def accuracies_by_scale(network: nn.Module, images: Tensor, labels: Tensor, threat: Mapping[str, Any]) -> pd.DataFrame:
    """Accuracy and RA of a network whose final layer is multiplied by each of ``SCALES``.

    A power of two changes no sign of the margin loss's gradient, so what withstands the margin loss is the same at each
    scale, and is attacked once.

    Returns:
        Columns scale, robust_accuracy (PGD with cross-entropy), audited_accuracy (and with the margin loss: the worst
        of both), accuracy.
    """
    attack: Attack = partial(pgd, keep_adversarial=False, diagnose=False, **threat)
    margin, rows = attack(network, images, labels, loss="margin"), []
    for scale in SCALES:
        made = scaled(network, scale, images=images)
        withstood = attack(made, images, labels, among=margin.correct_before).correct_after
        counts = (withstood, withstood & margin.correct_after, margin.correct_before)
        rows.append((scale, *(float(each.double().mean()) for each in counts)))
    return pd.DataFrame(rows, columns=["scale", "robust_accuracy", "audited_accuracy", "accuracy"])


def _draw(axes: Axes, table: pd.DataFrame, over: str, measured: tuple[str, ...]) -> None:
    """The curves of one network; marked are those that were measured at each point, the others are flat by proof."""
    letter = table["network"].iloc[0]
    look = style.points("AB".index(letter))
    for name, (words, line) in MEASURES.items():
        if name in table:
            marker = look["marker"] if name in measured else ""
            axes.plot(
                table[over], table[name], label=f"{letter}: {words}", **look | {"linestyle": line, "marker": marker}
            )


@figure("16", "What the PRS ratio is a property of", needs="networks")
def figure_16(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """The same function with other numbers of penultimate units, and the same regions at other scales of the logits."""
    train, test = first_samples(networks.train, sizes.layers), first_samples(networks.test, sizes.scaled)
    threat = {"epsilon": networks.epsilon, "step_size": networks.step_size, "steps": 20}
    by_units, by_scale = [], []
    for named in networks.both:
        units = ratios_by_units(named.network, on_device_of(named.network, train)[0])
        scales = accuracies_by_scale(named.network, *on_device_of(named.network, test), threat)
        # Every logit is the same, whatever is added: nothing is attacked again. And no region depends on the scale.
        units = units.assign(network=named.letter, panel="units", **scales[scales["scale"] == 1].iloc[0])
        units.loc[units["added"] < 0, OF_IMAGES] = np.nan  # units that are dead on training samples may live on others
        by_units.append(units)
        plain = units[units["added"] == 0].iloc[0]
        by_scale.append(
            scales.assign(
                network=named.letter, panel="scale", added=0, units=int(plain["units"]), prs_ratio=plain["prs_ratio"]
            )
        )
    below = [0, *(added for table in by_units for added in table.loc[table["prs_ratio"] < NEAR, "added"])]
    last = next((added for added in ADDED if added > max(below)), ADDED[-1])
    by_units = [table[table["added"] <= last] for table in by_units]
    canvas, grid = style.panels(1, 2, height=2.6, sharey=True)
    left, right = grid[0]
    for units, scales in zip(by_units, by_scale, strict=True):
        _draw(left, units.drop(columns="accuracy"), "added", ("prs_ratio",))
        _draw(right, scales, "scale", ("robust_accuracy", "audited_accuracy"))
    left.set_xscale("symlog", linthresh=1, linscale=0.5)
    left.xaxis.set_major_formatter("{x:g}")
    left.set(xlabel="inert units added (left of 0: dead units removed)", ylabel="share", ylim=(-0.03, 1.03))
    left.set_title(f"(a) one function, other regions\nPRS ratio: n = {len(train.labels):,} training samples")
    right.set_xscale("log", base=2)
    right.set_xlabel("factor c of the final layer")
    right.set_title(f"(b) one set of regions, other scales\nRA: n = {len(test.labels):,} test samples")
    style.legend(canvas, columns=4)
    numbers = pd.concat([*by_units, *by_scale], ignore_index=True)
    columns = ["network", "panel", "added", "units", "scale", *MEASURES]
    numbers = numbers[columns].assign(n_train=len(train.labels), n_test=len(test.labels))
    return f"{networks.words}. PGD-20 at epsilon {networks.epsilon:.3g}. {CAPTION}", canvas, numbers
