"""How processes end: signals at any moment, what stops training without a word, other ranks, the jobs of a sweep."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prs_lightning.attacks.engine import Attack
from prs_lightning.callbacks import measuring
from prs_lightning.callbacks.records import Records
from prs_lightning.models.base import ImageClassifier
from prs_lightning.runs import RunDirectory, Status, find_runs
from prs_lightning.runs.checkpoints import AtomicCheckpointIO
from prs_lightning.runs.ranks import OneEnd
from prs_lightning.sweep import processes
from prs_lightning.sweep.processes import LOG_FILE
from tests.faults.frame import End, Fault, Place

TRAINING = (ImageClassifier, "training_step")
Inject = Callable[[Place], Any]


def once(fault: Callable[..., object], owner: Any, name: str) -> Inject:
    """Let ``fault`` happen when ``owner.name`` is first called, with its arguments, before it does its work."""

    def inject(place: Place) -> None:
        work, left = getattr(owner, name), [fault]

        def disturbed(*arguments: Any, **keywords: Any) -> Any:
            if left:
                left.pop()(*arguments, **keywords)
            return work(*arguments, **keywords)

        place.patch.setattr(owner, name, disturbed)

    return inject


def meets(number: int, owner: Any, name: str) -> Inject:
    """A signal at that moment."""
    return once(lambda *_, **__: os.kill(os.getpid(), number), owner, name)


def raises(error: BaseException, owner: Any, name: str) -> Inject:
    """An error at that moment."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return once(fail, owner, name)


def as_the_end_is_written(number: int, status: Status) -> Inject:
    """A signal as the record is to get this status."""

    def inject(place: Place) -> None:
        update = RunDirectory.update_record

        def disturbed(run: RunDirectory, **changes: object) -> None:
            if changes.get("status") == status:
                place.patch.setattr(RunDirectory, "update_record", update)
                os.kill(os.getpid(), number)
            update(run, **changes)

        place.patch.setattr(RunDirectory, "update_record", disturbed)

    return inject


def three_signals(place: Place) -> None:
    meets(signal.SIGTERM, *TRAINING)(place)
    meets(signal.SIGINT, OneEnd, "on_exception")(place)
    as_the_end_is_written(signal.SIGHUP, Status.INTERRUPTED)(place)


def an_error_on_the_way_out(place: Place) -> None:
    """As a module that was half imported when the signal came."""
    meets(signal.SIGTERM, *TRAINING)(place)
    raises(RecursionError("maximum recursion depth exceeded"), Records, "on_exception")(place)


def fewer_epochs(_: object, trainer: Any, *__: object) -> None:
    trainer.fit_loop.max_epochs = 1


def batches_are_skipped(place: Place) -> None:
    place.patch.setattr(ImageClassifier, "on_train_batch_start", lambda *_: -1)


def note_of_a_rank(place: Place) -> None:
    (place.cut.path / ".rank-1.json").write_text("half a no")


def note_is_gone(place: Place) -> None:
    assert not list(place.cut.path.glob(".rank*"))


def job(code: str) -> Inject:
    """The job of the sweep is a process that does this."""

    def inject(place: Place) -> None:
        popen, lines = subprocess.Popen, f"import os, signal, sys; {code}"
        place.patch.setattr(
            subprocess, "Popen", lambda line, **keywords: popen([sys.executable, "-S", "-c", lines], **keywords)
        )

    return inject


def dies(number: int) -> Inject:
    return job(f"signal.signal({number}, signal.SIG_DFL) if {number} != 9 else 0; os.kill(os.getpid(), {number})")


def says(code: int, line: str = "") -> Inject:
    return job(f"print({line!r}, file=sys.stderr, flush=True); os._exit({code})")


def reads(status: Status, reason: str) -> Callable[[Place], None]:
    """What the record of the job says."""

    def look(place: Place) -> None:
        (run,) = find_runs(place.folder / "sweep")
        assert run.status == status
        assert re.fullmatch(reason, run.record()["reason"])

    return look


def log_is(make: Callable[[Path], object]) -> Inject:
    """Something else than a file is in the way of the log."""
    return once(lambda lock, **_: make(lock.parent / LOG_FILE), processes, "held")


def link(log: Path) -> None:
    log.symlink_to(log.parent.parent / "of-somebody-else")


