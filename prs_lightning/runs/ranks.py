"""The processes of one training: when one of them ends, all end, for the reason of the one that was first.

The first process keeps the record. It starts the others, or torchrun or Slurm does. One that meets an error leaves a
note in the run directory, which the first reads; one that was killed leaves nothing but its exit code.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from prs_lightning import signals
from prs_lightning.errors import ConfigError, Interrupted, RunError, in_one_line
from prs_lightning.runs.directory import RunDirectory, Status, reason_of
from prs_lightning.runs.writing import write_text

LOOK_SECONDS = 0.2
NOTICE_SECONDS = 2.0
"""How long an end takes at most to be seen by others: the exit of a process, a signal that goes to all of them."""
LOST = re.compile(r"gloo|nccl|Connection (closed|reset|refused)|Broken pipe|store->|Socket", re.I)
"""What a RuntimeError says where another process is gone."""
GONE = "another process of this training is gone"
WORKER = re.compile(r"DataLoader worker .*killed by signal: ([\w ]+)")
ASKED_TO_END = {str(signal.strsignal(number)): number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}


class Ranks(_SubprocessScriptLauncher):
    """Lightning's launcher of the other processes, which die with this one, and whose end is no riddle."""

    def __init__(self, launcher: _SubprocessScriptLauncher, run: RunDirectory) -> None:
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self.run, self.ranks = run, list[subprocess.Popen[bytes]]()

    def _call_children_scripts(self) -> None:
        with signals.as_parent():
            super()._call_children_scripts()
        self.ranks, self.procs = self.procs, []  # Lightning's observer would kill this process without a word
        threading.Thread(target=self._watch, daemon=True, name="ranks").start()

    def kill(self, signum: int) -> None:
        for rank in self.ranks:
            rank.send_signal(signum)

    def _watch(self) -> None:
        while all((code := rank.poll()) is None or code == 0 for rank in self.ranks):
            if all(rank.returncode == 0 for rank in self.ranks):
                return
            time.sleep(LOOK_SECONDS)
        time.sleep(1.0)  # the first process may know better why training ends
        signals.end_main(self.why() or RunError("another process of this training ended"))

    def why(self) -> BaseException | None:
        """Why another process ended, as far as it can be told now."""
        told = [json.loads(note.read_text()) for note in notes(self.run)]
        codes = {number: code for number, rank in enumerate(self.ranks, start=1) if (code := rank.poll())}
        killed = {number: code for number, code in codes.items() if signals.ended_by(code)}
        first = [note for note in told if not note["gone"]]
        if not first and (killed or (codes and not told)):
            number, code = next(iter((killed or codes).items()))
            return end_of_a_process(f"rank {number} (process {self.ranks[number - 1].pid})", code)
        for note in [*first, *told]:
            if note["traceback"]:
                print(note["traceback"], file=sys.stderr)
            if note["interrupted"]:
                return Interrupted(f"{note['reason']} of rank {note['rank']}", note["code"])
            return RunError(f"rank {note['rank']}: {note['reason']}")
        return None


def end_of_a_process(what: str, code: int) -> BaseException:
    """The error that tells of a process that ended with ``code`` and said nothing.

    >>> end_of_a_process("rank 1", -9)
    Interrupted('interrupted: rank 1 was killed by SIGKILL; the same command goes on')
    >>> end_of_a_process("rank 1", -11)
    RunError('rank 1 died of SIGSEGV')
    """
    if (number := signals.ended_by(code)) is None:
        return RunError(f"{what} ended with exit code {code}: what it said stands above")
    name = signal.Signals(number).name
    if name in signals.FAULTS:
        return RunError(f"{what} died of {name}")
    return Interrupted(f"{what} was killed by {name}", 128 + number)


def notes(run: RunDirectory) -> list[Path]:
    """What processes of this training left behind that met an error."""
    return sorted(run.path.glob(".rank-*.json"))


