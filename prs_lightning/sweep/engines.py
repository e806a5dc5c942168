"""Sweeps on Slurm and Ray: their own Hydra launchers start the jobs, each job is the same process as on one machine.

The plan is made here, once, by the process that submits; what was finished or failed is never submitted, and no rank
decides anything. Every machine must see the same folder of runs under the same path.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError
from prs_lightning.runs import RunDirectory, Status
from prs_lightning.runs.directory import is_global_zero
from prs_lightning.sweep.board import Board
from prs_lightning.sweep.launcher import SweepLauncher, raise_if_failed
from prs_lightning.sweep.plan import Job
from prs_lightning.sweep.processes import PARENT, JobProcess, command, quoted

POLL_SECONDS = 2.0


def run_job(cfg: DictConfig, *, script: Path, folder: Path) -> Status:
    """The task of a job where the engine put it: train in a process of its own, and give the outcome.

    With one task per device (Slurm) every task starts its rank, and the first keeps the record.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    job = Job(tuple(HydraConfig.get().overrides.task), RunDirectory(config["run_dir"]), config)
    if not is_global_zero():
        environment = {**os.environ, PARENT: str(os.getpid())}
        line = command(script, job.overrides, job.run.path)
        code = subprocess.run(line, cwd=folder, env=environment, check=False).returncode
        return Status.FINISHED if code == 0 else Status.FAILED
    return JobProcess(job, script, folder=folder).end()


class EngineLauncher(SweepLauncher):
    """Hands the jobs that are to run to another Hydra launcher.

    Args:
        engine: class of that launcher.
        install: the extra of this project that brings it.
        jobs: how many at a time on one machine, as an experiment may set it; engines have limits of their own.
        parameters: what it takes.

    Raises:
        ConfigError: it is not installed.
    """

    def __init__(self, engine: str, install: str, jobs: int | None = None, **parameters: Any) -> None:
        module, _, name = engine.rpartition(".")
        try:
            self.engine: Launcher = getattr(importlib.import_module(module), name)(**parameters)
        except ModuleNotFoundError as error:
            raise ConfigError(f"hydra/launcher needs {module}: pip install 'prs-lightning[{install}]'") from error

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        task = partial(run_job, script=self.script, folder=Path.cwd())
        self.engine.setup(hydra_context=hydra_context, task_function=task, config=config)

    def conduct(self, jobs: Sequence[Job], skipped: Sequence[Status]) -> None:
        overrides = [[*job.overrides, f"run_dir={quoted(str(job.run.path.absolute()))}"] for job in jobs]
        watch = Watch(jobs)
        try:
            with Board(jobs, skipped, watch.running) as board:
                board.say(board.summary())
                with watch.following(board):
                    problems = self.launch_all(overrides)
                watch.close(board)
        except KeyboardInterrupt:
            print("no longer watching; stop jobs with the engine's own tools, and give the same command to go on")
            raise SystemExit(128 + signal.SIGINT) from None
        for problem in problems:
            board.say(f"the engine reports: {problem}", "red")
        board.close()
        raise_if_failed(board)

    def launch_all(self, overrides: Sequence[Sequence[str]]) -> list[Exception]:
        """Launch, wait for the end of every job, and give what went wrong outside the jobs' own processes."""
        problems: list[Exception] = []
        try:
            returned = self.engine.launch(overrides, 0) if overrides else []
        except Exception as error:  # engines raise all kinds for a lost job; the run directories tell the rest
            return [error]
        for result in returned:
            try:
                _ = result.return_value
            except Exception as error:
                problems.append(error)
        return problems


class Watch:
    """Tells a board what becomes of jobs on other machines, from the records in their run directories.

    Args:
        jobs: the jobs that were handed over.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.before = {job: job.run.record() for job in jobs}
        self.since: dict[Job, float] = {}

    def running(self) -> list[tuple[Job, float]]:
        """The jobs that train now, with the seconds since that was seen."""
        return [(job, time.monotonic() - since) for job, since in list(self.since.items())]

    @contextmanager
    def following(self, board: Board) -> Iterator[None]:
        """Look at the records every few seconds, in a thread of its own."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(POLL_SECONDS):
                self.look(board)

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def look(self, board: Board) -> None:
        """Take note of jobs that have begun, and of those that have ended and said so."""
        for job, before in list(self.before.items()):
            record = job.run.record()
            if record == before:
                continue
            if record["status"] == Status.RUNNING:
                self.since.setdefault(job, time.monotonic())
            else:
                self._end(job, Status(record["status"]), board)

    def close(self, board: Board) -> None:
        """Take note of the rest, when no job is left: a run that is not finished or failed can be taken up again."""
        self.look(board)
        for job in list(self.before):
            self._end(job, Status.ELSEWHERE if job.run.locked else Status.INTERRUPTED, board)

    def _end(self, job: Job, outcome: Status, board: Board) -> None:
        seconds = time.monotonic() - self.since.pop(job, time.monotonic())
        del self.before[job]
        board.ended(job, outcome, seconds)
