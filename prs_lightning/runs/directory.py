"""A run directory: the record of one training run, complete, resumable or marked failed, and never half-written.

docs/architecture.md says what is in it. No torch here, so that the analysis and the sweep can read runs quickly.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from prs_lightning.errors import DiskError, Interrupted, RunError, from_the_disk
from prs_lightning.runs.data_files import refuse_other_files
from prs_lightning.runs.locking import held, is_held
from prs_lightning.runs.naming import config_digest, differing_keys, flatten
from prs_lightning.runs.provenance import git_commit, versions
from prs_lightning.runs.reading import config_of, damaged, mapping_of
from prs_lightning.runs.rows import as_text, copy_of, is_whole, kept_rows, metrics_text, parsed
from prs_lightning.runs.writing import refused, set_aside, sweep_parts, write_text

SWEEP_LOCK = ".sweep.lock"


class Status(StrEnum):
    """What a run is, what a sweep does about it, and what became of it. The first four stand in run.json."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    FINISHED = "finished"
    LEFT = "left"
    ELSEWHERE = "running elsewhere"
    UNREADABLE = "unreadable"
    START = "start"
    RESUME = "resume"
    RETRY = "retry"


IN_RECORD = (Status.RUNNING, Status.INTERRUPTED, Status.FAILED, Status.FINISHED)


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
        self.rows_file = self.checkpoints / "rows.json"
        self.begun: dict[str, Any] | None = None
        """While it trains: what stands in run.json, which checkpoints keep too."""
        self._new_wandb_id = uuid.uuid4().hex[:12]

    def checkpoint(self, epoch: int) -> Path:
        """Where the weights after ``epoch`` (counted from 1) are kept."""
        return self.checkpoints / f"epoch-{epoch:03d}.ckpt"

    def config(self) -> dict[str, Any]:
        """The composed config; empty if there is none.

        Raises:
            RunError: the file is damaged.
        """
        return config_of(self.config_file)

    def record(self) -> dict[str, Any]:
        """run.json; empty if there is none.

        Raises:
            RunError: the file is damaged, or says a status that there is not.
        """
        record = mapping_of(self.record_file, json.loads)
        if record and record.get("status") not in IN_RECORD:
            raise damaged(self.record_file, f"status {record.get('status')!r}")
        return record

    def record_if_whole(self) -> dict[str, Any]:
        """``record``; empty where that is damaged."""
        try:
            return self.record()
        except RunError:
            return {}

    @property
    def damage(self) -> str | None:
        """What is wrong with run.json or config.yaml, in a line; None if they can be read."""
        try:
            record, config = self.record(), self.config()
            if config and record.get("config") not in (None, config_digest(config)):
                raise damaged(self.record_file, f"it is of another run than {self.config_file.name}")
        except RunError as error:
            return str(error)
        return None

    @property
    def identity(self) -> str | None:
        """What this run and all copies of its directory are known by; None where no run was started."""
        said = self.record().get("wandb_id")
        return said if isinstance(said, str) and said else None

    def rows(self) -> list[dict[str, str]]:
        """The rows as written, of the copy if that is whole; a measure that was not taken at an epoch is ''.

        Raises:
            RunError: neither metrics.csv nor its copy can be read.
        """
        if (text := self.copy_of_rows()) is None and os.path.lexists(self.metrics_file):
            text = metrics_text(self.metrics_file)
            if text is None:
                raise damaged(self.metrics_file, f"no text, and {self.rows_file} is no whole copy of it")
        return parsed(text or "")

    def copy_of_rows(self) -> str | None:
        """The text of metrics.csv in the copy of this run; None if that is gone, damaged, or of another run."""
        return kept_rows(self.rows_file, self._known_as())

    @property
    def rows_are_whole(self) -> bool:
        """Whether metrics.csv is what its copy says, or, where there is no whole copy, looks undamaged by itself."""
        text, copy = metrics_text(self.metrics_file), self.copy_of_rows()
        return text == copy if copy is not None else is_whole(text)

    @property
    def was_trained(self) -> bool:
        """Whether anything tells of a trained epoch: rows or weights, whole or not."""
        files = (self.metrics_file, self.rows_file)
        return any(map(os.path.lexists, files)) or any(self.checkpoints.glob("*.ckpt"))

    @property
    def status(self) -> Status | None:
        """What run.json says, or None where no run was started.

        A run whose process is gone without having said so (killed, power cut) counts as interrupted.

        Raises:
            RunError: run.json is damaged.
        """
        status = Status(record["status"]) if (record := self.record()) else None
        return Status.INTERRUPTED if status == Status.RUNNING and not self.locked else status

    @property
    def locked(self) -> bool:
        """Whether a live process of this machine (or of one that shares the file system) is training here."""
        return is_held(self.lock_file)

    def wandb_id(self) -> str:
        """Id of the W&B run, made once and kept in run.json: a resumed run goes on in the same W&B run."""
        return self.identity or self._new_wandb_id

    def write_rows(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace metrics.csv, and its copy before it; each is written anew, so that none ends in the middle."""
        self.keep_rows(as_text(rows))

    def keep_rows(self, text: str) -> None:
        """``write_rows`` for the text of metrics.csv."""
        self._write(self.rows_file, copy_of(text, self._known_as()))
        self._write(self.metrics_file, text)

    def update_record(self, **changes: object) -> None:
        """Change some entries of run.json; what stands in it while a run trains is known, whatever became of it."""
        record = (self.begun or self.record()) | changes
        self._write(self.record_file, json.dumps(record, indent=2) + "\n")
        if self.begun:
            self.begun = record

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse a directory that holds a run of another config, or of other data, without touching it.

        Raises:
            RunError: names the keys that differ, or the files; or run.json or config.yaml is damaged.
        """
        record, kept = self.record(), self.config()
        if (record or kept) and (keys := differing_keys(kept, config)):
            there, now = flatten(kept), flatten(config)
            shown = ", ".join(f"{key} ({there.get(key)!r} there, {now.get(key)!r} now)" for key in keys[:8])
            more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
            empty = not (self.was_trained or self.locked)
            mend = f"no epoch of it was trained: delete {self.config_file} to take its place, or " if empty else ""
            raise RunError(f"{self.path} holds a run of another config: {shown}{more}; {mend}choose another run_dir")
        there, data = (each.get("data", {}) for each in (kept, config))
        if there.get("root") != data.get("root"):
            refuse_other_files(record, data)  # or a folder of the same name would count as trained

    @contextmanager
    def recording(self, config: Mapping[str, Any], **entries: object) -> Iterator[None]:
        """Hold the directory while a run trains in it, and leave its status in run.json whatever happens.

        Args:
            config: the composed config, as plain values.
            entries: more entries of run.json.

        Raises:
            RunError: another process trains here, or the directory holds a run of another config.
            DiskError: the disk refused something, wherever that was written.
        """
        self.check(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(self.path, error) from error
        with held(self.lock_file) as free:
            if not free:
                other = self.record()
                raise RunError(
                    f"{self.path} is being trained by process {other.get('pid')} on {other.get('host')}: "
                    "wait for it, or choose another run_dir"
                )
            self.sweep_leftovers()
            self.keep_config(config)
            resumed = _now() if self.was_trained else None
            times = {"started": self.record().get("started", _now()), "resumed": resumed}
            where = {"pid": os.getpid(), "host": platform.node(), "git_commit": git_commit(), "versions": versions()}
            begun = {"status": Status.RUNNING, "reason": None, "wandb_id": self.wandb_id(), **times, "ended": None}
            self.update_record(**begun, **where, **entries, config=config_digest(config))
            self.begun = self.record()
            end: dict[str, object] = {"status": Status.FINISHED}  # early for a reason that the run noted, or in full
            try:
                yield
            except BaseException as error:
                disk = from_the_disk(error)
                interrupted = disk is not None or isinstance(error, KeyboardInterrupt | SystemExit)
                end = {"status": Status.INTERRUPTED if interrupted else Status.FAILED, "reason": reason_of(error)}
                if disk is not None and isinstance(error, Exception) and not isinstance(error, DiskError):
                    of_what = getattr(disk, "filename", None) or f"in {self.path}"
                    raise DiskError(of_what, disk) from error
                raise
            finally:
                try:
                    self.update_record(**end, ended=_now())
                except RunError as error:
                    # A full disk must not hide why the run ended; without this entry it counts as interrupted.
                    if not isinstance(sys.exception(), DiskError):
                        print(f"warning: {error}", file=sys.stderr)
                self.begun = None

    def mark(self, status: Status, config: Mapping[str, Any], why: str) -> None:
        """Say that the run failed or was interrupted, also before it made its record, or where that is damaged."""
        try:
            self.record()
        except RunError:
            set_aside(self.record_file)
        self.keep_config(config)
        self.update_record(status=status, reason=why, ended=_now())

    def sweep_leftovers(self) -> None:
        """Delete the temporary files of killed writes of this run; only for who holds its lock."""
        sweep_parts(self.path, r"config\.yaml|metrics\.csv|run\.json")
        sweep_parts(self.checkpoints, r"rows\.json|[\w-]+\.ckpt")

    def keep_config(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml if there is none."""
        if not self.config_file.exists():
            self._write(self.config_file, yaml.safe_dump(dict(config), sort_keys=False))

    def _known_as(self) -> str | None:
        return (self.begun or self.record_if_whole()).get("wandb_id")

    def _write(self, file: Path, text: str) -> None:
        if file.is_dir() and not file.is_symlink():  # a rename would not replace it
            set_aside(file)
        write_text(file, text)


def reason_of(error: BaseException) -> str:
    """Why a run ended, in one line."""
    if isinstance(error, Interrupted):
        return error.reason
    if isinstance(error, KeyboardInterrupt | SystemExit):  # Lightning makes the latter of a Ctrl-C
        by_hand = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
        return "SIGINT (Ctrl-C)" if by_hand else "interrupted"
    return " ".join(f"{type(error).__name__}: {error}".split())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
