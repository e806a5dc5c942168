"""Figure 1: the plane through three images, its decision regions, decision boundaries and logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from prs_lightning.analysis.figures.inference import correct, outputs
from prs_lightning.analysis.figures.registry import Sizes, figure
from prs_lightning.analysis.figures.style import Drawing, class_colour, panels
from prs_lightning.analysis.networks import NetworkPair
from prs_lightning.data import Split, to_unit_range
from prs_lightning.errors import RunError
from prs_lightning.models.base import ImageClassifier
from prs_lightning.regions import region_keys
from prs_lightning.regions.sorting import group_keys

MARGIN = 0.35
"""How far the plane reaches beyond the three images, as a share of the triangle's width and height."""


class Plane(NamedTuple):
    """``corners`` (3, 2) are the images' places; ``u``, ``v`` (R,) the grid; all in L2 distance of images in [0, 1]."""

    origin: Tensor
    directions: Tensor
    corners: Tensor
    u: Tensor
    v: Tensor

    def points(self) -> Tensor:
        """The images of the grid, (R * R, C, H, W), v outermost; outside the triangle pixels may leave [0, 1]."""
        places = torch.cartesian_prod(self.v, self.u).flip(1)
        return (self.origin.flatten() + places @ self.directions).view(-1, *self.origin.shape)


def plane_through(images: Tensor, resolution: int) -> Plane:
    """The plane through three images (3, C, H, W) in [0, 1], by Gram-Schmidt from the first one.

    Raises:
        RunError: two images are equal, or all three lie on a line.
    """
    flat = images.flatten(1).double()
    first, second = flat[1] - flat[0], flat[2] - flat[0]
    along = first / first.norm().clamp(min=1e-12)
    across = second - (second @ along) * along
    if first.norm() < 1e-6 or across.norm() < 1e-6:
        raise RunError("the three images lie on one line: there is no plane through them")
    directions = torch.stack([along, across / across.norm()])
    corners = (flat - flat[0]) @ directions.T
    low, high = corners.min(dim=0).values, corners.max(dim=0).values
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    u, v = (torch.linspace(float(low[i]), float(high[i]), resolution) for i in (0, 1))
    return Plane(images[0].float(), directions.float(), corners.float(), u, v)


def three_images(networks: NetworkPair, looked_at: int = 200) -> Tensor:
    """Places in the test set of three images of different classes, each classified correctly by both networks.

    Raises:
        RunError: there are no three among the first ``looked_at``.
    """
    split = Split(networks.test.images[:looked_at], networks.test.labels[:looked_at])
    if len(split.labels.unique()) < 3:  # a set in the order of its classes
        step = max(1, len(networks.test.labels) // looked_at)
        split = Split(networks.test.images[::step], networks.test.labels[::step])
    else:
        step = 1
    known = correct(networks.a.network, split) & correct(networks.b.network, split)
    firsts = [int((known & (split.labels == label)).nonzero()[0]) for label in split.labels[known].unique().tolist()]
    if len(firsts) < 3:
        raise RunError(f"both networks are right on {len(firsts)} classes only: the plane needs an image of three")
    return torch.tensor(firsts[:3]) * step


def _region_tints(predicted: np.ndarray, region: np.ndarray) -> np.ndarray:
    """RGB (R, R, 3): the hue of the predicted class, in a lightness that is the region's own."""
    hues = np.array([to_rgb(class_colour(label)) for label in range(int(predicted.max()) + 1)])[predicted]
    # The golden ratio spreads the lightness of regions with neighbouring numbers.
    light = 0.25 + 0.6 * ((region * 0.6180339887) % 1.0)[..., None]
    return hues * (1 - light) + light


def _boundaries(axes: Axes, plane: Plane, predicted: np.ndarray, colour: str) -> None:
    for label in np.unique(predicted):
        inside = (predicted == label).astype(float)
        if 0 < inside.mean() < 1:
            axes.contour(plane.u, plane.v, inside, levels=[0.5], colors=colour, linewidths=0.9)


def _images(axes: Axes, plane: Plane, images: Tensor, labels: list[int]) -> None:
    for place, image, label in zip(plane.corners.tolist(), images, labels, strict=True):
        pixels = image.permute(1, 2, 0).squeeze(-1).numpy()
        thumbnail = OffsetImage(pixels, zoom=0.5, cmap="gray" if pixels.ndim == 2 else None)
        axes.plot(*place, "o", color="white", markeredgecolor="black", markersize=4)
        axes.add_artist(
            AnnotationBbox(thumbnail, place, xybox=(0, 15), boxcoords="offset points", pad=0.1, annotation_clip=False)
        )
        axes.annotate(f"{label}", place, (12, 10), textcoords="offset points", fontsize=7, weight="bold")


def on_plane(network: ImageClassifier, plane: Plane) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted class, number of the penultimate layer's region, and highest logit on the grid, each (R, R)."""
    logits, pre_activations = outputs(network, plane.points())
    highest, predicted = logits.max(dim=1)
    _, region = group_keys(region_keys(pre_activations))
    shape = (len(plane.v), len(plane.u))
    return tuple(values.cpu().numpy().reshape(shape) for values in (predicted, region, highest))  # type: ignore[return-value]


@figure("1", "Decision regions on a plane through three images", needs="networks")
def figure_1(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """Regions of the penultimate layer, decision boundaries and the highest logit, for both networks."""
    chosen = three_images(networks)
    images, labels = to_unit_range(networks.test.images[chosen].cpu()), networks.test.labels[chosen].tolist()
    plane = plane_through(images, sizes.plane)
    extent = (float(plane.u[0]), float(plane.u[-1]), float(plane.v[0]), float(plane.v[-1]))
    canvas, grid = panels(2, 2, height=2.7)
    numbers = []
    for row, named in enumerate(networks.both):
        predicted, region, highest = on_plane(named.network, plane)
        regions, logits = grid[row]
        regions.imshow(_region_tints(predicted, region), extent=extent, origin="lower", aspect="equal")
        drawn = logits.imshow(highest, extent=extent, origin="lower", aspect="equal", cmap="cividis")
        logits.contour(plane.u, plane.v, highest, levels=8, colors="white", linewidths=0.4, alpha=0.7)
        canvas.colorbar(drawn, ax=logits, label="highest logit", shrink=0.85)
        for axes, colour in ((regions, "black"), (logits, "black")):
            _boundaries(axes, plane, predicted, colour)
            _images(axes, plane, images, labels)
            axes.grid(False)
            axes.set(xlim=extent[:2], ylim=extent[2:], xlabel="L2 distance along the plane", ylabel="L2 distance")
        regions.set_title(f"{named.words}\n{region.max() + 1:,} regions at n = {region.size:,} points")
        logits.set_title(f"{named.letter}: highest logit and decision boundaries")
        v, u = np.meshgrid(plane.v.numpy(), plane.u.numpy(), indexing="ij")
        numbers.append(
            pd.DataFrame(
                {
                    "network": named.letter, "u": u.ravel(), "v": v.ravel(), "predicted_class": predicted.ravel(),
                    "region": region.ravel(), "highest_logit": highest.ravel(),
                }
            )
        )  # fmt: skip
    caption = (
        f"The plane through three test images (classes {labels[0]}, {labels[1]}, {labels[2]}). Left: a hue is a "
        "predicted class, a tint of it one decision region of the penultimate layer, a black line a decision "
        "boundary. Right: the highest logit. Points outside the triangle may leave the range of pixels. To see: "
        "whether network A cuts the plane into many small regions, network B covers it with few large ones, and its "
        "logits reach higher."
    )
    return caption, canvas, pd.concat(numbers, ignore_index=True)
