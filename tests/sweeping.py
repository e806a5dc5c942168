"""Helpers of the sweep's tests: start a sweep, kill it, and compare what two sweeps left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prs_lightning.runs import RunDirectory, find_runs
from tests.conftest import given_once

PROJECT = Path(__file__).parent.parent
SLEEPY, REAL = PROJECT / "tests" / "sleepy_train.py", PROJECT / "train.py"
SMALL = ("data=mnist5k", "logger=none", "callbacks=none", "data.train_limit=100", "data.test_limit=20")
PATIENCE = 600.0


def start(script: Path, folder: Path, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """A sweep in a process group of its own."""
    line = [sys.executable, str(script), "-m", *given_once(f"runs={folder}", *SMALL, *overrides)]
    threads = {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        line, cwd=folder.parent, env={**os.environ, **threads, **environment}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def sweep(script: Path, folder: Path, *overrides: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of a sweep that is left alone."""
    return end(start(script, folder, *overrides, **environment))


def end(process: subprocess.Popen[str], patience: float = PATIENCE) -> tuple[int, str]:
    """Exit code and output of a sweep, which is killed if it takes too long."""
    try:
        output, _ = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return process.returncode, output


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the whole process group, as a lost session or a full machine would do."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    """Wait until ``condition()`` holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited {patience:.0f} s for {what}"
        time.sleep(0.02)


def statuses(folder: Path) -> dict[str, str | None]:
    """Status of every run, by name."""
    return {run.path.name: run.status for run in find_runs(folder)}


def measures(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of every finished run, without the times."""
    return {
        run.path.name: [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.rows()]
        for run in find_runs(folder)
        if run.status == "finished"
    }


def processes_in(folder: Path) -> list[int]:
    """Processes whose command line names ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has just ended
    return found


def only_run(folder: Path, part: str) -> RunDirectory:
    """The run whose name holds ``part``."""
    (found,) = [run for run in find_runs(folder) if part in run.path.name]
    return found


def epochs_trained(folder: Path) -> dict[str, Sequence[str]]:
    """The epochs that each run of the sleepy script trained, in the order in which it did."""
    return {file.parent.name: file.read_text().split() for file in folder.rglob("trained.txt")}
