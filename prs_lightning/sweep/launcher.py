"""The plugins that make ``train.py -m`` a sweep: ranges in overrides, and jobs as processes of this machine."""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from prs_lightning.errors import ConfigError, RunError, at_least
from prs_lightning.runs import RunDirectory, Status
from prs_lightning.runs.naming import recorded, run_directory
from prs_lightning.runs.status import note_runs
from prs_lightning.sweep import gpus as graphics
from prs_lightning.sweep import ranges
from prs_lightning.sweep.board import Board
from prs_lightning.sweep.plan import RUNNABLE, Job, decide
from prs_lightning.sweep.processes import kill, run_job

DEFAULT_SWEEP = "sweep"
GRACE_SECONDS = 20.0
VARIED = re.compile(r"(batch_size|seed)=(\d+)")


class RangeSweeper(BasicSweeper):
    """Hydra's own sweeper, which also knows ``seed=0..4``, and gives all jobs to the launcher at once.

    The launcher composes the jobs and makes the directories: Hydra would leave a file behind after a dry run.

    Args:
        params: overrides that the config brings along, for example ``{"seed": "0..4"}``; the command line wins.
    """

    launcher: Launcher
    hydra_context: HydraContext

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        return self.launcher.launch(ranges.jobs(overrides), initial_job_idx=0)


class SweepLauncher(Launcher):
    """What the launchers have in common: the plan, dry runs, and the end of a sweep."""

    config: DictConfig
    hydra_context: HydraContext
    script: Path
    board: Board

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.script = Path(sys.argv[0]).resolve()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = self.jobs(job_overrides)
        decisions = {job: self.decide(job) for job in jobs}
        if self.config.dry_run:
            for job, decision in decisions.items():
                word = decision if decision in RUNNABLE else f"skip ({decision})"
                print(f"{word:<22} {job.run.path}")
            return []
        note_runs(job.run for job in jobs)
        runnable = [job for job in jobs if decisions[job] in RUNNABLE]
        self.board = Board(runnable, (decision for decision in decisions.values() if decision not in RUNNABLE))
        try:
            with self.board:
                self.conduct(runnable)
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None
        self.board.close()
        outcomes = self.board.outcomes
        bad = [f"{outcomes[bad]} {bad}" for bad in (Status.FAILED, Status.INTERRUPTED) if outcomes[bad]]
        if bad:
            raise RunError(
                f"{' and '.join(bad)} of {len(jobs)} runs: the same command goes on with interrupted runs, "
                "and tries failed ones again with retry_failed=true"
            )
        if outcomes[Status.ELSEWHERE]:
            self.board.say("runs that another sweep holds were left to it")
        return []

    def conduct(self, jobs: Sequence[Job]) -> None:
        """Run the jobs, and tell the board what becomes of each."""
        raise NotImplementedError

    def decide(self, job: Job) -> Status:
        """What the job needs now."""
        return decide(job.run, retry_failed=self.config.retry_failed)

    def jobs(self, job_overrides: Sequence[Sequence[str]]) -> list[Job]:
        """Compose every job, so that a mistake in any of them is reported before the first starts.

        Raises:
            ConfigError: a sweep with one ``run_dir`` for all.
            RunError: a directory that holds a run of another config.
        """
        jobs: dict[Path, Job] = {}
        load = lru_cache(lambda *rest: self.hydra_context.config_loader.load_sweep_config(self.config, [*rest]))
        for overrides in job_overrides:
            # Jobs that differ in batch size and seed only are composed once, for it takes 0.1 s.
            varied = [match.groups() for override in overrides if (match := VARIED.fullmatch(override))]
            composed = copy.deepcopy(load(*(override for override in overrides if not VARIED.fullmatch(override))))
            for key, value in varied:
                OmegaConf.update(composed, key, int(value))
            chosen = composed.hydra.runtime.choices
            with open_dict(composed):
                del composed["hydra"]
            if composed.run_dir:
                raise ConfigError(
                    f"run_dir={composed.run_dir} is one directory for all jobs: set runs or sweep instead"
                )
            if not composed.sweep:
                overrides, composed.sweep = [*overrides, f"sweep={DEFAULT_SWEEP}"], DEFAULT_SWEEP
            plain: Any = OmegaConf.to_container(composed, resolve=True)
            config = recorded(plain, chosen)
            run = RunDirectory(run_directory(config, chosen))
            run.check(config)
            jobs.setdefault(run.path, Job(tuple(overrides), run, config))
        return list(jobs.values())


