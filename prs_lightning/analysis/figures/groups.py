"""Figure 9: test samples inside and outside the training set's regions under attack, also at equal clean margin."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from prs_lightning.analysis.figures import style
from prs_lightning.analysis.figures.inference import ends_of, outputs
from prs_lightning.analysis.figures.registry import Drawing, Sizes, figure
from prs_lightning.analysis.figures.robustness import over_epsilon
from prs_lightning.analysis.networks import Named, NetworkPair
from prs_lightning.analysis.relations import MATCHED, UNMATCHED, plural
from prs_lightning.data import Split
from prs_lightning.regions import RegionSet
from prs_lightning.seeding import keyed_generator

CALIPER = 0.1
"""How far the margins of a matched pair may lie apart, in standard deviations of those of both groups together.

Austin 2011, "Optimal caliper widths", takes 0.2; the half of it leaves less of the difference to be explained away.
"""


class Groups(NamedTuple):
    """Places in the test set of the samples inside (inclusion) and outside (exclusion) the training set's regions.

    ``margins`` (N,) of the whole test set: the true class's logit minus the largest other one.
    """

    inclusion: Tensor
    exclusion: Tensor
    margins: Tensor

    def members(self) -> dict[str, Tensor]:
        return {"inclusion": self.inclusion, "exclusion": self.exclusion}

    def some(self, limit: int) -> Groups:
        """Of more than ``limit`` per group a random ``limit``, the same ones every time, as a test set may come in the
        order of its classes."""
        return Groups(_some(self.inclusion, limit), _some(self.exclusion, limit), self.margins)

    def matched(self, limit: int) -> Groups:
        """At most ``limit`` pairs of one sample of each group whose clean margins differ by ``CALIPER`` at most."""
        pairs = matched_pairs(self.margins[self.inclusion].numpy(), self.margins[self.exclusion].numpy())
        chosen = _some(torch.arange(len(pairs)), limit)
        inside, outside = torch.from_numpy(pairs)[chosen].unbind(1)
        return Groups(self.inclusion[inside], self.exclusion[outside], self.margins)


def _some(places: Tensor, limit: int) -> Tensor:
    order = torch.randperm(len(places), generator=keyed_generator(len(places)))
    return places[order[:limit].sort().values]


def matched_pairs(ours: np.ndarray, theirs: np.ndarray, caliper: float = CALIPER) -> np.ndarray:
    """Pairs of places (P, 2) in two groups of values (N,) and (M,): one to one, without replacement, within a caliper.

    Each of the smaller group, in a fixed random order, takes the nearest of the larger one that is left, if that lies
    within ``caliper`` standard deviations (of all values together).

    >>> matched_pairs(np.array([1.0, 5.0]), np.array([9.0, 1.1, 5.0, 0.5])).tolist()
    [[0, 1], [1, 2]]
    """
    if not len(ours) or not len(theirs):
        return np.empty((0, 2), dtype=np.int64)
    if len(ours) > len(theirs):
        return matched_pairs(theirs, ours, caliper)[:, ::-1].copy()
    farthest = caliper * float(np.concatenate([ours, theirs]).std())
    left, pairs = theirs.astype(float), []
    for place in torch.randperm(len(ours), generator=keyed_generator(len(ours))).tolist():
        apart = np.abs(left - ours[place])
        nearest = int(apart.argmin())
        if apart[nearest] <= farthest:
            pairs.append((place, nearest))
            left[nearest] = np.inf
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def groups(network: nn.Module, train: Split, test: Split) -> Groups:
    """The correctly classified test samples by whether the region of the penultimate layer holds a training sample."""
    tap = ends_of(network, train.images).penultimate
    populated = RegionSet.from_pre_activations(outputs(network, train.images, tap)[1])
    logits, pre_activations = outputs(network, test.images, tap)
    labels = test.labels.to(logits.device)[:, None]
    margins = logits.gather(1, labels).squeeze(1) - logits.scatter(1, labels, -torch.inf).amax(dim=1)
    right = logits.argmax(dim=1).cpu() == test.labels.cpu()
    inside = populated.contains(pre_activations).cpu()
    return Groups((right & inside).nonzero().flatten(), (right & ~inside).nonzero().flatten(), margins.cpu())


def curves_of_groups(networks: NetworkPair, named: Named, limit: int) -> pd.DataFrame:
    """RA of both groups under PGD-20 over epsilon, for every seed of a network, as they are and matched.

    Each sample is attacked once, whatever groups it is in, from the start that is its own.

    Returns:
        Columns network, seed, matching (``UNMATCHED`` or ``MATCHED``), group, epsilon, robust_accuracy (NaN for an
        empty group), n, margin (mean clean margin of the group; NaN likewise).
    """
    tables = []
    for seed, network in named.over_seeds():
        found = groups(network, networks.train, networks.test)
        chosen = {UNMATCHED: found.some(limit), MATCHED: found.matched(limit)}
        attacked = torch.cat([places for each in chosen.values() for places in each.members().values()]).unique()
        split = Split(*(values[attacked] for values in networks.test))
        withstood: dict[float, Tensor] = {}
        radii = over_epsilon(networks, network, split, "PGD-20", withstood, indices=attacked)["epsilon"]
        for matching, each in chosen.items():
            for group, places in each.members().items():
                inside = torch.isin(attacked, places)
                accuracies = [float(withstood[radius].cpu()[inside].double().mean()) for radius in radii if len(places)]
                numbers = {"epsilon": radii, "robust_accuracy": accuracies or np.nan, "n": len(places)}
                margin = float(found.margins[places].double().mean())
                names = {"network": named.letter, "seed": seed, "matching": matching, "group": group}
                tables.append(pd.DataFrame({**names, **numbers, "margin": margin}))
    return pd.concat(tables, ignore_index=True)


def _draw_groups(axes: Axes, table: pd.DataFrame) -> None:
    told, empty = [], []
    for position, (group, chosen) in enumerate(table.groupby("group", sort=False)):
        least, most = chosen["n"].min(), chosen["n"].max()
        size = f"n({group}) = {least:,}" + (f" to {most:,}" if most > least else "")
        known = chosen.dropna(subset=["robust_accuracy"])
        told.append(size if known.empty else f"{size}, margin {known['margin'].mean():.3g}")
        if known.empty:
            empty.append(group)
            continue
        curve = known.groupby("epsilon")["robust_accuracy"].agg(mean="mean", standard_deviation="std").reset_index()
        style.mean_and_band(axes, curve, over="epsilon", label=f"{group} group", **style.curve(position))
    if len(empty) == len(told):
        few = table["matching"].iloc[0] == MATCHED
        style.say(
            axes, "no two samples are as near in clean margin" if few else "no test sample is classified correctly"
        )
    elif empty:
        style.note(axes, f"no sample in the {empty[0]} group")
    axes.set_title("\n".join(filter(None, [axes.get_title(), *told])) + f"; {plural(table['seed'].nunique(), 'seed')}")


@figure("9", "RA of the inclusion and exclusion groups", needs="networks")
def figure_9(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """RA over epsilon of the inclusion and the exclusion group, as they are and matched on the clean margin."""
    canvas, grid = style.panels(2, 2, height=2.2, sharex=True, sharey=True)
    tables = [curves_of_groups(networks, named, sizes.group) for named in networks.both]
    for column, (named, table) in enumerate(zip(networks.both, tables, strict=True)):
        for row, (matching, title) in enumerate(((UNMATCHED, named.words), (MATCHED, f"{named.letter}, matched"))):
            axes = grid[row, column]
            axes.set(title=title, xlabel="epsilon" if row else "", ylabel="" if column else "RA (PGD-20)")
            axes.set_ylim(-0.03, 1.03)
            _draw_groups(axes, table[table["matching"] == matching])
    style.legend(canvas)
    caption = (
        f"Correctly classified test samples, at most {sizes.group:,} per group: inside a region that holds training "
        "samples (inclusion) and outside of all of them (exclusion), under PGD-20; mean over seeds, band of one "
        "standard deviation. Above as they are; below pairs of one sample of each group whose clean margins (the true "
        f"class's logit minus the largest other one; its mean stands above each panel) differ by at most {CALIPER:g} "
        "standard deviations. To see: whether the inclusion group keeps a higher RA, and whether it still does among "
        "samples of which the network was as sure: samples outside are often just nearer to the boundary. A group of "
        "few samples says little."
    )
    return caption, canvas, pd.concat(tables, ignore_index=True)
