"""Images of any kind as uint8 pixels (C, H, W) of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from prs_lightning.errors import RunError

if TYPE_CHECKING:
    from PIL.Image import Image

GRAYSCALE = ("1", "L", "LA")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Modes of PIL with at most 8 bits per channel; others would be cut to 8 bits without a word."""


def resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """uint8 images (..., C, H, W) as (..., C, *size): bilinear, antialiased, the aspect not kept; None: as they are."""
    from torchvision.transforms.v2.functional import resize

    return images if size is None or tuple(images.shape[-2:]) == size else resize(images, list(size))


@dataclass(frozen=True)
class Pixels:
    """How images of files become pixels.

    Colour is made of grayscale by repeating it, grayscale of colour as PIL does (ITU-R 601-2 luma); palettes are
    looked up, transparency is dropped, of several frames the first is taken, and an orientation that a file only notes
    (EXIF) is left, as torchvision leaves it.

    Args:
        channels: 1 or 3.
        size: (height, width).
        given_channels, given_size: whether the user asked for them; if not, they are those of the first image, and an
            image that would lose its colour, or is of another size, is refused.
    """

    channels: int
    size: tuple[int, int]
    given_channels: bool
    given_size: bool

    @classmethod
    def like(cls, first: Image, name: str, channels: int | None, size: tuple[int, int] | None) -> Pixels:
        """As asked for, and what is None as the first image has it."""
        found = 1 if _kind(first, name) in GRAYSCALE else 3
        return cls(channels or found, size or first.size[::-1], channels is not None, size is not None)

    def of(self, image: Image, name: str) -> Tensor:
        """uint8 (channels, *size).

        Raises:
            RunError: an image that does not fit, or of more than 8 bits per channel; names it.
        """
        from torchvision.transforms.v2.functional import pil_to_tensor

        colour = _kind(image, name) not in GRAYSCALE
        if colour and self.channels == 1 and not self.given_channels:
            raise RunError(f"{name} has colour, but the first image has none: give data.channels=3, or 1 to drop it")
        if not self.given_size and image.size[::-1] != self.size:
            (height, width), (first_height, first_width) = image.size[::-1], self.size
            raise RunError(
                f"{name} is {height} x {width}, but the first image is {first_height} x {first_width}: give data.size, "
                "to which all are resized"
            )
        if "transparency" in image.info and image.mode == "P":
            image = image.convert("RGBA")
        return resized(pil_to_tensor(image.convert("L" if self.channels == 1 else "RGB")), self.size)


def _kind(image: Image, name: str) -> str:
    if image.mode not in (*GRAYSCALE, *COLOUR):
        raise RunError(f"{name} has mode {image.mode}: expected 8 bits per channel; convert it, on the scale you mean")
    return image.mode
