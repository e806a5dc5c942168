"""What measuring a network needs and must not leave behind: modes, precision, freed memory."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prs_lightning.measures import on_bar

if TYPE_CHECKING:  # regions.measure needs no Lightning
    from lightning.pytorch import LightningModule

# Names and numbers of malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


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


def keep_freed_memory() -> bool:
    """Ask glibc to keep large freed blocks for this process instead of giving them back to the system at once.

    Activations of some 10 MB would otherwise be mapped, and their pages cleared, anew for every layer of every batch:
    training and measuring on a CPU is then about a sixth slower. Numbers do not change. True if glibc agreed; other C
    libraries are left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)
