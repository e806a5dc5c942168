"""Figure 9: is a test sample in a region of the training set more robust than one outside?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from prs_lightning.analysis.figures.inference import on_device_of, outputs
from prs_lightning.analysis.figures.registry import Sizes, figure
from prs_lightning.analysis.figures.robustness import epsilons, thrifty
from prs_lightning.analysis.figures.style import Drawing, legend, mean_and_band, note, panels, say, series
from prs_lightning.analysis.networks import Named, NetworkPair
from prs_lightning.attacks import pgd, robustness_curve
from prs_lightning.data import Split
from prs_lightning.models.base import ImageClassifier
from prs_lightning.regions import RegionSet
from prs_lightning.runs.checkpoints import load_network
from prs_lightning.seeding import keyed_generator

GROUPS = ("inclusion", "exclusion")


def groups(network: ImageClassifier, train: Split, test: Split, limit: int) -> dict[str, torch.Tensor]:
    """Places in the test set of correctly classified samples inside (inclusion) and outside (exclusion) the training
    set's regions of the penultimate layer; of more than ``limit`` a random ``limit``, the same ones every time.

    Random, because a test set may come in the order of its classes.
    """
    populated = RegionSet.from_pre_activations(outputs(network, train.images)[1])
    logits, pre_activations = outputs(network, test.images)
    right = logits.argmax(dim=1).cpu() == test.labels.cpu()
    inside = populated.contains(pre_activations).cpu()
    members = {"inclusion": (right & inside).nonzero().flatten(), "exclusion": (right & ~inside).nonzero().flatten()}
    for group, places in members.items():
        order = torch.randperm(len(places), generator=keyed_generator(len(places)))
        members[group] = places[order[:limit].sort().values]
    return members


def _of_all_seeds(named: Named) -> Iterator[tuple[int, ImageClassifier]]:
    if len(named.siblings) < 2:  # the network itself is at hand
        yield (named.siblings[0][0] if named.siblings else 0), named.network
        return
    device = next(named.network.parameters()).device
    for seed, checkpoint in named.siblings:
        yield seed, load_network(checkpoint).to(device)


def curves(networks: NetworkPair, named: Named, limit: int) -> pd.DataFrame:
    """RA of both groups under PGD-20 over epsilon, for every seed of a network.

    Returns:
        Columns network, seed, group, epsilon, robust_accuracy (NaN for an empty group), n.
    """
    radii, tables = epsilons(networks), []
    for seed, network in _of_all_seeds(named):
        for group, places in groups(network, networks.train, networks.test, limit).items():
            chosen = places.to(networks.test.labels.device)
            images, labels = on_device_of(network, Split(networks.test.images[chosen], networks.test.labels[chosen]))
            attack = thrifty(pgd, 20, {}, step_size=networks.step_size)
            curve = robustness_curve(network, images, labels, attack, radii) if len(labels) else np.nan
            numbers = {"epsilon": radii, "robust_accuracy": curve, "n": len(labels)}
            tables.append(pd.DataFrame({"network": named.letter, "seed": seed, "group": group} | numbers))
    return pd.concat(tables, ignore_index=True)


def _draw(axes: Axes, table: pd.DataFrame, handles: dict[str, object]) -> None:
    told, empty = [], []
    for position, group in enumerate(GROUPS):
        chosen = table[table["group"] == group]
        least, most = chosen["n"].min(), chosen["n"].max()
        told.append(f"n({group}) = {least:,}" + (f" to {most:,}" if most > least else ""))
        known = chosen.dropna(subset=["robust_accuracy"])
        if known.empty:
            empty.append(group)
            continue
        over_seeds = known.groupby("epsilon")["robust_accuracy"].agg(["mean", "std"])
        handles[f"{group} group"] = mean_and_band(axes, over_seeds["mean"], over_seeds["std"], **series(position))
    if len(empty) == len(GROUPS):
        say(axes, "no test sample is classified correctly")
    elif empty:
        note(axes, f"no sample in the {empty[0]} group")
    axes.set_title(axes.get_title() + "\n" + ", ".join(told) + f", {table['seed'].nunique()} seed(s)")


@figure("9", "RA of the inclusion and exclusion groups", needs="networks")
def figure_9(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """RA over epsilon of the inclusion and the exclusion group, mean over seeds, for both networks."""
    canvas, grid = panels(1, 2, height=2.3, sharey=True)
    handles: dict[str, object] = {}
    tables = []
    for axes, named in zip(grid[0], networks.both, strict=True):
        table = curves(networks, named, sizes.group)
        tables.append(table)
        axes.set_title(named.words)
        axes.set(xlabel="epsilon", ylabel="RA (PGD-20)", ylim=(-0.03, 1.03))
        _draw(axes, table, handles)
    legend(canvas, handles)
    caption = (
        f"Correctly classified test samples, at most {sizes.group:,} per group: inside a region that holds training "
        "samples (inclusion) and outside of all of them (exclusion), under PGD-20; mean over seeds, band of one "
        "standard deviation. To see: whether the inclusion group keeps a higher RA. A group of few samples says little."
    )
    return caption, canvas, pd.concat(tables, ignore_index=True)