def watch_ranks(trainer: Trainer, run: RunDirectory) -> None:
    """Let ``trainer`` start and lose other processes as this module says, and meet signals as all programs here do."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = Ranks(launcher, run)
    # Lightning's handler of SIGTERM waits for other processes, for ever.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


class OneEnd(Callback):
    """The first of all callbacks to hear of an error: it finds the cause, and ends the other processes."""

    cause: BaseException | None = None  # where it is another than what was raised

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        launcher = trainer.strategy.launcher
        ranks = launcher if isinstance(launcher, Ranks) else None
        cause: BaseException | None = signals.interrupted()
        if cause is None:
            signals.end_with(exception)  # a signal would only disturb what follows
            cause = cause_of(exception, ranks)
        if cause is not exception:
            self.cause = cause
            signals.end_with(cause)
        if ranks:
            ranks.kill(signal.SIGKILL)  # or they would wait, or complain, that this one is gone


def cause_of(error: BaseException, ranks: Ranks | None) -> BaseException:
    """``error``, unless it only tells that another process is gone: then why that one is."""
    if isinstance(error, SystemExit) and not isinstance(error, Interrupted):
        by_hand = isinstance(error.__context__, KeyboardInterrupt)  # of which Lightning makes an exit
        return signals.interruption(signal.SIGINT) if by_hand else Interrupted(f"sys.exit({error.code}) was called")
    if not isinstance(error, RuntimeError):
        return error
    if (worker := WORKER.search(f"{error} {error.__cause__}")) and (number := ASKED_TO_END.get(worker[1].strip())):
        return end_of_a_process("a process that reads images", -number)
    if not (ranks and is_of_other_processes(error)):
        return error
    end = time.monotonic() + NOTICE_SECONDS
    while time.monotonic() < end:
        if met := signals.met():  # what ended the other was sent to all
            return signals.interruption(met)
        if cause := ranks.why():
            return cause
        time.sleep(LOOK_SECONDS)
    codes = [rank.poll() for rank in ranks.ranks]
    if 0 in codes:
        return RunError(f"rank {codes.index(0) + 1} left in the middle of training, with exit code 0")
    if codes and not any(codes):
        return error  # nobody is gone: it is its own
    return Interrupted(f"{GONE} ({in_one_line(error)[:200]})")


def is_of_other_processes(error: BaseException) -> bool:
    """Whether an error is one that processes meet of which another one is gone."""
    return bool(LOST.search(str(error))) or isinstance(error, getattr(torch.distributed, "DistError", ()))


@contextmanager
def one_end(trainer: Trainer, run: RunDirectory) -> Iterator[None]:
    """Around ``fit``: raise the cause that ``OneEnd`` found; other processes than the first leave it as a note."""

    def clear() -> None:
        if trainer.is_global_zero:
            for note in notes(run):
                note.unlink(missing_ok=True)

    clear()
    words = partial(last_words, trainer, run)
    try:
        with signals.last_words(words):
            yield
    except BaseException as error:
        (ended,) = (each for each in trainer.callbacks if isinstance(each, OneEnd))  # type: ignore[attr-defined]
        cause = ended.cause or signals.interrupted() or cause_of(error, None)
        signals.end_with(cause)
        if not trainer.is_global_zero:
            leave_note(run, trainer.global_rank, cause)
            if signals.is_child():  # the first process speaks for it
                sys.exit(cause.code if isinstance(cause, Interrupted) else 1)
        if cause is error:
            raise
        raise cause from None
    finally:
        clear()


def last_words(trainer: Trainer, run: RunDirectory, error: BaseException) -> None:
    """Close the record where the process must be ended by force."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, Ranks):
        launcher.kill(signal.SIGKILL)
    if trainer.is_global_zero:
        run.mark(Status.INTERRUPTED if isinstance(error, Interrupted) else Status.FAILED, {}, reason_of(error))


def leave_note(run: RunDirectory, rank: int, cause: BaseException) -> None:
    """Tell the first process why this one ends."""
    reason = cause.reason if isinstance(cause, Interrupted) else in_one_line(f"{type(cause).__name__}: {cause}")
    mendable = isinstance(cause, ConfigError | RunError | Interrupted)
    told = {
        "rank": rank,
        "reason": reason,
        "interrupted": isinstance(cause, Interrupted),
        "code": cause.code if isinstance(cause, Interrupted) else 1,
        "gone": reason.startswith(GONE),
        "traceback": None if mendable else "".join(traceback.format_exception(cause)),
    }
    with suppress(RunError):
        if run.path.is_dir():
            write_text(run.path / f".rank-{rank}.json", json.dumps(told))
