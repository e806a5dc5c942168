"""Helpers of the tests of how processes end: a run that is slow enough to be hit, its processes, signals to them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from tests.conftest import PROJECT, SMALL, given_once
from tests.sweeping import processes_in, wait_for
from tests.test_training import NETWORK

PROMISED_SECONDS = 10.0
SLOW = (NETWORK, "+callbacks.slow._target_=tests.ending.Slow")
NOISE = re.compile(r"Initializing distributed|^\[W|^$")
"""What Lightning and torch say of several processes, however they end."""


class Slow(Callback):
    """Gives each epoch a moment in which it can be hit; fails in the first epoch where the environment says so."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if os.environ.get("FAILING_RANK") == str(trainer.global_rank):
            raise ValueError("this rank fails")
        time.sleep(float(os.environ.get("SLOW_SECONDS", "0.2")))


def start(where: Path, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """train.py, in a session of its own, whose signals are those of a terminal."""
    line = given_once(*SMALL, *SLOW, f"run_dir={where}", *overrides)
    return subprocess.Popen(
        [sys.executable, str(PROJECT / "train.py"), *line], cwd=PROJECT, start_new_session=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def ranks(where: Path) -> list[int]:
    """The processes that the first one of a training started, as far as they have come to a command line."""

    def is_rank(pid: int) -> bool:
        try:
            return b"train_ddp_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    return [pid for pid in processes_in(where) if is_rank(pid)]


def hit(process: subprocess.Popen[str], where: Path, number: int, target: str) -> None:
    """Send a signal to the ``main`` process, to a ``rank``, or to ``all``."""
    with suppress(ProcessLookupError):  # it has just ended
        if target == "all":
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid if target == "main" else (ranks(where) or [process.pid])[0], number)


def end(process: subprocess.Popen[str], where: Path) -> tuple[int, list[str]]:
    """Exit code and error output, once all processes are gone, which they promise to be."""
    began = time.monotonic()
    _, said = process.communicate(timeout=PROMISED_SECONDS)
    wait_for(lambda: not processes_in(where), "all processes to end", PROMISED_SECONDS - (time.monotonic() - began))
    return process.returncode, [line for line in said.splitlines() if not NOISE.search(line)]


def python(code: str, **keywords: Any) -> subprocess.Popen[str]:
    """A small program that does ``code``, with all names of ``prs_lightning.signals``."""
    lines = f"import os, signal, sys, time\nfrom prs_lightning.signals import *\n{code}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", lines], cwd=PROJECT, text=True, **pipes, **keywords)
