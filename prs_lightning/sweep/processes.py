"""A job as a process of its own: its command, its log, its end, and what its run directory says afterwards."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from prs_lightning.runs import RunDirectory, Status, write_text
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


class JobProcess:
    """A started job. Nobody else can start it before ``end``.

    It must be started by the main thread or by one that stays for its ``end``: to the system, the thread that started
    a process is the parent with which it dies.

    Args:
        job: what to run.
        script: the script that trains.
        environment: more environment variables.
        folder: working directory of the job.

    Attributes:
        claimed: False if another sweep holds the run; then nothing was started.
    """

    def __init__(
        self, job: Job, script: str | Path, environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self.job, self.started = job, time.monotonic()
        self.record_before = job.run.record()
        self.resources = ExitStack()
        self.claimed = self.resources.enter_context(claim(job.run))
        self.stopped = False
        self.process: subprocess.Popen[bytes] | None = None
        if self.claimed:
            log = self.resources.enter_context((job.run.path / LOG_FILE).open("ab"))
            self.process = subprocess.Popen(
                command(script, job.overrides, job.run.path),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
                env={**os.environ, **(environment or {}), PARENT: str(os.getpid())},
                start_new_session=True,  # the job and the ranks it starts can be killed as one
            )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def running(self) -> bool:
        """Whether the main process of the job still runs."""
        return self.process is not None and self.process.poll() is None

    def ask_to_stop(self) -> None:
        """Send SIGTERM: the run ends after its current batch and can be taken up again."""
        self.stopped = True
        if self.process is not None and self.running():
            self.process.terminate()

    def kill(self) -> None:
        """End the job and the ranks that it started, at once."""
        self.stopped = True
        if self.process is not None and self.running():
            _kill_group(self.process.pid)

    def end(self) -> Status:
        """Wait for the job, kill what is left of it, let go of the run, and give its outcome.

        A run that ended without saying why is marked failed with the reason, unless it was asked to stop.
        """
        with self.resources:
            if self.process is None:
                return Status.ELSEWHERE
            try:
                self.process.wait()
            finally:
                _kill_group(self.process.pid)
                outcome = self._outcome(self.process.wait())
            return outcome

    def _outcome(self, code: int) -> Status:
        run, record = self.job.run, self.job.run.record()
        if run.locked:  # by a run that was started by hand
            return Status.ELSEWHERE
        if code == 0 and record.get("status") == Status.FINISHED:
            return Status.FINISHED
        if self.stopped and record.get("status") == Status.RUNNING:
            run.update_record(status=Status.INTERRUPTED, reason="stopped with its sweep")
        if self.stopped or (record != self.record_before and record.get("status") == Status.INTERRUPTED):
            return Status.INTERRUPTED
        if record == self.record_before or record.get("status") != Status.FAILED:
            mark_failed(run, self.job.config, reason(code, log_tail(run)))
        return Status.FAILED


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # nobody is left


def mark_failed(run: RunDirectory, config: Mapping[str, Any], why: str) -> None:
    """Say in the run directory that the run failed, also if it failed before it could make its record."""
    if not run.config_file.exists():
        write_text(run.config_file, yaml.safe_dump(dict(config), sort_keys=False))
    run.update_record(status=Status.FAILED, reason=why, ended=datetime.now(UTC).isoformat(timespec="seconds"))


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
