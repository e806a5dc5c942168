"""Sweeps on Slurm and Ray: their own Hydra launchers start the jobs, each job is the same process as on one machine.

The plan is made here, once, by the process that submits; what was finished or failed is never submitted, and no rank
decides anything. Every machine must see the same folder of runs under the same path.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError, Interrupted
from prs_lightning.runs import RunDirectory, Status
from prs_lightning.signals import PARENT, is_global_zero
from prs_lightning.sweep.launcher import SweepLauncher
from prs_lightning.sweep.processes import Job, run_job

POLL_SECONDS = 2.0


def run_here(cfg: DictConfig, *, command: Sequence[str], folder: Path) -> Status:
    """The task of a job where the engine put it: train in a process of its own, and give the outcome.

    With one task per device (Slurm) every task starts its rank, and the first keeps the record.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    job = Job(tuple(HydraConfig.get().overrides.task), RunDirectory(config["run_dir"]), config)
    with chdir(folder):
        if is_global_zero():
            return run_job(job, command)
        environment = {**os.environ, PARENT: str(os.getpid())}
        code = subprocess.run([sys.executable, *command, *job.overrides], env=environment, check=False).returncode
    return Status.FINISHED if code == 0 else Status.FAILED


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

    def conduct(self, jobs: Sequence[Job]) -> None:
        task = partial(run_here, command=self.command, folder=Path.cwd())
        self.engine.setup(hydra_context=self.hydra_context, task_function=task, config=self.config)
        self.board.say(self.board.summary())
        over = threading.Event()
        before = {job: job.run.record_if_whole() for job in jobs}
        follower = threading.Thread(target=self.follow, args=(before, over))
        follower.start()
        try:
            problems = self.hand_over(jobs)
        except Interrupted:
            print("no longer watching; stop jobs with the engine's own tools, and give the same command to go on")
            raise
        finally:
            over.set()
            follower.join()
        for job in list(self.board.left):  # a run that has not said how it ended can be taken up again
            self.board.ended(job, Status.ELSEWHERE if job.run.locked else Status.INTERRUPTED)
        for problem in problems:
            self.board.say(f"the engine reports: {problem}", "red")

    def hand_over(self, jobs: Sequence[Job]) -> list[Exception]:
        """Launch the jobs, wait for their end, and give what the engine raises; the run directories tell the rest."""
        problems = []
        try:
            overrides = [job.overrides_at(job.run.path.absolute()) for job in jobs]
            for result in self.engine.launch(overrides, 0) if overrides else []:
                try:
                    _ = result.return_value
                except Exception as error:
                    problems.append(error)
        except Exception as error:  # of all kinds, for a lost job
            problems.append(error)
        return problems

    def follow(self, before: Mapping[Job, Mapping[str, Any]], over: threading.Event) -> None:
        """Tell the board what becomes of jobs on other machines, from the records in their run directories."""
        last = False
        while not last:
            last = over.wait(POLL_SECONDS)
            for job in list(self.board.left):
                if (record := job.run.record_if_whole()) in (before[job], {}):
                    continue
                if record["status"] == Status.RUNNING:
                    self.board.started(job)
                else:
                    self.board.ended(job, Status(record["status"]))
