"""Checkpoints: written whole or not at all, read with ``weights_only=True``, refused when damaged or foreign.

An archive of ``torch.save`` has a check sum (CRC-32) of each of its parts, which torch does not look at: they are
verified before anything is read. A checkpoint names its run and that run's config, and holds what stood in run.json.
"""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from prs_lightning.errors import ConfigError, RunError, in_one_line
from prs_lightning.runs import RunDirectory, write_atomically
from prs_lightning.runs.naming import architecture, config_digest
from prs_lightning.runs.writing import refused, set_aside
from prs_lightning.signals import is_global_zero

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

FOLDER = 0x10
"""What an archive says of a part that is a folder; no check sum is taken of that."""


def load_plain(path: str | Path, map_location: Any = "cpu") -> Any:
    """What a file of ``torch.save`` holds: tensors and plain values, never arbitrary objects.

    Raises:
        RunError: the file is absent, damaged, or would run code.
    """
    if not os.path.exists(path):
        raise RunError(f"{path} does not exist: expected a checkpoint")
    if not os.path.isfile(path):
        raise RunError(f"{path} is no file: expected a checkpoint")
    try:
        with open(path, "rb") as file:
            refuse_changed(file)
            return torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # of any kind, for whatever bytes there are
        why = f"{type(error).__name__}: {in_one_line(error)[:200] or 'no message'}"
        if isinstance(error, pickle.UnpicklingError):
            why = "it holds other things than tensors and plain values, which could run code: keep a state_dict() alone"
        raise RunError(f"{path} is damaged or no checkpoint ({why})") from error


def refuse_changed(file: BinaryIO) -> None:
    """Compare an archive with its check sums; what is none (of before torch 1.6) has no such sums.

    Raises:
        zipfile.BadZipFile, or whatever its reader meets: it was changed since it was written.
    """
    is_archive = file.read(4) == b"PK\3\4" or zipfile.is_zipfile(file)
    if is_archive:
        with zipfile.ZipFile(file) as archive:
            if (part := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{part} does not fit its check sum")
            if any(part.external_attr & FOLDER and part.file_size for part in archive.infolist()):
                raise zipfile.BadZipFile("a part of it is called a folder")  # of which torch would read nothing
    file.seek(0)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint of this project.

    Raises:
        RunError: the file is absent, damaged, or not a checkpoint of this project, or of another run than it lies in.
    """
    checkpoint = load_plain(path, map_location)
    if not isinstance(checkpoint, dict) or not {"architecture", "state_dict"} <= checkpoint.keys():
        raise RunError(f"{path} is no checkpoint of this project: it names no architecture")
    refuse_foreign(checkpoint, Path(path))
    return checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to the disk: atomic writes; a ``last.ckpt`` that cannot be used gives way to the one before it.

    Args:
        model: the network's config, plain values, which a checkpoint keeps to say how to build it again; one of
            another architecture is refused.
        run: that it belongs to, while that trains.
    """

    def __init__(self, model: Mapping[str, Any], run: RunDirectory | None = None) -> None:
        self.kept = {"architecture": architecture(model), "model": dict(model)}
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        named = {"run": self.run.begun} if self.run and self.run.begun else {}
        write_atomically(Path(path), lambda file: torch.save(checkpoint | self.kept | named, file))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        run = RunDirectory(Path(path).parent.parent)
        refusals: list[str] = []
        for each in (Path(path), *([run.previous_checkpoint] if Path(path) == run.last_checkpoint else [])):
            try:
                checkpoint = read_checkpoint(each, map_location)
                refuse_another(checkpoint, str(self.kept["architecture"]), each)
            except RunError as error:
                refusals.append(str(error))
                continue
            if is_global_zero():
                _tell(checkpoint, each, refusals)
            return checkpoint
        of_a_run = Path(path) in (run.last_checkpoint, run.previous_checkpoint)
        way_out = f": restore it, or move {run.path.absolute()} away to train anew" if of_a_run else ""
        raise RunError("; ".join(refusals) + way_out)


def _tell(checkpoint: Mapping[str, Any], path: Path, refusals: list[str]) -> None:
    """Say which checkpoint a run goes on from, if it is not the one it should be; that one would be in the way."""
    if refusals:
        aside = set_aside(path.with_name("last.ckpt"))
        print(f"warning: {refusals[0]}; going on from {path}, and it is kept as {aside}", file=sys.stderr)
    if "run" not in checkpoint:
        print(
            f"note: {path} was written before checkpoints named their run: taken for one of this run", file=sys.stderr
        )


def refuse_another(checkpoint: Mapping[str, Any], expected: str, path: str | Path) -> None:
    """Raise RunError for a checkpoint of another architecture."""
    if checkpoint["architecture"] != expected:
        raise RunError(f"{path} holds a {checkpoint['architecture']}, expected a {expected}")


def refuse_foreign(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Raise RunError for a checkpoint that names another run, or another config, than the directory it lies in has."""
    run, named = RunDirectory(path.parent.parent), checkpoint.get("run")
    if named is None or path.parent != run.checkpoints:
        return
    there, ours = named["wandb_id"], run.identity
    if ours is not None and there != ours:
        raise RunError(
            f"{path} is a checkpoint of another run ({there}, started {named['started']}), expected one of {ours}"
        )
    if (config := run.config()) and named["config"] != config_digest(config):
        raise RunError(f"{path} was trained with another config than {run.config_file} has")


def keep_previous(run: RunDirectory) -> None:
    """Make way for a new ``last.ckpt``: the one that is there becomes the previous one.

    Raises:
        DiskError, RunError: it cannot be renamed.
    """
    if not run.last_checkpoint.exists():
        return
    if run.previous_checkpoint.is_dir():
        set_aside(run.previous_checkpoint)
    try:
        run.last_checkpoint.replace(run.previous_checkpoint)
    except OSError as error:
        raise refused(run.previous_checkpoint, error) from error


def checkpoint_to_resume(run: RunDirectory) -> Path | None:
    """Where to go on from: the last checkpoint, the one before it, or None for a new start.

    Raises:
        RunError: both are gone, but more was trained than the first epoch, in which there is none yet.
    """
    both = (run.last_checkpoint, run.previous_checkpoint)
    if (found := next((path for path in both if path.exists()), None)) is not None:
        return found
    kept = [int(path.stem.rpartition("-")[2]) for path in run.checkpoints.glob("epoch-*[0-9].ckpt")]
    if (epochs := max([len(run.rows()), *kept])) > 1:
        raise RunError(
            f"{both[0]} and {both[1].name} are gone, but {epochs} epochs were trained: restore one of them, or move "
            f"{run.path} away to train anew"
        )
    return None


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
