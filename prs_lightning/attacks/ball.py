"""The ball that an attack stays in: random start, step, projection, and how far an image left it.

Another norm or update rule is another class with the methods of `LinfBall`, under its name in ``BALLS``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prs_lightning.errors import RunError
from prs_lightning.seeding import keyed_uniform

TOLERANCE = 1e-6
"""Of the ball's radius: the rounding of x + epsilon in float32 for pixels in [0, 1], with room to spare."""


@dataclass(frozen=True)
class LinfBall:
    """Images within ``epsilon`` of the clean one in every pixel, and in [0, 1]; steps follow the gradient's sign."""

    epsilon: float

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """The nearest images of the ball."""
        return torch.clamp(images, (clean - self.epsilon).clamp_(0, 1), (clean + self.epsilon).clamp_(0, 1))

    def random_start(self, clean: Tensor, indices: Tensor, key: int) -> Tensor:
        """Uniform in the cube of the ball, then cut to [0, 1]; it follows from (key, index, pixel) alone."""
        noise = keyed_uniform(indices, clean[0].numel(), key).view(clean.shape)
        return self.project(clean + self.epsilon * (2 * noise - 1), clean)

    def step(self, images: Tensor, gradient: Tensor, step_size: float, clean: Tensor) -> Tensor:
        """x <- clip(x + alpha sign(gradient)) (Madry et al. 2018, section 2.1)."""
        return self.project(images.add(gradient.sign(), alpha=step_size), clean)

    def excess(self, images: Tensor, clean: Tensor) -> Tensor:
        """By how much each image leaves the ball or [0, 1], (n,); 0 or less if it does not, NaN if a pixel is."""
        beyond_ball = (images - clean).abs().flatten(1).amax(1) - self.epsilon
        beyond_range = torch.maximum(-images.flatten(1).amin(1), images.flatten(1).amax(1) - 1)
        return torch.maximum(beyond_ball, beyond_range)


BALLS = {"linf": LinfBall}
"""By the norm of the threat model."""


def check_inside(excess: Tensor, epsilon: float) -> None:
    """Raise RunError if an adversarial image left its ball; the post-condition of every attack."""
    outside = ~(excess <= TOLERANCE)  # written so that NaN counts as outside
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise RunError(
            f"the adversarial image of row {row} leaves the ball of epsilon={epsilon} or [0, 1] by "
            f"{float(excess[row]):.3g} ({int(outside.sum())} rows do): the attack is wrong, do not use its result"
        )
