"""What of a run directory was harmed from outside is made anew from what is whole, and said; or refused in one line.

Who else knows: the resume checkpoints (the rows, run.json, a digest of the config), the copy of the rows, and the
command, which gives the config again. torch is loaded only where a checkpoint must be read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prs_lightning.errors import RunError
from prs_lightning.runs.directory import RunDirectory, Status
from prs_lightning.runs.locking import held
from prs_lightning.runs.naming import config_digest, differing_keys
from prs_lightning.runs.rows import as_text, is_whole, metrics_text, rows_of_epochs
from prs_lightning.runs.writing import set_aside
from prs_lightning.signals import is_global_zero


def tell(line: str) -> None:
    """One line for the user, from one of the processes."""
    if is_global_zero():
        print(f"warning: {line}", file=sys.stderr)


def mend_record(run: RunDirectory, config: Mapping[str, Any]) -> None:
    """Make run.json and config.yaml anew if they are damaged or gone and that loses nothing.

    Args:
        config: of the command, which must be the run's.

    Raises:
        RunError: something was trained, and nothing tells what stood in them.
    """
    if not any(_lost(run, config)):
        return
    with held(run.lock_file) as free:
        lost_record, lost_config = _lost(run, config)  # another process of this training may have been faster
        if not free or not (lost_record or lost_config):  # who trains here writes them
            return
        files = [file for file, lost in ((run.record_file, lost_record), (run.config_file, lost_config)) if lost]
        names, digest = " and ".join(map(str, files)) + " damaged or gone", config_digest(config)
        path, told = run.record_file, {} if lost_record else run.record()
        if run.was_trained and "config" not in told:
            path, checkpoint = _newest(run)
            told = checkpoint.get("run") or {}
            if not told and not (lost_config or run.damage):
                return  # of before checkpoints named their run: it goes on under a new name
            if not told:
                raise RunError(f"{names}, and no checkpoint can tell what stood there: restore it; {run.damage or ''}")
        if told.get("config", digest) != digest:
            raise RunError(f"{names}, and {path} was trained with another config than this one: restore it")
        before = run.record_if_whole()
        before = {} if "wandb_id" in before else before  # of another run
        for file in files:
            set_aside(file)
        if lost_config:
            run.keep_config(config)
        if lost_record and told:
            run.update_record(**told | before)
        tell(f"{names}: made anew" + (f", as {path} tells" if told else ", for no epoch was trained"))


def _lost(run: RunDirectory, config: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether run.json and config.yaml are damaged, or gone from a run that was trained, or of another run."""
    record, kept = _or_none(run.record), _or_none(run.config)
    if record and kept and run.damage is not None:  # they are of different runs: the command tells which is ours
        ours = record["config"] == config_digest(config)
        return not ours and not differing_keys(kept, config), ours
    lost_record = record is None or (run.was_trained and "wandb_id" not in record)
    return lost_record, kept is None or (not kept and (run.was_trained or bool(record)))


def restore_rows(run: RunDirectory, config: Mapping[str, Any]) -> None:
    """Of a finished run, make metrics.csv and the copy of its rows what they were, and say so.

    Raises:
        RunError: none holds them all; the run is marked failed then.
    """
    text, known = metrics_text(run.metrics_file), run.copy_of_rows()
    if known is not None and text == known:
        return
    source = run.rows_file
    if known is None:
        source, checkpoint = _newest(run)
        known = checkpoint.get("rows") or (text if is_whole(text, _epochs(checkpoint)) else None)
    if known is None:
        why = _not_there(run, _epochs(checkpoint))
        run.mark(Status.FAILED, config, why)
        raise RunError(why)
    if text != known:
        run.keep_rows(known)
        tell(f"{run.metrics_file} was cut, changed or gone: its rows are restored from {source}")
    else:
        with suppress(RunError):  # a finished run may lie where nothing can be written
            run.keep_rows(known)


def rows_to_go_on_from(run: RunDirectory, checkpoint: Mapping[str, Any]) -> Sequence[dict[str, str]]:
    """The rows of the epochs that a checkpoint was trained for; metrics.csv and its copy hold them, and no other.

    Raises:
        RunError: no source holds them all.
    """
    epochs, text = _epochs(checkpoint) or 0, metrics_text(run.metrics_file)
    rows = rows_of_epochs((checkpoint.get("rows"), run.copy_of_rows(), text), epochs)
    if rows is None:
        raise RunError(_not_there(run, epochs))
    if is_global_zero() and text != as_text(rows):
        run.write_rows(rows)
        if _filled(rows_of_epochs([text], epochs) or []) != _filled(rows):  # not only rows of an epoch without weights
            tell(f"{run.metrics_file} was cut, changed or gone: the rows of {epochs} epochs are restored")
    return rows


def _not_there(run: RunDirectory, epochs: int | None) -> str:
    trained = f", but {epochs} epochs were trained" if epochs else ""
    return (
        f"{run.metrics_file} and its copy {run.rows_file} are damaged or gone{trained}: restore one of them, or move "
        f"{run.path} away to train anew"
    )


def _filled(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if value} for row in rows]


def _epochs(checkpoint: Mapping[str, Any]) -> int | None:
    return checkpoint["epoch"] + 1 if "epoch" in checkpoint else None


def _or_none(read: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return read()
    except RunError:
        return None


def _newest(run: RunDirectory) -> tuple[Path, Mapping[str, Any]]:
    """The newest resume checkpoint that is whole, of whatever run; it holds nothing if none is."""
    from prs_lightning.runs.checkpoints import load_plain

    for path in (run.last_checkpoint, run.previous_checkpoint):
        with suppress(RunError):
            if isinstance(checkpoint := load_plain(path), dict):
                return path, checkpoint
    return run.last_checkpoint, {}
