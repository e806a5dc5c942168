"""The ball that an attack stays in: random start, step, projection, and how far an image left it.

Another norm or update rule is another class with the methods of `Ball`, under its name in ``BALLS``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prs_lightning.errors import RunError
from prs_lightning.seeding import keyed_normal, keyed_uniform

TOLERANCE = 1e-6
"""Of the ball's radius, or of 1: the rounding of x + epsilon in float32 for pixels in [0, 1], with room to spare."""


@dataclass(frozen=True)
class Ball:
    """Images within ``epsilon`` of the clean one, and in [0, 1]."""

    epsilon: float

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """The images themselves where they are in the ball, else ones of it that are near."""
        raise NotImplementedError

    def random_start(self, clean: Tensor, indices: Tensor, key: int) -> Tensor:
        """Uniform in the ball, then cut to [0, 1]; it follows from (key, index, pixel) alone."""
        raise NotImplementedError

    def step(self, images: Tensor, gradient: Tensor, step_size: float, clean: Tensor) -> Tensor:
        """The next iterates: the steepest ascent of that length in the ball's norm, projected."""
        raise NotImplementedError

    def length(self, offsets: Tensor) -> Tensor:
        """The norm of each offset (n, ...), (n,)."""
        raise NotImplementedError

    def excess(self, images: Tensor, clean: Tensor) -> Tensor:
        """By how much each image leaves the ball or [0, 1], (n,); 0 or less if it does not, NaN if a pixel is."""
        beyond_range = torch.maximum(-images.flatten(1).amin(1), images.flatten(1).amax(1) - 1)
        return torch.maximum(self.length(images - clean) - self.epsilon, beyond_range)


@dataclass(frozen=True)
class LinfBall(Ball):
    """Every pixel within ``epsilon``; steps follow the gradient's sign."""

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        return torch.clamp(images, (clean - self.epsilon).clamp_(0, 1), (clean + self.epsilon).clamp_(0, 1))

    def random_start(self, clean: Tensor, indices: Tensor, key: int) -> Tensor:
        noise = keyed_uniform(indices, clean[0].numel(), key).view(clean.shape)
        return self.project(clean + self.epsilon * (2 * noise - 1), clean)

    def step(self, images: Tensor, gradient: Tensor, step_size: float, clean: Tensor) -> Tensor:
        """x <- clip(x + alpha sign(gradient)) (Madry et al. 2018, section 2.1)."""
        return self.project(images.add(gradient.sign(), alpha=step_size), clean)

    def length(self, offsets: Tensor) -> Tensor:
        return offsets.abs().flatten(1).amax(1)


@dataclass(frozen=True)
class L2Ball(Ball):
    """The root of the sum of squares over all pixels within ``epsilon``; steps follow the gradient's direction."""

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """Scaled back to the sphere, then cut to [0, 1], which only shortens the offset of each pixel."""
        offsets = images - clean
        factor = (self.epsilon / self.length(offsets).clamp_min(torch.finfo(offsets.dtype).tiny)).clamp_max(1)
        return (clean + offsets * _per_sample(factor, offsets)).clamp_(0, 1)

    def random_start(self, clean: Tensor, indices: Tensor, key: int) -> Tensor:
        """A uniform direction, and a radius whose d-th power is uniform, d being the number of pixels."""
        pixels = clean[0].numel()
        noise = keyed_normal(indices, pixels, key).view(clean.shape)
        share = keyed_uniform(indices, 1, key ^ 1).squeeze(1) ** (1 / pixels)
        scale = self.epsilon * share / self.length(noise).clamp_min(torch.finfo(noise.dtype).tiny)
        return self.project(clean + noise * _per_sample(scale, noise), clean)

    def step(self, images: Tensor, gradient: Tensor, step_size: float, clean: Tensor) -> Tensor:
        """x <- P(x + alpha gradient / ||gradient||); an image whose gradient is 0 stays where it is."""
        largest = gradient.abs().flatten(1).amax(1)
        # Divided twice: the square of a tiny gradient is 0.
        direction = gradient / _per_sample(torch.where(largest > 0, largest, 1), gradient)
        length = self.length(direction)
        direction = direction / _per_sample(torch.where(length > 0, length, 1), gradient)
        return self.project(images + step_size * direction, clean)

    def length(self, offsets: Tensor) -> Tensor:
        return torch.linalg.vector_norm(offsets.flatten(1), dim=1)


def _per_sample(values: Tensor, images: Tensor) -> Tensor:
    """Values (n,) in the shape that multiplies images (n, ...)."""
    return values.view(-1, *[1] * (images.ndim - 1))


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball}
"""By the norm of the threat model."""


def check_inside(excess: Tensor, epsilon: float) -> None:
    """Raise RunError if an adversarial image left its ball; the post-condition of every attack."""
    outside = ~(excess <= TOLERANCE * max(1, epsilon))  # written so that NaN counts as outside
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise RunError(
            f"the adversarial image of row {row} leaves the ball of epsilon={epsilon} or [0, 1] by "
            f"{float(excess[row]):.3g} ({int(outside.sum())} rows do): the attack is wrong, do not use its result"
        )
