"""How every program of this project ends when it is asked to: at once, in one line, with exit code 128 + the signal.

A signal becomes an ``Interrupted`` in the main thread, from the first line of the program on, so that records are
closed on the way out. What does not get out in time (a call of C that waits for a process that is gone, an exception
that somebody swallowed) is ended by force. Only the standard library: this stands before all other imports.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from prs_lightning.errors import Interrupted, in_one_line
from prs_lightning.outputs import keep_writing

INTERRUPTING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Signals that people, terminals and schedulers send: what they end goes on when called again."""
FAULTS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP")
"""Signals by which a program dies of itself; any other came from outside."""
PARENT = "PRS_LIGHTNING_PARENT"  # environment variable: process id of the one with which a job or a rank is to end
GRACE_SECONDS = 5.0

LastWords = Callable[[BaseException], object]


class _Ending:
    """Why this process ends; None while it goes on. One per process."""

    error: BaseException | None = None
    asked: BaseException | None = None  # by another thread, for the main one to raise
    met: int | None = None  # the first signal, whether it was raised or not
    standing = False
    child = False  # of a process of this project, which speaks for it
    seconds = GRACE_SECONDS
    last_words: tuple[LastWords, ...] = ()
    speaking = threading.Lock()


def name_of(number: int) -> str:
    """The name of a signal, as shown to users.

    >>> name_of(15), name_of(2)
    ('SIGTERM', 'SIGINT (Ctrl-C)')
    """
    name = signal.Signals(number).name
    return "SIGINT (Ctrl-C)" if number == signal.SIGINT else name


def ended_by(code: int) -> int | None:
    """The signal that ended a process, from its exit code: its own (-n), or one that it turned into 128 + n.

    >>> ended_by(-9), ended_by(143), ended_by(1), ended_by(255)
    (9, 15, None, None)
    """
    number = -code if code < 0 else code - 128
    return number if number in signal.valid_signals() else None


def interruption(number: int) -> Interrupted:
    """The end that a signal asks for."""
    return Interrupted(name_of(number), 128 + number)


def is_global_zero() -> bool:
    """Whether this process is the one that writes: rank 0 of however many there are."""
    ranks = [os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")]
    return int(next((rank for rank in ranks if rank is not None), 0)) == 0


def is_child() -> bool:
    """Whether a process of this project started this one, and reads what it leaves behind."""
    return _Ending.child


def stand() -> None:
    """Take the signals for the rest of this program; to be called first thing, before imports that take their time."""
    if _Ending.standing:
        return
    _Ending.standing = True
    die_with_parent()
    keep_writing()
    _take()
    atexit.register(_leave)  # the first that is registered is the last that runs
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # C writes it, also while no Python runs
    threading.Thread(target=_enforce, args=(reader,), daemon=True, name="ending").start()
    os.register_at_fork(after_in_child=_let_go)
    sys.unraisablehook, sys.excepthook = _raise_again, _hide


@contextmanager
def closing_line() -> Iterator[None]:
    """Around the whole of a program: if it is interrupted, by a signal or otherwise, that is its last line."""
    try:
        yield
    except Interrupted as error:
        if _Ending.standing:
            end_with(error)  # said after all that others have to say
        else:
            print(error, file=sys.stderr)
        raise


@contextmanager
def interruptible() -> Iterator[None]:
    """Take the signals for a while, where ``stand`` has not: those that would kill the process or raise otherwise."""
    taken = _take() if threading.current_thread() is threading.main_thread() else {}
    try:
        yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)
        if not _Ending.standing:
            _Ending.error = _Ending.met = None