def told(name: str, inject: Inject, status: Status, reason: str) -> Fault:
    """A sweep of one job, which ends like this."""
    return Fault(name, End.SAID, f"1 {status} of 1 runs", inject, ("sweep", "seed=0"), expect=reads(status, reason))


FAULTS = [
    Fault("SIGTERM, as a checkpoint is read", End.INTERRUPTED, "interrupted: SIGTERM;",
          meets(signal.SIGTERM, AtomicCheckpointIO, "load_checkpoint"), code=143),
    Fault("Ctrl-C, in training", End.INTERRUPTED, r"interrupted: SIGINT \(Ctrl-C\);",
          meets(signal.SIGINT, *TRAINING), code=130),
    Fault("SIGHUP, in the measuring pass", End.INTERRUPTED, "interrupted: SIGHUP;",
          meets(signal.SIGHUP, measuring, "measuring_pass"), code=129),
    Fault("SIGUSR1, in an attack", End.INTERRUPTED, "interrupted: SIGUSR1;",
          meets(signal.SIGUSR1, Attack, "_pass"), code=138),
    Fault("SIGUSR2, before a row", End.INTERRUPTED, "interrupted: SIGUSR2;",
          meets(signal.SIGUSR2, RunDirectory, "write_rows"), code=140),
    Fault("SIGXCPU, before a checkpoint", End.INTERRUPTED, "interrupted: SIGXCPU;",
          meets(signal.SIGXCPU, AtomicCheckpointIO, "save_checkpoint"), code=152),
    Fault("SIGTERM, as the end is written", End.INTERRUPTED, "interrupted: SIGTERM;",
          as_the_end_is_written(signal.SIGTERM, Status.FINISHED), code=143),
    Fault("signals on the way out", End.INTERRUPTED, "interrupted: SIGTERM;", three_signals, code=143),
    Fault("an error on the way out", End.INTERRUPTED, "interrupted: SIGTERM;", an_error_on_the_way_out, code=143),
    Fault("a KeyboardInterrupt that somebody raises", End.INTERRUPTED, r"interrupted: SIGINT \(Ctrl-C\);",
          raises(KeyboardInterrupt(), *TRAINING), code=130),
    Fault("sys.exit, in training", End.INTERRUPTED, r"interrupted: sys.exit\(0\) was called;",
          raises(SystemExit(0), *TRAINING), code=1),
    Fault("a reading process that was told to end", End.INTERRUPTED, "that reads images was killed by SIGTERM;",
          raises(RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. "), *TRAINING), code=143),
    Fault("batches that a hook skips", End.INTERRUPTED, "epoch 3 of 3 was stopped before its end", batches_are_skipped),
    Fault("a StopIteration, between epochs", End.FAILED, "ended after 2 of 3 epochs, and no callback asked for it",
          raises(StopIteration(), Records, "on_train_epoch_start")),
    Fault("fewer epochs by a callback", End.FAILED, "ended after 2 of 3 epochs, and no callback asked for it",
          once(fewer_epochs, Records, "on_train_start")),
    Fault("the note of a rank, left behind", End.GOES_ON, inject=note_of_a_rank, expect=note_is_gone),
    told("a job, killed", dies(signal.SIGKILL), Status.INTERRUPTED, "killed by SIGKILL"),
    told("a job, SIGTERM before it listens", dies(signal.SIGTERM), Status.INTERRUPTED, "killed by SIGTERM"),
    told("a job, ended by 128 + SIGHUP", says(129), Status.INTERRUPTED, "SIGHUP"),
    told("a job, its disk full", says(1, "error: cannot write run.json: [Errno 28] No space left on device; make room"),
         Status.INTERRUPTED, "cannot write run.json: .*"),
    told("a job, SIGSEGV", dies(signal.SIGSEGV), Status.FAILED, "killed by SIGSEGV"),
    told("a job, SIGABRT", dies(signal.SIGABRT), Status.FAILED, "killed by SIGABRT"),
    told("a job, left without a word", says(0), Status.FAILED, "ended with exit code 0 and said nothing"),
    told("a log that is a link", log_is(link), Status.FAILED, "cannot write .*train.log: .*; remove it, or make room"),
    told("a log that is a pipe", log_is(os.mkfifo), Status.FAILED, "cannot write .*train.log: .*"),
    told("a log that is a folder", log_is(Path.mkdir), Status.FAILED, "cannot write .*train.log: .*"),
]  # fmt: skip
