"""A run directory: the record of one training run, complete, resumable or marked failed, and never half-written.

docs/architecture.md says what is in it. No torch here, so that the analysis and the sweep can read runs quickly.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from prs_lightning.errors import Interrupted, RunError
from prs_lightning.measures import COLUMNS
from prs_lightning.runs.data_files import refuse_other_files
from prs_lightning.runs.naming import differing_keys, flatten
from prs_lightning.runs.provenance import git_commit, versions

SWEEP_FILE = "sweep.json"
SWEEP_LOCK = ".sweep.lock"


class Status(StrEnum):
    """What a run is, what a sweep does about it, and what became of it. The first four stand in run.json."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    FINISHED = "finished"
    LEFT = "left"
    ELSEWHERE = "running elsewhere"
    START = "start"
    RESUME = "resume"
    RETRY = "retry"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a temporary name, flush to the disk, and rename: the file is there whole or as it was before.

    Raises:
        RunError: the disk is full or refuses; nothing is left of the attempt.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise RunError(f"cannot write {path}: {error}; make room, then give the same command to go on") from error
    finally:
        temporary.unlink(missing_ok=True)  # also when a signal came


def write_text(path: Path, text: str) -> None:
    """``write_atomically`` for text."""
    write_atomically(path, lambda file: file.write(text.encode()))


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file ``path``; gives False, at once, if another holds it and we are not to ``wait`` for it."""
    from filelock import FileLock, Timeout  # 50 ms, which --help need not pay

    # The system frees it when its holder dies. Where it cannot, refuse: a mere file would outlive a killed run.
    lock = FileLock(path, fallback_to_soft=False)
    with suppress(Timeout):
        lock.acquire(timeout=-1 if wait else 0)
    try:
        yield lock.is_locked
    finally:
        lock.release()


class RunDirectory:
    """Reads and writes one run directory. ``RunDirectory(path)`` touches nothing on the disk."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.csv"
        self.record_file = self.path / "run.json"
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.previous_checkpoint = self.checkpoints / "previous.ckpt"
        self.lock_file = self.path / ".lock"
        self._new_wandb_id = uuid.uuid4().hex[:12]

    def checkpoint(self, epoch: int) -> Path:
        """Where the weights after ``epoch`` (counted from 1) are kept."""
        return self.checkpoints / f"epoch-{epoch:03d}.ckpt"

    def config(self) -> dict[str, Any]:
        """The composed config; empty if there is none."""
        return yaml.safe_load(self.config_file.read_text()) if self.config_file.exists() else {}

    def record(self) -> dict[str, Any]:
        """run.json; empty if there is none."""
        return json.loads(self.record_file.read_text()) if self.record_file.exists() else {}

    def rows(self) -> list[dict[str, str]]:
        """The rows of metrics.csv as written; a measure that was not taken at an epoch is ''."""
        return list(csv.DictReader(self.metrics_file.read_text().splitlines() if self.metrics_file.exists() else []))

    @property
    def status(self) -> Status | None:
        """What run.json says, or None where no run was started.

        A run whose process is gone without having said so (killed, power cut) counts as interrupted.
        """
        status = Status(record["status"]) if (record := self.record()) else None
        return Status.INTERRUPTED if status == Status.RUNNING and not self.locked else status

    @property
    def locked(self) -> bool:
        """Whether a live process of this machine (or of one that shares the file system) is training here."""
        if not self.lock_file.exists():  # looking must not make one
            return False
        with held(self.lock_file) as free:
            return not free

    def wandb_id(self) -> str:
        """Id of the W&B run, made once and kept in run.json: a resumed run goes on in the same W&B run."""
        return self.record().get("wandb_id", self._new_wandb_id)

    def write_rows(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace metrics.csv; the whole file is written anew, so that it never ends in the middle of a line."""
        names = dict.fromkeys(name for row in rows for name in row)
        ordered = [name for name in COLUMNS if name in names] + sorted(set(names) - set(COLUMNS))
        text = io.StringIO()
        writer = csv.DictWriter(text, ordered, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.metrics_file, text.getvalue())

    def update_record(self, **changes: object) -> None:
        """Change some entries of run.json."""
        write_text(self.record_file, json.dumps(self.record() | changes, indent=2) + "\n")

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse a directory that holds a run of another config, or of other data, without touching it.

        Raises:
            RunError: names the keys that differ, or the files.
        """
        if self.record_file.exists() and (keys := differing_keys(self.config(), config)):
            there, now = flatten(self.config()), flatten(config)
            shown = ", ".join(f"{key} ({there.get(key)!r} there, {now.get(key)!r} now)" for key in keys[:8])
            more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
            kept = self.rows() or self.last_checkpoint.exists()
            mend = "" if kept or self.locked else "no epoch of it was trained: delete it, or "
            raise RunError(f"{self.path} holds a run of another config: {shown}{more}; {mend}choose another run_dir")
        there, data = (each.get("data", {}) for each in (self.config(), config))
        if there.get("root") != data.get("root"):
            refuse_other_files(self.record(), data)  # or a folder of the same name would count as trained

    @contextmanager
    def recording(self, config: Mapping[str, Any], **entries: object) -> Iterator[None]:
        """Hold the directory while a run trains in it, and leave its status in run.json whatever happens.

        Args:
            config: the composed config, as plain values.
            entries: more entries of run.json.

        Raises:
            RunError: another process trains here, or the directory holds a run of another config.
        """
        self.check(config)
        self.path.mkdir(parents=True, exist_ok=True)
        with held(self.lock_file) as free:
            if not free:
                other = self.record()
                raise RunError(
                    f"{self.path} is being trained by process {other.get('pid')} on {other.get('host')}: "
                    "wait for it, or choose another run_dir"
                )
            self._keep(config)
            times = {"started": self.record().get("started", _now()), "resumed": _now() if self.rows() else None}
            where = {"pid": os.getpid(), "host": platform.node(), "git_commit": git_commit(), "versions": versions()}
            begun = {"status": Status.RUNNING, "reason": None, "wandb_id": self.wandb_id(), **times, "ended": None}
            self.update_record(**begun, **where, **entries)
            end: dict[str, object] = {"status": Status.FINISHED}  # early for a reason that the run noted, or in full
            try:
                yield
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
                end = {"status": Status.INTERRUPTED if interrupted else Status.FAILED, "reason": reason_of(error)}
                raise
            finally:
                try:
                    self.update_record(**end, ended=_now())
                except RunError as error:
                    # A full disk must not hide why the run ended; without this entry it counts as interrupted.
                    print(f"warning: {error}", file=sys.stderr)

    def mark(self, status: Status, config: Mapping[str, Any], why: str) -> None:
        """Say that the run failed or was interrupted, also before it could make its record."""
        self._keep(config)
        self.update_record(status=status, reason=why, ended=_now())

    def _keep(self, config: Mapping[str, Any]) -> None:
        if not self.config_file.exists():
            write_text(self.config_file, yaml.safe_dump(dict(config), sort_keys=False))


def reason_of(error: BaseException) -> str:
    """Why a run ended, in one line."""
    if isinstance(error, Interrupted):
        return error.reason
    if isinstance(error, KeyboardInterrupt | SystemExit):  # Lightning makes the latter of a Ctrl-C
        by_hand = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
        return "SIGINT (Ctrl-C)" if by_hand else "interrupted"
    return " ".join(f"{type(error).__name__}: {error}".split())


def find_runs(folder: str | Path) -> list[RunDirectory]:
    """Every run directory under ``folder``, sorted by path."""
    return [RunDirectory(file.parent) for file in sorted(Path(folder).rglob("run.json"))]


def note_runs(runs: Sequence[RunDirectory]) -> None:
    """Add the runs that a sweep is to make to ``sweep.json`` of their folders."""
    for folder in {run.path.parent for run in runs}:
        names = [run.path.name for run in runs if run.path.parent == folder]
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / SWEEP_LOCK, wait=True):  # two sweeps of one folder may start at once
            all_names = list(dict.fromkeys([*noted_runs(folder), *names]))
            write_text(folder / SWEEP_FILE, json.dumps({"runs": all_names}, indent=2) + "\n")


def noted_runs(folder: Path) -> list[str]:
    """Names of the runs that sweeps in ``folder`` were to make."""
    file = folder / SWEEP_FILE
    return json.loads(file.read_text())["runs"] if file.exists() else []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
