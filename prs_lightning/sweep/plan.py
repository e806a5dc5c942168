"""What each job of a sweep needs, decided from its run directory by one process: the one that starts the jobs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from prs_lightning.runs import RunDirectory, Status
from prs_lightning.runs.locks import held
from prs_lightning.runs.status import SWEEP_LOCK

RUNNABLE = (Status.START, Status.RESUME, Status.RETRY)


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


def decide(run: RunDirectory, *, retry_failed: bool = False) -> Status:
    """One of ``RUNNABLE`` if the job is to be started now, else why it is not.

    A failed run would most likely fail again, so it is tried again only when asked for.
    """
    if run.locked:
        return Status.ELSEWHERE
    match run.status:
        case Status.FAILED:
            return Status.RETRY if retry_failed else Status.FAILED
        case Status.FINISHED:
            return Status.FINISHED
        case Status.INTERRUPTED:
            return Status.RESUME
    return Status.START


def claim(run: RunDirectory) -> AbstractContextManager[bool]:
    """Hold a run for this sweep while its job runs; gives False if another sweep holds it.

    The run directory's own lock is taken only when training starts, seconds after the process did. This one closes
    that gap. The system frees it when its holder dies, so a dead sweep holds nothing.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    return held(run.path / SWEEP_LOCK)
