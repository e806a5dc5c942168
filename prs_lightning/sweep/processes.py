"""A job as a process of its own: what it needs, its log, its end, and what its run directory says afterwards."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from prs_lightning.runs import RunDirectory, Status
from prs_lightning.runs.directory import INTERRUPTING, SWEEP_LOCK
from prs_lightning.runs.locking import held
from prs_lightning.runs.rows import metrics_text

LOG_FILE = "train.log"
FULL_ERROR = "HYDRA_FULL_ERROR"
ASKED_FULL_ERROR = os.environ.get(FULL_ERROR, "0")  # by who started this process: what runs Hydra changes it for itself
PARENT = "PRS_LIGHTNING_SWEEP"  # environment variable: process id of the sweep that a job belongs to
ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b(?!\()")
"""How a line begins in which Python names an error."""
NOISE = re.compile(r"\s|full_key: |Set the environment variable |Traceback ")
"""How lines begin that say nothing of why a job ended."""
RUNNABLE = (Status.START, Status.RESUME, Status.RETRY)


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep: its own overrides, as on a command line, and its composed config, as plain values."""

    overrides: tuple[str, ...]
    run: RunDirectory
    config: Mapping[str, Any]

    @property
    def epochs_done(self) -> int:
        """Rows of metrics.csv, counted without parsing."""
        return max(0, (metrics_text(self.run.metrics_file) or "").count("\n") - 1)

    def overrides_at(self, path: Path) -> list[str]:
        """The overrides of an ordinary single run in the directory ``path``."""
        return [*self.overrides, f"run_dir={QuotedString(str(path), Quote.single).with_quotes()}"]


def decide(run: RunDirectory, *, retry_failed: bool = False) -> Status:
    """One of ``RUNNABLE`` if the job is to be started now, else why it is not.

    A failed run would most likely fail again, so it is tried again only when asked for.
    """
    if run.locked:
        return Status.ELSEWHERE
    if run.damage is not None or (run.status == Status.FINISHED and not run.rows_are_whole):
        return Status.RESUME  # the job makes anew what was harmed, or says why it cannot
    failed = Status.RETRY if retry_failed else Status.FAILED
    known = {Status.FAILED: failed, Status.INTERRUPTED: Status.RESUME, Status.FINISHED: Status.FINISHED}
    return known.get(run.status or Status.LEFT, Status.START)


@contextmanager
def full_error(value: str) -> Iterator[None]:
    """Set for a while whether Hydra, here and in processes that are started, gives errors a traceback: "1" or "0"."""
    before = os.environ.get(FULL_ERROR, "0")
    os.environ[FULL_ERROR] = value
    try:
        yield
    finally:
        os.environ[FULL_ERROR] = before


def die_with_parent() -> None:
    """Ask the system to kill this process when the one that started it dies; to be called first thing in a job.

    A job whose sweep was killed would otherwise train on unseen, and a rank whose main process was killed would wait
    for it for ever. Only Linux can do this; elsewhere nothing happens.
    """
    sweep = os.environ.pop(PARENT, None)
    if not sys.platform.startswith("linux") or (sweep is None and os.environ.get("LOCAL_RANK", "0") == "0"):
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if sweep is not None and os.getppid() != int(sweep):  # it died before we could ask
        os.kill(os.getpid(), signal.SIGKILL)


def run_job(
    job: Job,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    started: Callable[[subprocess.Popen[bytes]], object] = lambda process: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Status:
    """Train in a process of its own, wait for it, kill what is left of it, and give its outcome.

    A run that ended without saying why is marked failed with the reason, unless it was asked to stop. Nobody else can
    start the job meanwhile; if another sweep holds the run, nothing is started.

    Args:
        command: the script, and what is for every job of the sweep.
        environment: more environment variables.
        started: is told the process.
        stopping: whether the job was asked to stop.
    """
    job.run.path.mkdir(parents=True, exist_ok=True)
    # Training takes the run's own lock seconds after its process started; this one closes that gap.
    with held(job.run.path / SWEEP_LOCK) as claimed:
        if not claimed:
            return Status.ELSEWHERE
        before = {} if job.run.damage else job.run.record()
        with (job.run.path / LOG_FILE).open("ab") as log:
            # To the system, the thread that started a process is the parent with which it dies: this one stays.
            process = subprocess.Popen(
                [sys.executable, *command, *job.overrides_at(job.run.path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {}), PARENT: str(os.getpid())},
                start_new_session=True,  # the job and the ranks it starts can be killed as one
            )  # fmt: skip
        try:
            started(process)
            process.wait()
        finally:
            kill(process)
            outcome = _outcome(job, process.wait(), before, stopping())
        return outcome


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the job and the ranks that it started, at once."""
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, signal.SIGKILL)


def _outcome(job: Job, code: int, before: Mapping[str, Any], stopped: bool) -> Status:
    run, record = job.run, {} if job.run.damage else job.run.record()
    status = record.get("status") if record != before else None
    if run.locked:  # by a run that was started by hand
        return Status.ELSEWHERE
    if code == 0 and record.get("status") == Status.FINISHED:
        return Status.FINISHED
    if stopped and record.get("status") == Status.RUNNING:
        run.update_record(status=Status.INTERRUPTED, reason="stopped with its sweep")
    if stopped or status == Status.INTERRUPTED:
        return Status.INTERRUPTED
    if code < 0 and signal.Signals(-code).name in INTERRUPTING:  # before it could say so itself
        run.mark(Status.INTERRUPTED, job.config, signal.Signals(-code).name)
        return Status.INTERRUPTED
    if status != Status.FAILED:
        run.mark(Status.FAILED, job.config, reason(code, log_tail(run)))
    return Status.FAILED


def reason(code: int, tail: Sequence[str]) -> str:
    """Why a job ended with ``code``: the signal that killed it, or the error line at the end of its log.

    >>> reason(-9, [])
    'killed by SIGKILL'
    >>> reason(1, ["...", "error: no room"])
    'no room'
    >>> reason(1, ["Traceback (most recent call last):", "ValueError: no such", "layer", "full_key: trainer"])
    'ValueError: no such layer'
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if lines := [line.removeprefix("error: ") for line in tail if line.startswith("error: ")]:
        return lines[-1]
    begins = [place for place, line in enumerate(tail) if ERROR.match(line)]
    words = [line for line in tail[begins[-1] if begins else -1 :] if not NOISE.match(line)]
    return " ".join(words) or f"ended with exit code {code} and said nothing"


def log_tail(run: RunDirectory, lines: int = 12) -> list[str]:
    """The last lines of the run's log that are not empty."""
    file = run.path / LOG_FILE
    text = file.read_bytes()[-20_000:].decode(errors="replace") if file.exists() else ""
    return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-lines:]
