"""The ball that an attack stays in: random start, step, projection, and how far an image left it.

Another norm or update rule is another class with the methods of `Ball`, under its name in ``BALLS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from prs_lightning.errors import RunError
from prs_lightning.seeding import keyed_normal, keyed_uniform

TOLERANCE = 1e-6
"""Of the ball's radius, or of 1: the rounding of x + epsilon in float32 for pixels in [0, 1], with room to spare."""
NEWTON_STEPS = 4
"""Of `Ball.reach`; of images whose background is 0 or 1 the first overlooks what cannot move, two are near enough."""


@dataclass(frozen=True)
class Ball:
    """Images within ``epsilon`` of the clean one, and in [0, 1]; ``epsilon`` may be one for each image, (n,)."""

    epsilon: float | Tensor

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """The images themselves where they are in the ball, else ones of it that are near."""
        raise NotImplementedError

    def random_start(self, clean: Tensor, indices: Tensor, key: int) -> Tensor:
        """Uniform in the ball, then cut to [0, 1]; it follows from (key, index, pixel) alone."""
        raise NotImplementedError

    def steepest(self, gradient: Tensor) -> Tensor:
        """The offset of norm 1 along which the loss rises most; 0 where the gradient is 0 everywhere."""
        raise NotImplementedError

    def length(self, offsets: Tensor) -> Tensor:
        """The norm of each offset (n, ...), (n,)."""
        raise NotImplementedError

    def step(self, images: Tensor, gradient: Tensor, step_size: float | Tensor, clean: Tensor) -> Tensor:
        """The next iterates: the steepest ascent of that length, which may be each image's own, projected."""
        steepest = self.steepest(gradient)
        if isinstance(step_size, Tensor):
            return self.project(images + _per_sample(step_size, images) * steepest, clean)
        return self.project(images.add(steepest, alpha=step_size), clean)

    def reach(self, gradient: Tensor, rise: Tensor, clean: Tensor) -> Tensor:
        """The radius (n,) at which a linear loss of this gradient has risen by ``rise`` (n,); 0 if that is none.

        The loss rises most along clean + min(t |steepest|, room to 0 or 1), by a concave function of t whose pieces are
        linear: Newton's method from t = 0 never passes the root, and soon is there. (A ball in [0, 1] that is bounded
        by Croce & Hein 2020, "Minimally distorted adversarial examples", equation 7.)
        """
        along = self.steepest(gradient)
        slopes, most = (gradient * along).flatten(1), torch.where(gradient > 0, 1 - clean, clean).flatten(1)
        speeds, largest = along.abs().flatten(1), slopes.amax(1).clamp_min(torch.finfo(rise.dtype).tiny)
        slopes, rise = slopes / largest[:, None], rise / largest
        time = torch.zeros_like(rise)
        for _ in range(NEWTON_STEPS):
            moving = time[:, None] * speeds < most
            rate = (slopes * moving).sum(1)
            risen = (slopes * torch.where(moving, time[:, None], most / speeds.clamp_min(1e-30))).sum(1)
            time = time + ((rise - risen) / rate.clamp_min(1e-30)).clamp(0, 1e9)
        return self.length(torch.minimum(time[:, None] * speeds, most))

    def excess(self, images: Tensor, clean: Tensor) -> Tensor:
        """By how much each image leaves the ball or [0, 1], (n,); 0 or less if it does not, NaN if a pixel is."""
        beyond_range = torch.maximum(-images.flatten(1).amin(1), images.flatten(1).amax(1) - 1)
        return torch.maximum(self.length(images - clean) - self.epsilon, beyond_range)


@dataclass(frozen=True)
class LinfBall(Ball):
    """Every pixel within ``epsilon``; steps follow the gradient's sign."""

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        epsilon = _per_sample(self.epsilon, clean)
        return torch.clamp(images, (clean - epsilon).clamp_(0, 1), (clean + epsilon).clamp_(0, 1))

    def random_start(self, clean: Tensor, indices: Tensor, key: int) -> Tensor:
        noise = keyed_uniform(indices, clean[0].numel(), key).view(clean.shape)
        return self.project(clean + _per_sample(self.epsilon, clean) * (2 * noise - 1), clean)

    def steepest(self, gradient: Tensor) -> Tensor:
        """x <- clip(x + alpha sign(gradient)) (Madry et al. 2018, section 2.1)."""
        return gradient.sign()

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
        noise = keyed_normal(indices, pixels, key).to(clean.dtype).view(clean.shape)
        share = keyed_uniform(indices, 1, key ^ 1).squeeze(1) ** (1 / pixels)
        scale = self.epsilon * share / self.length(noise).clamp_min(torch.finfo(noise.dtype).tiny)
        return self.project(clean + noise * _per_sample(scale, noise), clean)

    def steepest(self, gradient: Tensor) -> Tensor:
        """x <- P(x + alpha gradient / ||gradient||); an image whose gradient is 0 stays where it is."""
        largest = gradient.abs().flatten(1).amax(1)
        # Divided twice: the square of a tiny gradient is 0.
        direction = gradient / _per_sample(torch.where(largest > 0, largest, 1), gradient)
        length = self.length(direction)
        return direction / _per_sample(torch.where(length > 0, length, 1), gradient)

    def length(self, offsets: Tensor) -> Tensor:
        return torch.linalg.vector_norm(offsets.flatten(1), dim=1)


@overload
def _per_sample(values: Tensor, images: Tensor) -> Tensor: ...
@overload
def _per_sample(values: float | Tensor, images: Tensor) -> float | Tensor: ...
def _per_sample(values: float | Tensor, images: Tensor) -> float | Tensor:
    """Values (n,) in the shape that multiplies images (n, ...); a number that is the same for all as it is."""
    return values.view(-1, *[1] * (images.ndim - 1)) if isinstance(values, Tensor) else values


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
