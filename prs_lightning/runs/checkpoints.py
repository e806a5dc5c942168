"""Checkpoints: written whole or not at all, read with ``weights_only=True``, refused when damaged or foreign."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, write_atomically

log = logging.getLogger(__name__)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint of this project: tensors and plain values, never arbitrary objects.

    Raises:
        RunError: the file is absent, truncated, or not a checkpoint of this project.
    """
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist: expected a checkpoint") from None
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        first_line = (str(error) or "no message").splitlines()[0]
        raise RunError(f"{path} is damaged or no checkpoint ({type(error).__name__}: {first_line})") from error
    if not isinstance(checkpoint, dict) or not {"architecture", "state_dict"} <= checkpoint.keys():
        raise RunError(f"{path} is no checkpoint of this project: it names no architecture")
    return checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to the disk: atomic writes; a damaged ``last.ckpt`` gives way to the one before it.

    Args:
        architecture: class name of the network; a checkpoint of another one is refused.
    """

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write_atomically(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        run = RunDirectory(Path(path).parent.parent)
        try:
            checkpoint = read_checkpoint(path, map_location)
        except RunError as error:
            if Path(path) != run.last_checkpoint or not run.previous_checkpoint.exists():
                raise RunError(f"{error}; there is no earlier one: delete {run.path} to start over") from error
            log.warning("%s; going on from %s", error, run.previous_checkpoint)
            path, checkpoint = run.previous_checkpoint, read_checkpoint(run.previous_checkpoint, map_location)
        if checkpoint["architecture"] != self.architecture:
            raise RunError(f"{path} holds a {checkpoint['architecture']}, expected a {self.architecture}")
        return checkpoint


def checkpoint_to_resume(run: RunDirectory) -> Path | None:
    """Where to go on from: the last checkpoint, the one before it, or None for a new start."""
    return next((path for path in (run.last_checkpoint, run.previous_checkpoint) if path.exists()), None)


def load_network(path: str | Path) -> Any:
    """The network of a checkpoint, in eval mode on the CPU: one of ``prs_lightning.models``.

    Raises:
        RunError: a damaged or foreign file, or an architecture that this project does not have.
    """
    from prs_lightning import models

    checkpoint = read_checkpoint(path)
    architecture = checkpoint["architecture"]
    if architecture not in models.__all__:
        raise RunError(f"{path} holds a {architecture}, expected one of {', '.join(models.__all__)}")
    network = getattr(models, architecture)(**checkpoint["hyper_parameters"])
    network.load_state_dict(checkpoint["state_dict"])
    return network.eval()