@contextmanager
def last_words(words: LastWords) -> Iterator[None]:
    """What is to be done with the reason if the process must be ended by force in here."""
    before = _Ending.last_words
    _Ending.last_words = (*before, words)
    try:
        yield
    finally:
        with _Ending.speaking:
            _Ending.last_words = before


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Give this process more time to end than usual, for others that end with it."""
    _Ending.seconds, before = seconds, _Ending.seconds
    try:
        yield
    finally:
        _Ending.seconds = before


def listen_again() -> None:
    """Let the next signal raise too; usually only the first does, so that none disturbs how records are closed."""
    _Ending.error = None


def interrupted() -> Interrupted | None:
    """That by which this process ends already, whatever other errors it meets on its way out; None if it does not."""
    return _Ending.error if isinstance(_Ending.error, Interrupted) else None


def met() -> int | None:
    """The first signal that this process met, or None."""
    return _Ending.met


def end_with(error: BaseException) -> None:
    """Note in the main thread why the program ends: it is said at the end, and no signal interrupts the way there."""
    _Ending.error = error


def end_main(error: BaseException) -> None:
    """From another thread: end the process with ``error``, raised in the main thread, in time or by force."""
    _Ending.asked = error
    with suppress(ProcessLookupError):  # the main thread is over
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    if _Ending.standing:
        time.sleep(_Ending.seconds)
        _force(error)


@contextmanager
def as_parent() -> Iterator[None]:
    """Start processes of this project in here that are to end with this one."""
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(PARENT, None)


def die_with_parent() -> None:
    """Ask the system to kill this process when the one that started it dies.

    A job whose sweep was killed would otherwise train on unseen, and a rank whose main process was killed would wait
    for it for ever.
    """
    if (parent := os.environ.pop(PARENT, None)) is None:
        return
    _Ending.child = True
    if sys.platform.startswith("linux"):
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    else:
        threading.Thread(target=_follow, args=(int(parent),), daemon=True, name="parent").start()
    if os.getppid() != int(parent):  # it died before we could ask
        os.kill(os.getpid(), signal.SIGKILL)


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _take() -> dict[int, Any]:
    """Handle the signals that nobody handles, and give what was before; ignored ones stay so, as nohup asks for."""
    numbers = [getattr(signal, name) for name in INTERRUPTING if hasattr(signal, name)]
    free = (signal.SIG_DFL, signal.default_int_handler)
    return {number: signal.signal(number, _interrupt) for number in numbers if signal.getsignal(number) in free}


def _interrupt(number: int, _: FrameType | None) -> None:
    if _Ending.asked is None:
        _Ending.met = _Ending.met or number
    if _Ending.error is None:  # or it is on its way out
        _Ending.error = _Ending.asked or interruption(number)
        raise _Ending.error


def _enforce(reader: int) -> None:
    """The thread that waits for a signal, and then for the end."""
    while (number := os.read(reader, 1)[0]) and signal.getsignal(number) is not _interrupt:
        pass  # somebody else's
    time.sleep(0.1)  # the main thread most often knows better why it ends
    error = _Ending.error or _Ending.asked or interruption(number)
    began = time.monotonic()
    while time.monotonic() < began + _Ending.seconds:
        time.sleep(0.1)
    _force(error)


def _force(error: BaseException) -> None:
    with _Ending.speaking:
        for words in reversed(_Ending.last_words):
            with suppress(Exception):
                words(error)
        _say(error)
        os._exit(_code(error))


def _leave() -> None:
    """At the very end of a program that does not end well: what was lost with other processes may hang from here on."""
    if (error := _Ending.error) is not None:
        if isinstance(error, Interrupted):
            _say(error)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(_code(error))


def _code(error: BaseException) -> int:
    return error.code if isinstance(error, Interrupted) else 1


def _say(error: BaseException) -> None:
    """The line that a program ends with; of several processes, the first one's."""
    line = str(error) if isinstance(error, Interrupted) else f"error: {in_one_line(error)}"
    if is_global_zero():
        with suppress(OSError):
            os.write(2, f"{line}\n".encode())


def _let_go() -> None:
    """In a child by fork, such as a worker that reads images: it ends with its parent, without a word."""
    signal.set_wakeup_fd(-1)
    for name in INTERRUPTING:
        if (number := getattr(signal, name, None)) and signal.getsignal(number) is _interrupt:
            # Ctrl-C reaches all that belong to the terminal; the parent sees to its workers itself.
            signal.signal(number, signal.SIG_IGN if name == "SIGINT" else signal.SIG_DFL)
    atexit.unregister(_leave)


def _hide(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An import that a signal cut may leave by another error: the signal is why the program ends."""
    if interrupted() is None:
        sys.__excepthook__(kind, error, trace)


def _raise_again(lost: Any) -> None:
    """Python drops an exception that a handler raises in ``__del__``: meet the signal once more."""
    if lost.exc_value is None or lost.exc_value is not _Ending.error:
        sys.__unraisablehook__(lost)
        return
    again, _Ending.error = lost.exc_value, None
    timer = threading.Timer(0.1, end_main, (again,))  # in here it would be dropped, too
    timer.daemon = True
    timer.start()
