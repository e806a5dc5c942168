"""What each job of a sweep needs, decided from its run directory by one process: the one that starts the jobs."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from prs_lightning.runs import RunDirectory, write_text

START, RESUME, RETRY = "start", "resume", "retry"
FINISHED, FAILED, ELSEWHERE = "finished", "failed", "running elsewhere"
RUNNABLE = (START, RESUME, RETRY)

SWEEP_FILE = "sweep.json"
LOCK_FILE = ".sweep.lock"


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep.

    Args:
        overrides: the job's own overrides, as on a command line.
        run: where it is kept.
        config: its composed config, as plain values.
    """

    overrides: tuple[str, ...]
    run: RunDirectory
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.run.path.name

    @property
    def epochs(self) -> int:
        return int(self.config["epochs"])

    @property
    def epochs_done(self) -> int:
        """Rows of metrics.csv, counted without parsing."""
        if not self.run.metrics_file.exists():
            return 0
        return max(0, self.run.metrics_file.read_bytes().count(b"\n") - 1)


def decide(run: RunDirectory, *, retry_failed: bool = False) -> str:
    """One of ``RUNNABLE`` if the job is to be started now, else why it is not.

    A failed run would most likely fail again, so it is tried again only when asked for.
    """
    if run.locked:
        return ELSEWHERE
    status = run.status
    if status == "failed":
        return RETRY if retry_failed else FAILED
    return {"finished": FINISHED, "interrupted": RESUME}.get(status or "", START)


@contextmanager
def claim(run: RunDirectory) -> Iterator[bool]:
    """Hold a run for this sweep while its job runs; gives False if another sweep holds it.

    The run directory's own lock is taken only when training starts, seconds after the process did. This one closes
    that gap. The system frees it when its holder dies, so a dead sweep holds nothing.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    with (run.path / LOCK_FILE).open("a") as lock:
        yield try_lock(lock)


def try_lock(lock: TextIO) -> bool:
    """Whether the open file could be locked for this process alone."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def note_jobs(jobs: Iterable[Job]) -> None:
    """Add the jobs to ``sweep.json`` of their folders, so that the status can tell what was never started."""
    folders: dict[Path, list[str]] = {}
    for job in jobs:
        folders.setdefault(job.run.path.parent, []).append(job.name)
    for folder, names in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK_FILE).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two sweeps of one folder may start at once
            all_names = list(dict.fromkeys([*noted_jobs(folder), *names]))
            write_text(folder / SWEEP_FILE, json.dumps({"runs": all_names}, indent=2) + "\n")


def noted_jobs(folder: Path) -> list[str]:
    """Names of the runs that sweeps in ``folder`` were to make."""
    file = folder / SWEEP_FILE
    return json.loads(file.read_text())["runs"] if file.exists() else []
