"""Figures 2a, 7a, 11 and 13: layer by layer, the PRS ratio and feature maps; the final layer's weights and input."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pandas as pd
from torch import Tensor, nn

from prs_lightning.analysis.figures.inference import ends_of, first_samples, outputs
from prs_lightning.analysis.figures.plane import three_images
from prs_lightning.analysis.figures.registry import Drawing, Sizes, figure
from prs_lightning.analysis.figures.style import CLASS_COLOURS, bare, curve, legend, panels, say
from prs_lightning.analysis.networks import NetworkPair
from prs_lightning.analysis.relations import label
from prs_lightning.data import StoredImages, to_unit_range
from prs_lightning.errors import RunError
from prs_lightning.measures import COSINE_SIMILARITY, PRS_RATIO
from prs_lightning.regions import RegionSet
from prs_lightning.regions.cosine_similarity import cosine_matrix, cosine_similarity
from prs_lightning.regions.layers import Tap, find_layer, hidden_layers, tapping
from prs_lightning.regions.sparsity import count_zeros
from prs_lightning.regions.tracing import Relus


def ratios_by_layer(network: nn.Module, images: Tensor | StoredImages) -> pd.DataFrame:
    """PRS ratio of every hidden layer over uint8 images, in the order of the forward pass.

    Returns:
        Columns depth (from 1), layer, kind ("convolution" or "fully connected"), units, prs_ratio, n.
    """
    sets: dict[str, RegionSet] = {}

    def seen(tap: Tap, output: Tensor) -> None:
        sets.setdefault(tap.name, RegionSet()).add(output)

    ends = ends_of(network, images)
    with tapping(network, [Tap(name) for name in hidden_layers(network, find_layer(network, ends.final))], seen):
        outputs(network, images, ends.penultimate)
    linear = {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    rows = [
        (depth, name, "fully connected" if name in linear else "convolution", found.units, found.ratio, found.samples)
        for depth, (name, found) in enumerate(sets.items(), start=1)
    ]
    return pd.DataFrame(rows, columns=["depth", "layer", "kind", "units", "prs_ratio", "n"])


@figure("2a", "PRS ratio by layer", needs="networks")
def figure_2a(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """PRS ratio of every hidden layer of both networks."""
    split = first_samples(networks.train, sizes.layers)
    canvas, grid = panels(1, 1, height=2.2)
    axes, numbers = grid[0, 0], []
    for position, named in enumerate(networks.both):
        table = ratios_by_layer(named.network, split.images)
        axes.plot(table["depth"], table["prs_ratio"], label=named.words, **curve(position))
        numbers.append(table.assign(network=named.letter))
    first = numbers[0]
    short = first["kind"].map({"convolution": "conv", "fully connected": "fc"})
    ticks = short + " " + (first.groupby("kind").cumcount() + 1).astype(str)
    axes.set_xticks(first["depth"], ticks, rotation=45 if len(ticks) < 10 else 90, ha="right")
    axes.set(xlabel="layer", ylabel=label(PRS_RATIO), ylim=(-0.03, 1.05))
    axes.set_title(f"n = {len(split.labels):,} training samples")
    legend(canvas, columns=1)
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
        weight = find_layer(named.network, ends_of(named.network, networks.test.images).final).get_parameter("weight")
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


SIDE = 4
"""A montage shows the SIDE x SIDE channels with the largest mean."""


def relu_maps(network: nn.Module, image: Tensor, images: Tensor | StoredImages) -> list[tuple[Tensor, float]]:
    """Of every ReLU output that is a map, in the order of the forward pass, the maps (channels, H, W) for ``image`` and
    the share of zeros over ``images``; both uint8, (1, C, H, W) and (N, C, H, W).
    """
    tap = ends_of(network, images).penultimate
    maps: list[Tensor] = []

    def keep(output: Tensor) -> None:
        if output.ndim == 4:
            maps.append(output[0].clone())

    with Relus(keep):
        outputs(network, image, tap)
    zeros = [0.0] * len(maps)
    places = cycle(range(len(maps)))  # an output returns once per batch

    def count(output: Tensor) -> None:
        if output.ndim == 4:
            zeros[next(places)] += int(count_zeros(output)) / output[0].numel()

    with Relus(count):
        outputs(network, images, tap)
    return [(found.cpu(), share / len(images)) for found, share in zip(maps, zeros, strict=True)]


def montage(maps: Tensor) -> tuple[np.ndarray, list[int]]:
    """The strongest channels of (channels, H, W) as one picture, scaled to a maximum of 1, with lines of NaN; and
    the channels in it, row by row.
    """
    shown = min(SIDE, int(len(maps) ** 0.5))
    strongest = maps.mean(dim=(1, 2)).sort(descending=True, stable=True).indices[: shown**2]
    # Lines of a fixed share of the picture, so that small maps are not drowned in them.
    line = max(1, maps.shape[1] // 16)
    framed = nn.functional.pad(maps[strongest] / (float(maps.max()) or 1.0), (0, line, 0, line), value=np.nan)
    height, width = framed.shape[1:]
    picture = framed.view(shown, shown, height, width).transpose(1, 2).reshape(shown * height, shown * width)
    return picture[:-line, :-line].double().numpy(), strongest.tolist()


@figure("11", "Feature maps by depth", needs="networks")
def figure_11(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """The strongest feature maps of one test image at up to six depths, for both networks."""
    chosen = three_images(networks)[:1]
    image, split = networks.test.images[chosen], first_samples(networks.train, sizes.layers)
    found = [relu_maps(named.network, image, split.images) for named in networks.both]
    depths = min(len(found[0]), len(found[1]))
    if not depths:
        raise RunError("neither network puts out feature maps: figure 11 needs convolutions followed by ReLU")
    shown = sorted({round(place) for place in np.linspace(0, depths - 1, min(depths, 6))})
    canvas, grid = panels(2, len(shown) + 1, height=1.0)
    tables = []
    for panel, named, maps in zip(grid, networks.both, found, strict=True):
        panel[0].imshow(to_unit_range(image.cpu())[0].permute(1, 2, 0).numpy(), cmap="gray")
        panel[0].set_title("image")
        panel[0].set_ylabel(f"network {named.letter}")
        for axes, depth in zip(panel[1:], shown, strict=True):
            features, zeros = maps[depth]
            picture, channels = montage(features)
            axes.imshow(picture, cmap="cividis", vmin=0, vmax=1)
            axes.set_title(f"ReLU {depth + 1}, {len(features)} maps\n{zeros:.0%} zeros")
            drawn = features[channels].flatten(1)
            numbers = {
                "network": named.letter, "depth": depth + 1, "channel": channels, "mean": drawn.mean(dim=1).tolist(),
                "largest": drawn.amax(dim=1).tolist(), "zeros_in_map": (drawn == 0).double().mean(dim=1),
                "zeros_in_layer": zeros, "n": len(split.labels),
            }  # fmt: skip
            tables.append(pd.DataFrame(numbers))
    for axes in grid.flat:
        bare(axes)
        axes.spines[:].set_visible(False)
    caption = (
        f"One test image (class {int(networks.test.labels[chosen])}) and its up to {SIDE**2} strongest feature maps "
        f"after each ReLU, brightness scaled to the layer's maximum; share of zeros over n = {len(split.labels):,} "
        f"training samples. {networks.words}. To see: whether network B's maps become sparser with depth than network "
        "A's."
    )
    return caption, canvas, pd.concat(tables, ignore_index=True)


def embedding(features: np.ndarray) -> np.ndarray:
    """t-SNE (van der Maaten & Hinton 2008) of (N, D) in two dimensions, started from the principal components.

    Raises:
        RunError: fewer than 5 samples, or features that are all alike.
    """
    from sklearn.manifold import TSNE

    if len(features) < 5 or np.ptp(features, axis=0).max() == 0:
        raise RunError(f"t-SNE of {len(features)} samples: expected at least 5, and features that are not all alike")
    return TSNE(perplexity=min(30.0, (len(features) - 1) / 4), init="pca", random_state=0).fit_transform(features)


@figure("13", "t-SNE of the penultimate features", needs="networks")
def figure_13(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """t-SNE of the features that enter the final layer, coloured by class, for both networks."""
    split = first_samples(networks.test, sizes.embedded)
    labels = split.labels.cpu().numpy()
    canvas, grid = panels(1, 2, height=3.2)
    tables = []
    for axes, named in zip(grid[0], networks.both, strict=True):
        entering = Tap(ends_of(named.network, split.images).final, "input")
        features = outputs(named.network, split.images, entering)[1].cpu().numpy()
        axes.set_title(f"{named.words}\nn = {len(labels):,} test samples")
        try:
            places = embedding(features)
        except RunError as error:
            say(axes, str(error))
            continue
        for number in np.unique(labels):
            members = places[labels == number]
            colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
            axes.scatter(*members.T, s=5, color=colour, alpha=0.7, linewidths=0)
            axes.annotate(
                str(number), np.median(members, axis=0), ha="center", va="center", weight="bold",
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            )  # fmt: skip
        bare(axes)
        axes.set(xlabel="t-SNE 1", ylabel="t-SNE 2")
        tables.append(pd.DataFrame({"network": named.letter, "label": labels, "x": places[:, 0], "y": places[:, 1]}))
    caption = (
        "t-SNE of the features that enter the final layer (after ReLU), one point per test sample, coloured and "
        "numbered by true class; distances between clusters mean nothing. To see: whether the classes of network B "
        "form tighter, better separated clusters than those of network A."
    )
    numbers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["network", "label", "x", "y"])
    return caption, canvas, numbers
