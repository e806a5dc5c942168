"""Checkpoints: written whole or not at all, read with ``weights_only=True``, refused when damaged or foreign."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from prs_lightning.errors import ConfigError, RunError
from prs_lightning.runs import RunDirectory, write_atomically
from prs_lightning.runs.naming import architecture

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

log = logging.getLogger(__name__)


def load_plain(path: str | Path, map_location: Any = "cpu") -> Any:
    """What a file of ``torch.save`` holds: tensors and plain values, never arbitrary objects.

    Raises:
        RunError: the file is absent, truncated, or would run code.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist: expected a checkpoint") from None
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        why = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
        if isinstance(error, pickle.UnpicklingError):
            why = "it holds other things than tensors and plain values, which could run code: keep a state_dict() alone"
        raise RunError(f"{path} is damaged or no checkpoint ({why})") from error


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint of this project.

    Raises:
        RunError: the file is absent, truncated, or not a checkpoint of this project.
    """
    checkpoint = load_plain(path, map_location)
    if not isinstance(checkpoint, dict) or not {"architecture", "state_dict"} <= checkpoint.keys():
        raise RunError(f"{path} is no checkpoint of this project: it names no architecture")
    return checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to the disk: atomic writes; a damaged ``last.ckpt`` gives way to the one before it.

    Args:
        model: the network's config, plain values, which a checkpoint keeps to say how to build it again; one of
            another architecture is refused.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        self.kept = {"architecture": architecture(model), "model": dict(model)}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write_atomically(Path(path), lambda file: torch.save(checkpoint | self.kept, file))

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
        refuse_another(checkpoint, str(self.kept["architecture"]), path)
        return checkpoint


def refuse_another(checkpoint: Mapping[str, Any], expected: str, path: str | Path) -> None:
    """Raise RunError for a checkpoint of another architecture."""
    if checkpoint["architecture"] != expected:
        raise RunError(f"{path} holds a {checkpoint['architecture']}, expected a {expected}")


def checkpoint_to_resume(run: RunDirectory) -> Path | None:
    """Where to go on from: the last checkpoint, the one before it, or None for a new start."""
    return next((path for path in (run.last_checkpoint, run.previous_checkpoint) if path.exists()), None)


def load_network(path: str | Path, expected: str | None = None) -> LightningModule:
    """The network of a checkpoint, in eval mode on the CPU.

    The code that the checkpoint names is imported and called with the plain values in it.

    Args:
        expected: refuse another architecture; None: take any.

    Raises:
        RunError: a damaged or foreign file, or an architecture that cannot be built again.
        RuntimeError: torch's own, for weights that do not fit.
    """
    from prs_lightning.models import network_of

    checkpoint = read_checkpoint(path)
    if expected is not None:
        refuse_another(checkpoint, expected, path)
    model = checkpoint.get("model")
    if model is None:  # of before other networks could be kept
        model = {
            "_target_": f"prs_lightning.models.{checkpoint['architecture']}",
            **checkpoint.get("hyper_parameters", {}),
        }
    try:
        network = network_of(model)
    except ConfigError as error:
        raise RunError(f"{path} holds a {checkpoint['architecture']}: {error}") from error
    network.load_state_dict(checkpoint["state_dict"])
    return network.eval()
