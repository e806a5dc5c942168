"""What measuring a network needs and must not leave behind: modes, precision, eager execution, random states."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
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


def _operations() -> list[Any]:
    """Those whose float32 torch may compute in less: on a GPU in TF32, on a CPU in bfloat16 or TF32."""
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    return [backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


@contextmanager
def float32(device: torch.device) -> Iterator[None]:
    """Compute in true float32: no autocast, no TF32 and no bfloat16 inside, whatever the training uses.

    Sign patterns and exactly zero gradients are properties of float32 arithmetic, so a measure must not depend on
    the precision that the training loop was given, nor on ``torch.set_float32_matmul_precision``.
    """
    before = [operation.fp32_precision for operation in _operations()]
    for operation in _operations():
        operation.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for operation, precision in zip(_operations(), before, strict=True):
            operation.fp32_precision = "none"  # which takes the setting of its backend, where that is what it had
            if operation.fp32_precision != precision:
                operation.fp32_precision = precision


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Put the global random states of torch, its accelerators, numpy and Python back at the end."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def shortest(value: Tensor) -> str:
    """The shortest decimal that gives the same float32 again."""
    return np.format_float_positional(np.float32(value.item()), trim="-")


def now(device: torch.device) -> float:
    """The clock in seconds, after all that the device was given is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def log_measure(module: LightningModule, name: str, value: Tensor | float) -> None:
    """Log a value that is the same on all processes already: the maximum of equal values is exactly that value.

    Its name is noted for `taken_measures`.
    """
    module.__dict__.setdefault("_taken_measures", set()).add(name)
    module.log(name, value, prog_bar=on_bar(name), sync_dist=True, reduce_fx="max", on_step=False, on_epoch=True)


def taken_measures(module: LightningModule) -> set[str]:
    """The names of the measures that were logged since this was last asked: a module may log others of its own."""
    return module.__dict__.pop("_taken_measures", set())
