"""What launchers have in common, and the one for jobs as processes of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError, Interrupted, RunError, printable
from prs_lightning.runs import RunDirectory, Status
from prs_lightning.runs.finding import note_runs
from prs_lightning.runs.naming import flatten, place
from prs_lightning.schema import check_training
from prs_lightning.signals import interruptible, listen_again, patience
from prs_lightning.sweep import arguments
from prs_lightning.sweep.board import Board
from prs_lightning.sweep.processes import ASKED_FULL_ERROR, RUNNABLE, Job, decide, full_error, kill, run_job

DEFAULT_SWEEP = "sweep"
SWEEPER = "hydra_plugins.prs_lightning_sweep.RangeSweeper"
GRACE_SECONDS = 7.0  # for the jobs, which take 5 at most
PATIENCE_SECONDS = 9.0  # for the sweep
VARIED = re.compile(r"(batch_size|seed)=(\d+)")


class SweepLauncher(Launcher):
    """What the launchers have in common: the plan, dry runs, and the end of a sweep."""

    config: DictConfig
    hydra_context: HydraContext
    command: list[str]
    board: Board

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        if config.hydra.sweeper._target_ != SWEEPER:
            raise ConfigError("hydra/sweeper must be ranges: the launchers take jobs from it alone")
        self.hydra_context, self.config = hydra_context, config
        self.command = arguments.command_of_a_job(config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        raise NotImplementedError("the sweeper plans and starts the jobs in two steps")

    def start(self, jobs: Sequence[Job]) -> None:
        """Run those of the jobs that are to be run.

        Raises:
            RunError: some failed or were interrupted.
        """
        decisions = {job: decide(job.run, retry_failed=self.config.retry_failed) for job in jobs}
        if self.config.dry_run:
            for job, decision in decisions.items():
                word = decision if decision in RUNNABLE else f"skip ({decision})"
                print(printable(f"{word:<22} {job.run.path}"))
            return
        for line in note_runs([job.run for job in jobs]):
            print(f"warning: {line}", file=sys.stderr)
        runnable = [job for job in jobs if decisions[job] in RUNNABLE]
        self.board = Board(runnable, (decision for decision in decisions.values() if decision not in RUNNABLE))
        with self.board, full_error(ASKED_FULL_ERROR), interruptible(), patience(PATIENCE_SECONDS):
            self.conduct(runnable)
        self.board.close()
        outcomes = self.board.outcomes
        if bad := [f"{outcomes[each]} {each}" for each in (Status.FAILED, Status.INTERRUPTED) if outcomes[each]]:
            raise RunError(
                f"{' and '.join(bad)} of {len(jobs)} runs: the same command goes on with interrupted runs, "
                "and tries failed ones again with retry_failed=true"
            )
        if outcomes[Status.ELSEWHERE]:
            self.board.say("runs that another sweep holds were left to it")

    def conduct(self, jobs: Sequence[Job]) -> None:
        """Run the jobs, and tell the board what becomes of each."""
        raise NotImplementedError

    def jobs(self, job_overrides: Sequence[Sequence[str]], planned: dict[Path, Job]) -> list[Job]:
        """Compose every job, so that a mistake in any of them is reported before the first starts.

        Args:
            planned: the jobs of other experiments, by directory; what is planned here is added.

        Raises:
            ConfigError: a sweep with one ``run_dir`` for all, or jobs of different configs for one directory.
            RunError: a directory that holds a run of another config.
        """
        before = len(planned)

        @lru_cache
        def load(*rest: str) -> tuple[DictConfig, Any]:
            loaded = self.hydra_context.config_loader.load_sweep_config(self.config, [*rest])
            composed = OmegaConf.masked_copy(loaded, [str(key) for key in loaded if key != "hydra"])
            arguments.check(composed, loaded.hydra)
            return composed, loaded.hydra

        common = {*job_overrides[0]}.intersection(*job_overrides) if job_overrides else set()
        for overrides in job_overrides:
            own = [override for override in overrides if override not in common]
            try:
                self._plan(overrides, load, planned)
            except ConfigError as error:
                if any(override in str(error) for override in own):
                    raise
                raise ConfigError(f"{' '.join(own)}: {error}" if own else str(error)) from error
        return list(planned.values())[before:]

    def _plan(
        self, overrides: Sequence[str], load: Callable[..., tuple[DictConfig, Any]], planned: dict[Path, Job]
    ) -> None:
        """Compose one job and check it."""
        # Jobs that differ in batch size and seed only are composed once, for it takes 0.1 s.
        varied = [match.groups() for override in overrides if (match := VARIED.fullmatch(override))]
        loaded, hydra = load(*(override for override in overrides if not VARIED.fullmatch(override)))
        composed = loaded.copy()
        for key, value in varied:
            composed[key] = int(value)
        if composed.run_dir:
            raise ConfigError(f"run_dir={composed.run_dir} is one directory for all jobs: set runs or sweep instead")
        if composed.sweep is None:
            given = [override for override in overrides if not override.startswith("sweep=")]
            overrides, composed.sweep = [*given, f"sweep={DEFAULT_SWEEP}"], DEFAULT_SWEEP
        plain: Any = OmegaConf.to_container(composed, resolve=True)
        check_training(plain, arguments.helpers(composed))
        path, config = place(composed, hydra)
        run = RunDirectory(path)
        if run.damage is None:  # its job makes anew what was harmed, or says why it cannot
            run.check(config)
        job = planned.setdefault(path, Job(tuple(overrides), run, config))
        if job.config != config:
            there, here = flatten(job.config), flatten(config)
            keys = ", ".join(sorted(key for key in here if there.get(key, "") != here[key]))
            raise ConfigError(f"jobs that differ in {keys} alone share {path}: give each its command and sweep=")


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all that nvidia-smi lists."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    listed = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(index) for index, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


class ProcessLauncher(SweepLauncher):
    """Runs each job as a process of this machine.

    Args:
        jobs: how many at a time; null for one per GPU slot, or 1 without a GPU.
        gpus: ``auto`` for all that are visible, a list of ids, or null to give jobs none of their own.
        jobs_per_gpu: how many jobs share a GPU.
    """

    def __init__(self, jobs: int | None = None, gpus: Any = "auto", jobs_per_gpu: int = 1) -> None:
        ids = visible_gpus() if gpus == "auto" else [str(gpu) for gpu in gpus or ()]
        self.slots = Counter(dict.fromkeys(ids, jobs_per_gpu))  # how many more jobs each GPU takes now
        self.at_once = max(1, self.slots.total()) if jobs is None else jobs
        self.processes: list[subprocess.Popen[bytes]] = []
        self.stopping = False

    def conduct(self, jobs: Sequence[Job]) -> None:
        """Run the jobs in threads, ``at_once`` of them; whatever goes wrong, none is left behind.

        Jobs start in their order: one of two GPUs would otherwise wait for ever behind jobs of one.
        """
        wanted = {job: self.gpus_wanted(job.config["trainer"]) for job in jobs}
        if self.board.outcomes:
            self.board.say(self.board.summary())
        running: dict[Future[None], list[str]] = {}
        try:
            with ThreadPoolExecutor(self.at_once) as pool:
                try:
                    for job, count in wanted.items():
                        while len(running) == self.at_once or (taken := self.take_gpus(count)) is None:
                            self.await_one(running)
                        running[pool.submit(self.run, job, taken)] = taken
                    while running:
                        self.await_one(running)
                except BaseException:
                    self.stop(running)
                    raise
        except Interrupted:
            self.board.close()
            raise

    def gpus_wanted(self, trainer: Mapping[str, Any]) -> int:
        """How many GPUs a job with this ``trainer`` config needs.

        Raises:
            ConfigError: more than there are.
        """
        if not self.slots or trainer.get("accelerator") == "cpu":
            return 0
        devices = trainer.get("devices", 1)
        if isinstance(devices, list):
            devices = len(devices)
        count = len(self.slots) if devices in ("auto", -1, "-1") else int(devices)
        if count > len(self.slots):
            there = f"{len(self.slots)} GPUs: {', '.join(self.slots)}"
            raise ConfigError(f"trainer.devices={count}, but the sweep has {there}")
        return count

    def take_gpus(self, count: int) -> list[str] | None:
        """``count`` different GPUs, the least used first; None, and none is taken, while so many are not free."""
        taken = [gpu for gpu, slots in self.slots.most_common(count) if slots > 0]
        if len(taken) < count:
            return None
        self.slots.subtract(taken)
        return taken

    def await_one(self, running: dict[Future[None], list[str]]) -> None:
        """Wait until a job has ended, and take its GPUs back."""
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            self.slots.update(running.pop(future))
            future.result()

    def run(self, job: Job, gpus: Sequence[str]) -> None:
        """Start the job and wait for its end; one that another sweep finished meanwhile is left."""
        outcome = decision = decide(job.run, retry_failed=self.config.retry_failed)

        def started(process: subprocess.Popen[bytes]) -> None:
            self.processes.append(process)
            self.board.started(job)
            self.board.say(f"{decision}: {job.run.path}")
            if self.stopping:  # since the job was submitted
                process.terminate()

        if decision in RUNNABLE:
            outcome = run_job(job, self.command, self.environment(gpus), started, lambda: self.stopping)
        self.board.ended(job, outcome)

    def environment(self, gpus: Sequence[str]) -> dict[str, str]:
        """The job's GPUs; without GPUs, its share of the cores when several jobs run at a time."""
        if gpus:
            return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        if self.at_once == 1 or "OMP_NUM_THREADS" in os.environ:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.at_once))}

    def stop(self, running: Iterable[Future[None]]) -> None:
        """Stop every job so that it can be taken up again; a second signal kills those that have not stopped yet."""
        self.board.say("stopping: give the same command to go on", "bold yellow")
        self.stopping = True
        listen_again()
        try:
            for process in [*self.processes]:
                process.terminate()
            wait(running, timeout=GRACE_SECONDS)
        except Interrupted:
            self.board.say("killing the jobs", "bold yellow")
        for process in [*self.processes]:
            if process.poll() is None:
                kill(process)
