"""Figures 2a and 7a: the PRS ratio by layer, and the cosine similarity of the final layer's weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from prs_lightning.analysis.figures.inference import first_samples, outputs
from prs_lightning.analysis.figures.registry import Sizes, figure
from prs_lightning.analysis.figures.style import Drawing, legend, panels, series
from prs_lightning.analysis.networks import NetworkPair
from prs_lightning.analysis.relations import label
from prs_lightning.measures import COSINE_SIMILARITY, PRS_RATIO
from prs_lightning.models.base import ImageClassifier
from prs_lightning.regions import RegionSet
from prs_lightning.regions.cosine_similarity import cosine_matrix, cosine_similarity
from prs_lightning.regions.layers import hidden_layers, watching


def ratios_by_layer(network: ImageClassifier, images: torch.Tensor) -> pd.DataFrame:
    """PRS ratio of every hidden layer over uint8 images, in the order of the forward pass.

    Returns:
        Columns depth (from 1), layer, kind ("convolution" or "fully connected"), units, prs_ratio, n.
    """
    sets: dict[str, RegionSet] = {}

    def seen(name: str, output: torch.Tensor) -> None:
        sets.setdefault(name, RegionSet()).add(output)

    with watching(network, hidden_layers(network, network.final), seen):
        outputs(network, images)
    linear = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    rows = [
        {
            "depth": depth, "layer": name, "kind": "fully connected" if name in linear else "convolution",
            "units": found.units, "prs_ratio": found.ratio, "n": found.samples,
        }
        for depth, (name, found) in enumerate(sets.items(), start=1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@figure("2a", "PRS ratio by layer", needs="networks")
def figure_2a(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """PRS ratio of every hidden layer of both networks."""
    split = first_samples(networks.train, sizes.layers)
    canvas, grid = panels(1, 1, height=2.2)
    axes, handles, numbers = grid[0, 0], {}, []
    for position, named in enumerate(networks.both):
        table = ratios_by_layer(named.network, split.images)
        (handles[named.words],) = axes.plot(table["depth"], table["prs_ratio"], **series(position))
        numbers.append(table.assign(network=named.letter))
    first = numbers[0]
    short = first["kind"].map({"convolution": "conv", "fully connected": "fc"})
    ticks = short + " " + (first.groupby("kind").cumcount() + 1).astype(str)
    axes.set_xticks(first["depth"], ticks, rotation=45 if len(ticks) < 10 else 90, ha="right")
    axes.set(xlabel="layer", ylabel=label(PRS_RATIO), ylim=(-0.03, 1.05))
    axes.set_title(f"n = {len(split.labels):,} training samples")
    legend(canvas, handles, columns=1)
    caption = (
        f"PRS ratio of each layer's pre-activations over {len(split.labels):,} training samples; the ratio falls as "
        "samples are added, so values of a part of the training set lie above those of the whole. To see: in early "
        "layers nearly every sample has a region of its own in both networks; they differ towards the penultimate "
        "layer."
    )
    return caption, canvas, pd.concat(numbers, ignore_index=True)


@figure("7a", "Cosine similarity of the final layer's weights", needs="networks")
def figure_7a(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """Cosine similarity between the final layer's weight vectors of the classes, for both networks."""
    canvas, grid = panels(1, 2, height=3.1)
    numbers = []
    for axes, named in zip(grid[0], networks.both, strict=True):
        weight = named.network.final.weight
        matrix = cosine_matrix(weight).cpu().numpy()
        classes = np.arange(len(matrix))
        drawn = axes.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1)
        axes.grid(False)
        axes.set(xlabel="class", ylabel="class", xticks=classes, yticks=classes)
        pairs = len(matrix) * (len(matrix) - 1) // 2
        axes.set_title(f"{named.words}\nmean {float(cosine_similarity(weight)):.3f} over n = {pairs} pairs")
        i, j = np.indices(matrix.shape).reshape(2, -1)
        columns = {"network": named.letter, "class_i": i, "class_j": j, "cosine_similarity": matrix.ravel()}
        numbers.append(pd.DataFrame(columns))
    canvas.colorbar(drawn, ax=grid[0].tolist(), label=label(COSINE_SIMILARITY), shrink=0.8)
    caption = (
        "Cosine of the angle between the final layer's weight vectors of each two classes; its mean over pairs is the "
        f"measure {COSINE_SIMILARITY}. To see: whether the classes' vectors of network B lie closer to each other "
        "(more orange) than those of network A."
    )
    return caption, canvas, pd.concat(numbers, ignore_index=True)
