"""A job as a process of its own: its command, its log, its end, and what its run directory says afterwards."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prs_lightning.runs import RunDirectory, Status
from prs_lightning.sweep.plan import Job, claim

LOG_FILE = "train.log"
PARENT = "PRS_LIGHTNING_SWEEP"  # environment variable: process id of the sweep that a job belongs to


def quoted(value: str) -> str:
    """A text as Hydra's override grammar takes it: backslashes count only before a quote.

    >>> print(quoted("it's"))
    'it\\'s'
    """
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"


def command(script: str | Path, job_overrides: Sequence[str], path: Path) -> list[str]:
    """The command line of a job: an ordinary single run with a fixed directory."""
    return [sys.executable, str(script), *job_overrides, f"run_dir={quoted(str(path))}"]


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
    script: str | Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    started: Callable[[subprocess.Popen[bytes]], object] = lambda process: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Status:
    """Train in a process of its own, wait for it, kill what is left of it, and give its outcome.

    A run that ended without saying why is marked failed with the reason, unless it was asked to stop. Nobody else can
    start the job meanwhile; if another sweep holds the run, nothing is started.

    Args:
        job: what to run.
        script: the script that trains.
        environment: more environment variables.
        folder: working directory of the job.
        started: is told the process.
        stopping: whether the job was asked to stop.
    """
    with claim(job.run) as claimed:
        if not claimed:
            return Status.ELSEWHERE
        before = job.run.record()
        with (job.run.path / LOG_FILE).open("ab") as log:
            # To the system, the thread that started a process is the parent with which it dies: this one stays.
            process = subprocess.Popen(
                command(script, job.overrides, job.run.path),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
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
    run, record = job.run, job.run.record()
    status = record.get("status") if record != before else None
    if run.locked:  # by a run that was started by hand
        return Status.ELSEWHERE
    if code == 0 and record.get("status") == Status.FINISHED:
        return Status.FINISHED
    if stopped and record.get("status") == Status.RUNNING:
        run.update_record(status=Status.INTERRUPTED, reason="stopped with its sweep")
    if stopped or status == Status.INTERRUPTED:
        return Status.INTERRUPTED
    if status != Status.FAILED:
        run.mark_failed(job.config, reason(code, log_tail(run)))
    return Status.FAILED


def reason(code: int, tail: Sequence[str]) -> str:
    """Why a job ended with ``code``: the signal that killed it, or the error line at the end of its log.

    >>> reason(-9, [])
    'killed by SIGKILL'
    >>> reason(1, ["...", "error: no room"])
    'no room'
    """
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    error = next((line for line in reversed(tail) if line.startswith("error: ")), tail[-1] if tail else "")
    return error.removeprefix("error: ") or f"ended with exit code {code} and said nothing"


def log_tail(run: RunDirectory, lines: int = 12) -> list[str]:
    """The last lines of the run's log that are not empty."""
    file = run.path / LOG_FILE
    if not file.exists():
        return []
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - 20_000))
        text = log.read().decode(errors="replace")
    return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-lines:]
