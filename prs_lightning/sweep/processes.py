"""A job as a process of its own: what it needs, its log, its end, and what its run directory says afterwards."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hydra.core.override_parser.types import Quote, QuotedString

from prs_lightning.errors import DISK, RunError
from prs_lightning.runs import RunDirectory, Status
from prs_lightning.runs.directory import SWEEP_LOCK
from prs_lightning.runs.locking import held
from prs_lightning.runs.rows import epochs_in, metrics_text
from prs_lightning.signals import FAULTS, PARENT, ended_by, name_of

LOG_FILE = "train.log"
FULL_ERROR = "HYDRA_FULL_ERROR"
ASKED_FULL_ERROR = os.environ.get(FULL_ERROR, "0")  # by who started this process: what runs Hydra changes it for itself
ERROR = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b(?!\()")
"""How a line begins in which Python names an error."""
NOISE = re.compile(r"\s|full_key: |Set the environment variable |Traceback ")
"""How lines begin that say nothing of why a job ended."""
NO_ROOM = re.compile("|".join(re.escape(os.strerror(number)) for number in DISK))
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
        return epochs_in(metrics_text(self.run.metrics_file) or "")

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
        before = job.run.record_if_whole()
        try:
            log = open_log(job.run.path / LOG_FILE)
        except OSError as error:
            why = f"cannot write {job.run.path / LOG_FILE}: {error.strerror}; remove it, or make room"
            return _mark(job, Status.INTERRUPTED if error.errno in DISK else Status.FAILED, why)
        with log:
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


def open_log(file: Path) -> BinaryIO:
    """The log, to be appended to: a regular file in its folder, not what a link leads to or a pipe waits for.

    Raises:
        OSError: it is something else, or the disk refuses.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    log = open(file, "ab", opener=lambda path, _: os.open(path, flags, 0o666))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(log.fileno()).st_mode):
        log.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(file))
    return log


def _outcome(job: Job, code: int, before: Mapping[str, Any], stopped: bool) -> Status:
    """What a job's record says, or where it says nothing of its end, what its exit code and its log do."""
    run, record = job.run, job.run.record_if_whole()
    status = record.get("status") if record != before else None
    if run.locked:  # by a run that was started by hand
        return Status.ELSEWHERE
    if status in (Status.FINISHED, Status.FAILED, Status.INTERRUPTED):
        return Status(status)
    if code == 0 and record.get("status") == Status.FINISHED:
        return Status.FINISHED
    if stopped:
        return _mark(job, Status.INTERRUPTED, "stopped with its sweep") if status else Status.INTERRUPTED
    tail, number = log_tail(run), ended_by(code)
    fault = number is not None and signal.Signals(number).name in FAULTS
    outside = number is not None or NO_ROOM.search(" ".join(tail))
    return _mark(job, Status.INTERRUPTED if outside and not fault else Status.FAILED, reason(code, tail))


def _mark(job: Job, status: Status, why: str) -> Status:
    try:
        job.run.mark(status, job.config, why)
    except RunError:  # a full disk: a record that was begun and not closed says the same
        return Status.INTERRUPTED
    return status


def reason(code: int, tail: Sequence[str]) -> str:
    """Why a job ended with ``code``: the signal that killed it, or the error line at the end of its log.

    >>> reason(-9, [])
    'killed by SIGKILL'
    >>> reason(143, [])
    'SIGTERM'
    >>> reason(1, ["...", "error: no room"])
    'no room'
    >>> reason(1, ["Traceback (most recent call last):", "ValueError: no such", "layer", "full_key: trainer"])
    'ValueError: no such layer'
    """
    if code < 0:
        return f"killed by {name_of(-code)}"
    if number := ended_by(code):
        return name_of(number)
    if lines := [line.removeprefix("error: ") for line in tail if line.startswith("error: ")]:
        return lines[-1]
    begins = [place for place, line in enumerate(tail) if ERROR.match(line)]
    words = [line for line in tail[begins[-1] if begins else -1 :] if not NOISE.match(line)]
    return " ".join(words) or f"ended with exit code {code} and said nothing"


def log_tail(run: RunDirectory, lines: int = 12) -> list[str]:
    """The last lines of the run's log that are not empty."""
    file = run.path / LOG_FILE
    ours = file.is_file() and not file.is_symlink()
    text = file.read_bytes()[-20_000:].decode(errors="replace") if ours else ""
    return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-lines:]
