"""What measuring a network needs and must not leave behind: modes and precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prs_lightning.measures import on_bar

if TYPE_CHECKING:  # regions.measure needs no Lightning
    from lightning.pytorch import LightningModule


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put every submodule into eval mode, and each back into its own mode at the end."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def float32(device: torch.device) -> Iterator[None]:
    """Compute in true float32: no autocast and no TF32, whatever the training uses.

    Sign patterns and exactly zero gradients are properties of float32 arithmetic, so a measure must not depend on
    the precision that the training loop was given.
    """
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


def log_measure(module: LightningModule, name: str, value: Tensor | float) -> None:
    """Log a value that is the same on all processes already: the maximum of equal values is exactly that value."""
    module.log(name, value, prog_bar=on_bar(name), sync_dist=True, reduce_fx="max")
