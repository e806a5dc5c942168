"""Other people's errors: memory, devices, loggers, W&B; and what happens where nothing is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import wandb
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from tests.faults.frame import End, Fault, Place
from tests.networks import SmallNetwork

ONLINE = ("wandb.mode=online", "logger=wandb")


def broken_network(when: Callable[[SmallNetwork], bool], fault: Callable[[], object]) -> Callable[[Place], None]:
    """A network that fails in a forward pass of some kind."""
    logits = SmallNetwork.logits

    def failing(network: SmallNetwork, images: Tensor) -> Tensor:
        # The eight samples with which networks are tried out do not fill any memory.
        if len(images) > 8 and when(network):
            fault()
        return logits(network, images)

    return lambda place: place.patch.setattr(SmallNetwork, "logits", failing)


def all_memory() -> Tensor:
    return torch.empty(2**60)


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def no_key(place: Place) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        place.patch.delenv(name, raising=False)
    place.patch.setenv("NETRC", str(place.folder.parent / "no-netrc"))
    wandb.teardown()  # or it remembers what it found before


def short_key(place: Place) -> None:
    no_key(place)
    place.patch.setenv("WANDB_API_KEY", "short")


def file_in_the_way(place: Place) -> None:
    (place.cut.path / "csv").write_text("no folder")


def csv_breaks(place: Place) -> None:
    place.patch.setattr(CSVLogger, "log_metrics", raising(OSError("the server went away")))


def logged_nothing_more(place: Place) -> None:
    assert not list(place.cut.path.glob("csv/version_*/metrics.csv"))


FAULTS = [
    Fault("nothing, trained", End.GOES_ON),
    Fault("nothing, looked at", End.TOLD, "1 finished.* 1 interrupted", command=("status",)),
    Fault("nothing, analysed", End.TOLD, "2 runs", command=("analyze",)),
    Fault(
        "a run directory of another config", End.REFUSED, "another config",
        command=("train", "epochs=4", "run_dir=CUT"),
    ),
    Fault(
        "memory, in training", End.FAILED, "out of memory while training, 20 samples at a time .*: lower batch_size=20",
        broken_network(lambda network: network.training, all_memory),
    ),
    Fault(
        "memory, in the measuring pass", End.FAILED,
        "out of memory while measuring, 200 samples at a time .*: lower data.measuring_batch_size=200",
        broken_network(lambda network: not network.training and not torch.is_grad_enabled(), all_memory),
    ),
    Fault(
        "memory, in an attack", End.FAILED,
        "out of memory while attacking, 128 samples at a time .*: lower callbacks.robustness.batch_size=128",
        broken_network(lambda network: not network.training and torch.is_grad_enabled(), all_memory),
    ),
    Fault(
        "memory, of Python", End.FAILED, "out of memory while training",
        broken_network(lambda network: network.training, raising(MemoryError())),
    ),
    Fault(
        "a GPU, in training", End.FAILED, "the device failed while training, 20 samples .*illegal memory access",
        broken_network(
            lambda network: network.training,
            raising(torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors")),
        ),
    ),
    Fault(
        "a process that reads images", End.FAILED, "lower data.workers",
        broken_network(
            lambda network: network.training,
            raising(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")),
        ),
    ),
    Fault("W&B online without a key", End.REFUSED, "no key of W&B: run `wandb login`", no_key, ("train", *ONLINE)),
    Fault("W&B online with half a key", End.REFUSED, "WANDB_API_KEY invalid", short_key, ("train", *ONLINE)),
    Fault(
        "a project that W&B refuses", End.REFUSED, "wandb.project=a/b: expected a name",
        command=("train", "logger=wandb", "wandb.project=a/b"),
    ),
    Fault(
        "an empty tag of W&B", End.REFUSED, r"wandb.tags=\[''\]: expected a list, each a text of at most 64",
        command=("train", "logger=wandb", "wandb.tags=['']"),
    ),
    Fault(
        "a long tag of W&B", End.REFUSED, "at most 64 characters",
        command=("train", "logger=wandb", f"wandb.tags=[{'t' * 65}]"),
    ),
    Fault(
        "a logger that cannot begin", End.INTERRUPTED, "CSVLogger cannot begin .*logger=none",
        file_in_the_way, ("train", "logger=csv"),
    ),
    Fault(
        "a logger that breaks in training", End.GOES_ON, r"warning: CSVLogger logs no more \(the server went away\)",
        csv_breaks, ("train", "logger=csv"), expect=logged_nothing_more,
    ),
    Fault(
        "W&B at the end", End.GOES_ON, r"warning: W&B could not finish \(lost\); the run is whole",
        lambda place: place.patch.setattr(wandb, "finish", raising(ConnectionResetError("lost"))),
    ),
    Fault("an analysis online without a key", End.REFUSED, "no key of W&B", no_key, ("analyze", "wandb.mode=online")),
    Fault(
        "W&B after the analysis", End.SAID, r"the report is whole, but W&B did not take it \(lost\)",
        lambda place: place.patch.setattr(wandb, "init", raising(ConnectionResetError("lost"))),
        ("analyze", "wandb.mode=offline"),
        expect=lambda place: (place.folder / "report" / "report.html").read_text(),
    ),
]  # fmt: skip
