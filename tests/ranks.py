"""Two processes of one training on this machine, without a launcher."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch


def as_rank(rank: int, port: int, warning: Literal["error", "ignore"] = "error") -> None:
    """Tell Lightning that this process is one of two, and pytest's filters what to do about warnings here."""
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank)
    )
    warnings.simplefilter(warning)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)


def on_two_processes(task: Callable[[int, int, str], None], folder: Path) -> list[Any]:
    """Run ``task(rank, port, folder)``, which saves what it found as ``<rank>.pt``; what both found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_to_its_end, (task, port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def _to_its_end(rank: int, task: Callable[[int, int, str], None], port: int, folder: str) -> None:
    task(rank, port, folder)
    if torch.distributed.is_initialized():  # else a thread of gloo's may still run at the exit, which aborts it
        torch.distributed.destroy_process_group()
