"""What is attacked after each epoch: a network and a test set in pixel units, in memory while it is small enough."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prs_lightning.attacks.gradient_noise import gradient_noise
from prs_lightning.attacks.network import AttackedNetwork, check_images
from prs_lightning.data.sources import Source, SplitSource
from prs_lightning.errors import ConfigError
from prs_lightning.network import PixelNetwork

IN_MEMORY = 2 * 2**30
"""Bytes of float32 images that are kept on the device; more are read from the data set batch by batch, each time."""


class Targets:
    """``network`` of images in [0, 1]; ``labels`` int64 (N,), and ``gather(rows)``, such images of some rows (n, ...).

    Args:
        model: the network as it was trained.
        source: the test set.
        device: to attack on.
        normalisation: mean and std per channel, where the test set is normalised; None: ``model`` takes images in
            [0, 1].

    Raises:
        ConfigError: images outside [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        device: torch.device,
        normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        self.model, self.source, self.device = model, source, device
        self.pixels = None if normalisation is None else PixelNetwork(model, *normalisation)
        self.network = self.pixels or model
        self.images: Tensor | None = None
        if isinstance(source, SplitSource) and isinstance(source.split.images, Tensor):  # in memory already, as uint8
            self.labels = source.split.labels
            return
        kept: list[Tensor] = []
        labels, size = [], 0
        for inputs, targets in source.batches():
            images = self._as_images(inputs)
            check_pixels(images, targets.to(device))
            labels.append(targets.to(device))
            size += images.numel() * images.element_size()
            kept = [*kept, images] if size <= IN_MEMORY else []
        self.labels = torch.cat(labels)
        if size <= IN_MEMORY:
            self.images = torch.cat(kept)

    def refuse_without_gradient(self) -> None:
        """Raise ConfigError for a network through which no gradient reaches its images."""
        few = torch.arange(min(2, len(self.labels)), device=self.device)
        AttackedNetwork(self.network, self.device).gradient(self.gather(few), torch.zeros_like(few))

    def without_reference(self) -> str | None:
        """Why no gradient can be had in float64, or None if it can."""
        few = torch.arange(min(2, len(self.labels)), device=self.device)
        try:
            gradient_noise(self.network, self.gather(few), torch.zeros_like(few))
        except ConfigError as error:
            return str(error)
        return None

    def _as_images(self, inputs: Tensor) -> Tensor:
        if not inputs.is_floating_point():
            raise ConfigError(f"test inputs are {inputs.dtype}: expected floating point images in [0, 1]")
        images = inputs.to(self.device, torch.float32)
        return images if self.pixels is None else self.pixels.pixels(images)

    def gather(self, rows: Tensor) -> Tensor:
        if self.images is not None:
            return self.images[rows]
        return self._as_images(self.source.gather(rows)[0])


def check_pixels(images: Tensor, labels: Tensor) -> None:
    """Raise ConfigError unless images lie in [0, 1]; says what to give for normalised ones."""
    try:
        check_images(images, labels)
    except ConfigError as error:
        raise ConfigError(
            f"test {error}, or give Robustness mean= and std= of the normalisation in the data"
        ) from error
