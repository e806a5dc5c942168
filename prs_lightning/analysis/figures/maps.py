"""Figures 11 and 13: feature maps by depth, and t-SNE of the penultimate features."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from prs_lightning.analysis.figures.inference import first_samples, outputs
from prs_lightning.analysis.figures.plane import three_images
from prs_lightning.analysis.figures.registry import Sizes, figure
from prs_lightning.analysis.figures.style import Drawing, class_colour, panels, say
from prs_lightning.analysis.networks import NetworkPair
from prs_lightning.data import to_unit_range
from prs_lightning.errors import RunError
from prs_lightning.models.base import ImageClassifier
from prs_lightning.regions.layers import watching
from prs_lightning.regions.sparsity import count_zeros

SIDE = 4
"""A montage shows the SIDE x SIDE channels with the largest mean."""


def relu_maps(network: ImageClassifier, image: Tensor, images: Tensor) -> list[tuple[Tensor, float]]:
    """Every ReLU output that is a map, in the order of the forward pass.

    Args:
        image: uint8 (1, C, H, W).
        images: uint8 (N, C, H, W).

    Returns:
        For each output its maps (channels, H, W) for ``image``, and the share of zeros over ``images``.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, nn.ReLU)]
    maps: list[Tensor] = []

    def keep(name: str, output: Tensor) -> None:
        if output.ndim == 4:
            maps.append(output[0].clone())

    with watching(network, names, keep):
        outputs(network, image)
    zeros, place = torch.zeros(len(maps), dtype=torch.float64), 0

    def count(name: str, output: Tensor) -> None:
        nonlocal place
        if output.ndim == 4:
            # An output returns once per batch: its place follows from the number of outputs in a pass.
            zeros[place % len(maps)] += int(count_zeros(output)) / output[0].numel()
            place += 1

    with watching(network, names, count):
        outputs(network, images)
    return [(found.cpu(), share) for found, share in zip(maps, (zeros / len(images)).tolist(), strict=True)]


def montage(maps: Tensor) -> tuple[np.ndarray, list[int]]:
    """The strongest channels of (channels, H, W) as one picture, scaled to a maximum of 1, with lines of NaN.

    Returns:
        The picture, and the channels in it, row by row.
    """
    shown = min(SIDE, int(len(maps) ** 0.5))
    strongest = maps.mean(dim=(1, 2)).sort(descending=True, stable=True).indices[: shown**2]
    height, width = maps.shape[1:]
    # Lines of a fixed share of the picture, so that small maps are not drowned in them.
    line = max(1, height // 16)
    picture = np.full(((height + line) * shown - line, (width + line) * shown - line), np.nan)
    scale = float(maps.max()) or 1.0
    for place, channel in enumerate(strongest.tolist()):
        top, left = (place // shown) * (height + line), (place % shown) * (width + line)
        picture[top : top + height, left : left + width] = maps[channel].numpy() / scale
    return picture, strongest.tolist()


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
    rows = []
    for row, (named, maps) in enumerate(zip(networks.both, found, strict=True)):
        pixels = to_unit_range(image.cpu())[0].permute(1, 2, 0).squeeze(-1).numpy()
        grid[row, 0].imshow(pixels, cmap="gray" if pixels.ndim == 2 else None)
        grid[row, 0].set_title("image", fontsize=6)
        grid[row, 0].set_ylabel(f"network {named.letter}")
        for axes, depth in zip(grid[row, 1:], shown, strict=True):
            features, zeros = maps[depth]
            picture, channels = montage(features)
            axes.imshow(picture, cmap="cividis", vmin=0, vmax=1)
            axes.set_title(f"ReLU {depth + 1}, {features.shape[0]} maps\n{zeros:.0%} zeros", fontsize=6)
            rows += [
                {
                    "network": named.letter, "depth": depth + 1, "channel": channel,
                    "mean": float(features[channel].mean()), "largest": float(features[channel].max()),
                    "zeros_in_map": float((features[channel] == 0).double().mean()), "zeros_in_layer": zeros,
                    "n": len(split.labels),
                }
                for channel in channels
            ]  # fmt: skip
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
    words = networks.words
    caption = (
        f"One test image (class {int(networks.test.labels[chosen])}) and its up to {SIDE**2} strongest feature maps "
        f"after each ReLU, brightness scaled to the layer's maximum; share of zeros over n = {len(split.labels):,} "
        f"training samples. {words}. To see: whether network B's maps become sparser with depth than network A's."
    )
    return caption, canvas, pd.DataFrame(rows)


def embedding(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten & Hinton 2008) of (N, D) in two dimensions, started from the principal components.

    Raises:
        RunError: fewer than 5 samples, or features that are all alike.
    """
    from sklearn.manifold import TSNE

    if len(features) < 5 or np.ptp(features, axis=0).max() == 0:
        raise RunError(f"t-SNE of {len(features)} samples: expected at least 5, and features that are not all alike")
    perplexity = min(30.0, (len(features) - 1) / 4)
    found: np.ndarray = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
    return found


@figure("13", "t-SNE of the penultimate features", needs="networks")
def figure_13(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """t-SNE of the features that enter the final layer, coloured by class, for both networks."""
    split = first_samples(networks.test, sizes.embedded)
    labels = split.labels.cpu().numpy()
    canvas, grid = panels(1, 2, height=3.2)
    tables = []
    for axes, named in zip(grid[0], networks.both, strict=True):
        with torch.no_grad():
            features = named.network.activation(outputs(named.network, split.images)[1]).cpu().numpy()
        axes.set_title(f"{named.words}\nn = {len(labels):,} test samples")
        try:
            places = embedding(features)
        except RunError as error:
            say(axes, str(error))
            continue
        for label in np.unique(labels):
            members = places[labels == label]
            axes.scatter(*members.T, s=5, color=class_colour(int(label)), alpha=0.7, linewidths=0, gid=f"class {label}")
            axes.annotate(
                str(label), np.median(members, axis=0), ha="center", va="center", weight="bold", fontsize=8,
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            )  # fmt: skip
        axes.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
        axes.grid(False)
        tables.append(pd.DataFrame({"network": named.letter, "label": labels, "x": places[:, 0], "y": places[:, 1]}))
    caption = (
        "t-SNE of the features that enter the final layer (after ReLU), one point per test sample, coloured and "
        "numbered by true class; distances between clusters mean nothing. To see: whether the classes of network B "
        "form tighter, better separated clusters than those of network A."
    )
    numbers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["network", "label", "x", "y"])
    return caption, canvas, numbers