class ProcessLauncher(SweepLauncher):
    """Runs each job as a process of this machine.

    Args:
        jobs: how many at a time; null for one per GPU slot, or 1 without a GPU.
        gpus: ``auto`` for all that are visible, a list of ids, or null to give jobs none of their own.
        jobs_per_gpu: how many jobs share a GPU.
    """

    def __init__(self, jobs: int | None = None, gpus: Any = "auto", jobs_per_gpu: int = 1) -> None:
        ids = graphics.visible() if gpus == "auto" else [str(gpu) for gpu in gpus or ()]
        self.gpus = graphics.GPUs(ids, jobs_per_gpu)
        self.at_once = max(1, self.gpus.slots) if jobs is None else jobs
        at_least("hydra.launcher.jobs", self.at_once, 1)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.stopping = False

    def conduct(self, jobs: Sequence[Job]) -> None:
        """Run the jobs in threads, ``at_once`` of them; whatever goes wrong, none is left behind."""
        wanted = {job: self.gpus.wanted(job.config["trainer"]) for job in jobs}
        if self.board.outcomes:
            self.board.say(self.board.summary())
        previous = signal.signal(signal.SIGTERM, _interrupt)
        futures: list[Future[None]] = []
        try:
            with ThreadPoolExecutor(self.at_once) as pool:
                try:
                    for job, gpus in wanted.items():
                        futures.append(pool.submit(self.run, job, gpus))
                    for future in as_completed(futures):
                        future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self.stop(futures)
                    raise
        except KeyboardInterrupt:
            self.board.close()
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)

    def run(self, job: Job, gpus: int) -> None:
        """Wait for GPUs, start the job and wait for its end; one that another sweep finished meanwhile is left."""
        with self.gpus.lent(gpus) as taken:
            if self.stopping:
                return
            decision = self.decide(job)

            def started(process: subprocess.Popen[bytes]) -> None:
                self.processes.append(process)
                self.board.started(job)
                self.board.say(f"{decision}: {job.run.path}")
                if self.stopping:  # since the job was looked at
                    process.terminate()

            outcome = decision
            if decision in RUNNABLE:
                outcome = run_job(job, self.script, self.environment(taken), None, started, lambda: self.stopping)
        self.board.ended(job, outcome)

    def environment(self, taken: Sequence[str]) -> dict[str, str]:
        """The job's GPUs; without GPUs, its share of the cores when several jobs run at a time."""
        if taken:
            return {"CUDA_VISIBLE_DEVICES": ",".join(taken)}
        if self.at_once == 1 or "OMP_NUM_THREADS" in os.environ:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.at_once))}

    def stop(self, futures: Sequence[Future[None]]) -> None:
        """Stop every job so that it can be taken up again; a second Ctrl-C kills those that have not stopped yet."""
        self.board.say("stopping: give the same command to go on", "bold yellow")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.stopping = True
        try:
            for process in [*self.processes]:
                process.terminate()
            # To wait(), one that was cancelled in the queue is never done.
            wait([future for future in futures if not future.cancelled()], timeout=GRACE_SECONDS)
        except KeyboardInterrupt:
            self.board.say("killing the jobs", "bold yellow")
        for process in [*self.processes]:
            if process.poll() is None:
                kill(process)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
