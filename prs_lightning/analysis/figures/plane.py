"""Figure 1: the plane through three images, its decision regions, decision boundaries and logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.colors import to_rgb
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from prs_lightning.analysis.figures.inference import outputs
from prs_lightning.analysis.figures.registry import Drawing, Sizes, figure
from prs_lightning.analysis.figures.style import CLASS_COLOURS, panels
from prs_lightning.analysis.networks import NetworkPair
from prs_lightning.data import to_unit_range
from prs_lightning.errors import RunError
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

    @property
    def places(self) -> Tensor:
        """(u, v) of the points of the grid, (R * R, 2), v outermost."""
        return torch.cartesian_prod(self.v, self.u).flip(1)

    def points(self) -> Tensor:
        """The images at ``places``, (R * R, C, H, W); outside the triangle pixels may leave [0, 1]."""
        return (self.origin.flatten() + self.places @ self.directions).view(-1, *self.origin.shape)


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
    images, labels = networks.test
    places = torch.arange(len(labels))[:looked_at]
    if len(labels[places].unique()) < 3:  # a set in the order of its classes
        places = torch.arange(0, len(labels), max(1, len(labels) // looked_at))
    predicted = [outputs(named.network, images[places])[0].argmax(dim=1).to(labels.device) for named in networks.both]
    known = places[((predicted[0] == labels[places]) & (predicted[1] == labels[places])).cpu()]
    classes, firsts = np.unique(labels[known].cpu(), return_index=True)
    if len(classes) < 3:
        raise RunError(f"both networks are right on {len(classes)} classes only: the plane needs an image of three")
    return known[firsts[:3]]


def _region_tints(predicted: np.ndarray, region: np.ndarray) -> np.ndarray:
    """RGB (R, R, 3): the hue of the predicted class, in a lightness that is the region's own."""
    hues = np.array([to_rgb(colour) for colour in CLASS_COLOURS])[predicted % len(CLASS_COLOURS)]
    # The golden ratio spreads the lightness of regions with neighbouring numbers.
    light = 0.25 + 0.6 * ((region * 0.6180339887) % 1.0)[..., None]
    return hues * (1 - light) + light


@figure("1", "Decision regions on a plane through three images", needs="networks")
def figure_1(networks: NetworkPair, *, sizes: Sizes) -> Drawing:
    """Regions of the penultimate layer, decision boundaries and the highest logit, for both networks."""
    chosen = three_images(networks)
    images, labels = to_unit_range(networks.test.images[chosen].cpu()), networks.test.labels[chosen].tolist()
    plane = plane_through(images, sizes.plane)
    extent = (float(plane.u[0]), float(plane.u[-1]), float(plane.v[0]), float(plane.v[-1]))
    look: dict[str, Any] = {"extent": extent, "origin": "lower", "aspect": "equal"}
    canvas, grid = panels(2, 2, height=2.7)
    tables = []
    for (left, right), named in zip(grid, networks.both, strict=True):
        logits, pre_activations = outputs(named.network, plane.points())
        values = (*logits.max(dim=1), group_keys(region_keys(pre_activations))[1])
        highest, predicted, region = (found.cpu().numpy().reshape(sizes.plane, sizes.plane) for found in values)
        left.imshow(_region_tints(predicted, region), **look)
        left.set_title(f"{named.words}\n{region.max() + 1:,} regions at n = {region.size:,} points")
        drawn = right.imshow(highest, cmap="cividis", **look)
        right.contour(plane.u, plane.v, highest, levels=8, colors="white", linewidths=0.4, alpha=0.7)
        right.set_title(f"{named.letter}: highest logit and decision boundaries")
        canvas.colorbar(drawn, ax=right, label="highest logit", shrink=0.85)
        classes = np.unique(predicted)
        for axes in (left, right):
            for label in classes if len(classes) > 1 else ():
                inside = (predicted == label).astype(float)
                axes.contour(plane.u, plane.v, inside, levels=[0.5], colors="black", linewidths=0.9)
            for place, image, label in zip(plane.corners.tolist(), images, labels, strict=True):
                axes.plot(*place, "o", color="white", markeredgecolor="black", markersize=4)
                thumbnail = OffsetImage(image.permute(1, 2, 0).numpy(), zoom=0.5, cmap="gray")
                where: dict[str, Any] = {"xybox": (0, 15), "boxcoords": "offset points"}
                axes.add_artist(AnnotationBbox(thumbnail, place, pad=0.1, annotation_clip=False, **where))
                axes.annotate(f"{label}", place, (12, 10), textcoords="offset points", weight="bold")
            axes.grid(False)
            axes.set(xlim=extent[:2], ylim=extent[2:], xlabel="L2 distance along the plane", ylabel="L2 distance")
        u, v = plane.places.numpy().T
        numbers = {"u": u, "v": v, "predicted_class": predicted.ravel(), "region": region.ravel()}
        tables.append(pd.DataFrame({"network": named.letter, **numbers, "highest_logit": highest.ravel()}))
    caption = (
        f"The plane through three test images (classes {labels[0]}, {labels[1]}, {labels[2]}). Left: a hue is a "
        "predicted class, a tint of it one decision region of the penultimate layer, a black line a decision "
        "boundary. Right: the highest logit. Points outside the triangle may leave the range of pixels. To see: "
        "whether network A cuts the plane into many small regions, network B covers it with few large ones, and its "
        "logits reach higher."
    )
    return caption, canvas, pd.concat(tables, ignore_index=True)
