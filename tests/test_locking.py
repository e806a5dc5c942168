"""Locks: of one holder at a time, freed by its death, also where the file system has none; looking writes nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prs_lightning.errors import RunError
from prs_lightning.runs import locking
from prs_lightning.runs.locking import held, is_held
from tests.conftest import PROJECT

WITHOUT = (
    "import errno, fcntl, os, sys, time; from pathlib import Path\n"
    "def flock(*_): raise OSError(errno.ENOLCK, 'No locks available')\n"
    "fcntl.flock = flock\n"
    "from prs_lightning.runs.locking import held\n"
    "with held(Path(sys.argv[1])) as free: print(free, flush=True); {}"
)


@pytest.fixture(params=["flock", "lease"])
def lock(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file, on a file system with flock and on one without."""
    if request.param == "lease":
        without_flock(monkeypatch)
    return tmp_path / ".lock"


def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_one_holds_it_and_others_see_that(lock: Path) -> None:
    assert not is_held(lock)
    assert not lock.exists(), "looking makes none"
    with held(lock) as free:
        assert free
        assert is_held(lock)
        with held(lock) as free_too:
            assert not free_too
        assert is_held(lock)
    assert not is_held(lock)
    with held(lock) as free:
        assert free


def test_a_killed_holder_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch)
    lock = tmp_path / ".lock"
    code = WITHOUT.format("os.kill(os.getpid(), 9)")
    done = subprocess.run([sys.executable, "-c", code, str(lock)], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
    assert lock.with_name(".lock.lease").exists()
    assert not is_held(lock)
    with held(lock) as free:
        assert free


def test_a_live_holder_in_another_process_holds_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / ".lock"
    line = [sys.executable, "-c", WITHOUT.format("time.sleep(60)"), str(lock)]
    with subprocess.Popen(line, cwd=PROJECT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        without_flock(monkeypatch)
        assert is_held(lock)
        with held(lock) as free:
            assert not free
        process.kill()
    assert not is_held(lock)


def test_a_machine_that_gives_no_sign_of_life_loses_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch)
    monkeypatch.setattr(locking, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(locking, "GLANCE_SECONDS", 0.05)
    lock, lease = tmp_path / ".lock", tmp_path / ".lock.lease"
    lease.write_text("filelock/2\npid=1\nhost=another\nmode=lease\ntoken=00\nduration=0.3\n")
    lock.touch()
    assert is_held(lock), "it may live"
    os.utime(lease, (1, 1))
    assert not is_held(lock)
    with held(lock) as free:
        assert free


def test_who_lost_the_lease_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    without_flock(monkeypatch)
    monkeypatch.setattr(locking, "LEASE_SECONDS", 0.3)
    met: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: met.append(number))
    try:
        with held(tmp_path / ".lock"):
            (tmp_path / ".lock.lease").unlink()
            end = time.monotonic() + 5
            while not met and time.monotonic() < end:
                time.sleep(0.02)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert met == [signal.SIGTERM]
    assert "was lost" in capfd.readouterr().err


def test_looking_needs_no_right_to_write(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.open

    def read_only(path: str, flags: int, *more: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return usual(path, flags, *more)

    lock.touch()
    monkeypatch.setattr(os, "open", read_only)
    assert not is_held(lock)
    with pytest.raises(RunError, match=r"cannot write .*\.lock: Read-only file system"):
        with held(lock):
            pytest.fail("held")


@pytest.mark.parametrize("harm", [lambda lock: lock.mkdir(), lambda lock: lock.symlink_to("elsewhere")])
def test_what_is_no_lock_file_is_refused_in_one_line(tmp_path: Path, harm) -> None:
    lock = tmp_path / ".lock"
    harm(lock)
    assert not is_held(lock)
    with pytest.raises(RunError, match=r"cannot write .*\.lock: "):
        with held(lock):
            pytest.fail("held")
    assert not (tmp_path / "elsewhere").exists()
