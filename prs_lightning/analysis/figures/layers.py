"""Figures 2a and 7a: the PRS ratio by layer, and the cosine similarity of the final layer's weights."""

from __future__ import annotations

import pandas as pd
import torch

from prs_lightning.analysis.figures.inference import both, first_samples, outputs
from prs_lightning.analysis.figures.registry import Sizes, figure
from prs_lightning.analysis.figures.style import LINES, MARKERS, Drawing, legend, panels
from prs_lightning.analysis.networks import NetworkPair
from prs_lightning.models.base import ImageClassifier
from prs_lightning.regions import RegionSet
from prs_lightning.regions.cosine_similarity import cosine_matrix, cosine_similarity
from prs_lightning.regions.layers import find_layer, hidden_layers, watching


def ratios_by_layer(network: ImageClassifier, images: torch.Tensor) -> pd.DataFrame:
    """PRS ratio of every hidden layer over uint8 images, in the order of the forward pass.

    Returns:
        Columns depth (from 1), layer, kind ("convolution" or "fully connected"), units, prs_ratio, n.
    """
    names = hidden_layers(network, network.final)
    sets = {name: RegionSet() for name in names}
    order: dict[str, None] = {}

    def seen(name: str, output: torch.Tensor) -> None:
        order[name] = None
        sets[name].add(output)

    with watching(network, names, seen):
        outputs(network, images)
    kinds = {
        name: "fully connected" if isinstance(find_layer(network, name), torch.nn.Linear) else "convolution"
        for name in order
    }
    return pd.DataFrame(
        [
            {
                "depth": depth, "layer": name, "kind": kinds[name], "units": sets[name].units,
                "prs_ratio": sets[name].ratio, "n": sets[name].samples,
            }
            for depth, name in enumerate(order, start=1)
        ]
    )  # fmt: skip


@figure("2a", "PRS ratio by layer", needs="networks")
def figure_2a(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """PRS ratio of every hidden layer of both networks."""
    split = first_samples(networks.train, sizes.layers)
    canvas, grid = panels(1, 1, height=2.2)
    axes = grid[0, 0]
    handles, numbers = {}, []
    for position, named in enumerate(both(networks)):
        table = ratios_by_layer(named.network, split.images)
        (handles[named.words],) = axes.plot(
            table["depth"], table["prs_ratio"], color=named.colour, marker=MARKERS[position], linestyle=LINES[position]
        )
        numbers.append(table.assign(network=named.letter))
    counts = {"convolution": 0, "fully connected": 0}
    ticks = []
    for kind in numbers[0]["kind"]:
        counts[kind] += 1
        ticks.append(f"{'conv' if kind == 'convolution' else 'fc'} {counts[kind]}")
    axes.set_xticks(numbers[0]["depth"], ticks, rotation=45 if len(ticks) < 10 else 90, ha="right")
    axes.set(xlabel="layer", ylabel="PRS ratio", ylim=(-0.03, 1.05))
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
    numbers, drawn = [], None
    for axes, named in zip(grid[0], both(networks), strict=True):
        weight = named.network.final.weight
        matrix = cosine_matrix(weight).cpu().numpy()
        drawn = axes.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1)
        axes.grid(False)
        axes.set(xlabel="class", ylabel="class", xticks=range(len(matrix)), yticks=range(len(matrix)))
        pairs = len(matrix) * (len(matrix) - 1) // 2
        axes.set_title(f"{named.words}\nmean {float(cosine_similarity(weight)):.3f} over n = {pairs} pairs")
        numbers += [
            {"network": named.letter, "class_i": i, "class_j": j, "cosine_similarity": value}
            for i, row in enumerate(matrix.tolist())
            for j, value in enumerate(row)
        ]
    assert drawn is not None
    canvas.colorbar(drawn, ax=grid[0].tolist(), label="cosine similarity", shrink=0.8)
    caption = (
        "Cosine of the angle between the final layer's weight vectors of each two classes; its mean over pairs is the "
        "measure weights/cosine_similarity. To see: whether the classes' vectors of network B lie closer to each other "
        "(more orange) than those of network A."
    )
    return caption, canvas, pd.DataFrame(numbers)
