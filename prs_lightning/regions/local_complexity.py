"""Local complexity: how many boundaries of a layer's units cross a small ball around a sample.

Humayun, Balestriero & Baraniuk 2024, "Deep networks always grok and here is why", section 2 and figure 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prs_lightning.errors import ConfigError
from prs_lightning.network import MeasuredNetwork, PixelNetwork
from prs_lightning.regions.layers import Tap, tapping
from prs_lightning.regions.signs import sign_patterns
from prs_lightning.seeding import draw_key, keyed_generator, keyed_normal


@dataclass(frozen=True)
class Balls:
    """What lies around each image: the vertices x + r v and x - r v of a cross-polytope, v a random orthonormal frame.

    They are not clipped: beside black or white pixels they leave [0, 1], by ``radius`` at most, where a network is
    defined all the same. Clipped, half of the ball would be missing where images are black.

    Args:
        points: even, 2 or more.
        radius: Euclidean, in pixel units of images in [0, 1].
        normalisation: mean and std per channel, where inputs are normalised images; None: they lie in [0, 1].

    Raises:
        ConfigError: values that are none of these.
    """

    points: int = 16
    radius: float = 0.2
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None

    def __post_init__(self) -> None:
        if self.points < 2 or self.points % 2:
            raise ConfigError(f"points={self.points}: expected an even number, 2 or more: they lie opposite each other")
        if not self.radius > 0:
            raise ConfigError(f"radius={self.radius}: expected a number above 0, in pixel units")

    def of_images(self, model: nn.Module) -> nn.Module:
        """``model`` as a network of images in [0, 1]."""
        return model if self.normalisation is None else PixelNetwork(model, *self.normalisation)

    def images(self, inputs: Tensor, model: nn.Module) -> Tensor:
        """Inputs of ``model``, float (N, ...), as images in [0, 1].

        Raises:
            ConfigError: no images in [0, 1], or fewer pixels than directions.
        """
        if not inputs.is_floating_point():
            raise ConfigError(f"inputs are {inputs.dtype}: local complexity is of floating point images; leave it out")
        images = inputs if self.normalisation is None else PixelNetwork(model, *self.normalisation).pixels(inputs)
        low, high = (float(bound) for bound in images.aminmax())
        if low < 0 or high > 1:
            raise ConfigError(
                f"training images lie in [{low:g}, {high:g}]: expected [0, 1], or give LocalComplexity mean= and std= "
                "of the normalisation in the data"
            )
        if self.points > 2 * (pixels := images[0].numel()):
            raise ConfigError(f"points={self.points} of images of {pixels} pixels: expected {2 * pixels} at most")
        return images

    def around(self, images: Tensor, indices: Tensor, key: int) -> Tensor:
        """The points around each image, (N, points, ...); directions follow from ``key`` and each one's index."""
        frames = self.radius * random_frames(indices, self.points // 2, images[0].numel(), key)
        offsets = torch.cat([frames, -frames], dim=1).to(images.dtype)
        return images.unsqueeze(1) + offsets.view(len(images), self.points, *images.shape[1:])


def random_frames(indices: Tensor, vectors: int, width: int, key: int) -> Tensor:
    """Orthonormal vectors in random directions for each sample, float64 (N, vectors, width).

    Normal variates, made orthonormal: no direction is preferred. A sample's follow from ``key`` and its index alone,
    however samples are batched.
    """
    normal = keyed_normal(indices, vectors * width, key).view(len(indices), vectors, width)
    return torch.linalg.qr(normal.mT).Q.mT


def crossing_units(z: Tensor, points: int) -> Tensor:
    """In how many units the pre-activations of the points around each sample differ in sign: int64 (N,).

    Args:
        z: (N * points, D) or (N * points, C, H, W), those of one sample beside each other.

    >>> crossing_units(torch.tensor([[1.0, 2.0, -3.0], [-1.0, 2.0, -3.0]]), points=2)
    tensor([1])
    """
    patterns = sign_patterns(z)
    patterns = patterns.view(-1, points, patterns.shape[1])
    return (patterns.any(dim=1) & ~patterns.all(dim=1)).sum(dim=1)


def crossings(
    model: nn.Module, tap: Tap, inputs: Tensor, indices: Tensor, balls: Balls, *, seed: Sequence[int] = (0,)
) -> Tensor:
    """How many boundaries of a layer's units cross the ball around each sample: int64 (N,), at most the units.

    A boundary is seen if it parts the ball's points: all that cross their hull, for a layer that is linear there, and
    fewer than cross the ball.

    Args:
        model: in eval mode.
        tap: where the layer's pre-activations are read.
        inputs: of ``model``, float (N, ...), on its device.
        indices: int (N,), by which directions are keyed, with ``seed``.

    Raises:
        ConfigError: as `Balls.images`.
        RunError: a pre-activation is NaN.
    """
    found: list[Tensor] = []
    key = draw_key(keyed_generator(*seed))
    points = balls.around(balls.images(inputs, model), indices.to(inputs.device), key).flatten(0, 1)
    with tapping(model, [tap], lambda _, z: found.append(crossing_units(z, balls.points))), torch.no_grad():
        MeasuredNetwork(balls.of_images(model), inputs.device).run(points)
    return found[-1]
