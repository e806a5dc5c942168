"""The parts of a sweep that need no sweep: decisions, GPUs, log tails, status, and what is uploaded."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from prs_lightning.errors import ConfigError, RunError
from prs_lightning.runs import RunDirectory, Status
from prs_lightning.runs import __main__ as status
from prs_lightning.runs.directory import SWEEP_LOCK
from prs_lightning.runs.finding import note_runs, noted_runs
from prs_lightning.runs.locking import held
from prs_lightning.sweep.board import Board
from prs_lightning.sweep.launcher import ProcessLauncher, visible_gpus
from prs_lightning.sweep.processes import PARENT, Job, decide, log_tail, run_job
from tests.sweeping import PROJECT, wait_for


def run_with(path: Path, said: str) -> RunDirectory:
    run = RunDirectory(path)
    run.update_record(status=said, reason="it broke" if said == "failed" else None, pid=1, host="here")
    return run


@pytest.mark.parametrize(
    ("said", "decision"),
    [("finished", "finished"), ("failed", "failed"), ("interrupted", "resume"), ("running", "resume")],
)
def test_the_decision_follows_from_the_record(tmp_path: Path, said: str, decision: str) -> None:
    run = run_with(tmp_path, said)
    run.write_rows([{"epoch": 1}])
    assert decide(run) == decision


def test_a_run_that_was_harmed_is_left_to_its_job(tmp_path: Path) -> None:
    """Which makes anew what was harmed, or says why it cannot."""
    run = run_with(tmp_path, "finished")
    run.write_rows([{"epoch": 1}])
    run.metrics_file.write_text("epoch\n")
    assert decide(run) == "resume"
    run.write_rows([{"epoch": 1}])
    run.record_file.write_text("[")
    assert decide(run) == "resume"
    run.mark(Status.FAILED, {"seed": 1}, "nobody knows")
    assert (run.status, (tmp_path / "run.json.aside").read_text()) == ("failed", "[")


def test_failed_runs_are_tried_again_only_when_asked_for(tmp_path: Path) -> None:
    assert decide(run_with(tmp_path, "failed"), retry_failed=True) == "retry"
    assert decide(RunDirectory(tmp_path / "new")) == "start"
    assert not (tmp_path / "new").exists()


def test_a_run_that_trains_elsewhere_is_left_alone(tmp_path: Path) -> None:
    run = run_with(tmp_path, "running")
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert decide(run) == "running elsewhere"
    assert decide(run) == "resume"


def test_only_one_sweep_can_claim_a_run_and_a_dead_one_claims_nothing(tmp_path: Path) -> None:
    job = Job((), RunDirectory(tmp_path), {})
    with held(tmp_path / SWEEP_LOCK):
        assert run_job(job, ["no script"]) == "running elsewhere"
    assert run_job(job, ["no script"]) == "failed"
    assert "no script" in job.run.record()["reason"]


def test_noted_jobs_add_up(tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path / name) for name in "abc"]
    note_runs(runs[:2])
    note_runs(runs[1:])
    assert noted_runs(tmp_path) == ["a", "b", "c"]


def test_a_sweep_says_that_its_note_was_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(tmp_path / "a", "finished")
    run.write_rows([{"epoch": 1}])
    (tmp_path / "sweep.json").write_text("{")
    launcher = ProcessLauncher(jobs=1)
    launcher.config = OmegaConf.create({"retry_failed": False, "dry_run": True})
    launcher.start([Job((), run, {"epochs": 1, "trainer": {}})])
    assert (tmp_path / "sweep.json").read_text() == "{"  # a plan writes nothing
    launcher.config.dry_run = False
    launcher.start([Job((), run, {"epochs": 1, "trainer": {}})])
    (line,) = capsys.readouterr().err.splitlines()
    assert "sweep.json is damaged" in line
    assert noted_runs(tmp_path) == ["a"]


def test_each_job_has_its_own_gpus_and_the_least_used_come_first() -> None:
    launcher = ProcessLauncher(gpus=["0", "1", "2"])
    assert [launcher.take_gpus(1), launcher.take_gpus(1), launcher.take_gpus(2)] == [["0"], ["1"], None]
    launcher.slots.update(["1"])
    assert launcher.take_gpus(2) == ["1", "2"]

    shared = ProcessLauncher(gpus=[0, 1], jobs_per_gpu=2)
    assert shared.at_once == 4
    assert [shared.take_gpus(1) for _ in range(5)] == [["0"], ["1"], ["0"], ["1"], None]


def test_jobs_of_many_gpus_start_in_their_turn_and_never_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job((), RunDirectory(tmp_path), {"epochs": 1, "trainer": {"devices": 1 + n % 3}}) for n in range(30)]
    launcher, taken, in_use = ProcessLauncher(jobs=4, gpus=[0, 1, 2]), dict[Job, list[str]](), list[str]()

    def run(job: Job, gpus: list[str]) -> None:
        taken[job] = gpus
        in_use.extend(gpus)
        time.sleep(0.005)
        assert len(set(in_use)) == len(in_use)
        for gpu in gpus:
            in_use.remove(gpu)

    monkeypatch.setattr(launcher, "run", run)
    launcher.board = Board(jobs, [])
    launcher.conduct(jobs)
    assert [(job, len(set(gpus))) for job, gpus in taken.items()] == [(job, 1 + n % 3) for n, job in enumerate(jobs)]
    assert launcher.slots == {"0": 1, "1": 1, "2": 1}


def test_a_job_wants_as_many_gpus_as_it_has_devices() -> None:
    wanted = ProcessLauncher(gpus=[0, 1]).gpus_wanted
    assert wanted({"devices": 2}) == wanted({"devices": "auto"}) == wanted({"devices": -1}) == 2
    assert wanted({"devices": 2, "accelerator": "cpu"}) == ProcessLauncher(gpus=[]).gpus_wanted({"devices": 2}) == 0
    with pytest.raises(ConfigError, match=r"trainer\.devices=3, but the sweep has 2 GPUs: 0, 1"):
        wanted({"devices": 3})


def test_gpus_are_those_that_the_process_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
    assert visible_gpus() == ["3", "GPU-abc"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_gpus_are_counted_by_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'GPU 0: A (UUID: x)\\nGPU 1: B (UUID: y)\\n'\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == ["0", "1"]


def test_the_estimate_is_proportional_to_the_epochs(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    board = Board([Job((), run, {"epochs": 9})], [])
    board.began -= 60
    assert board.summary() == "1 runs: 1 left, about ? to go"
    run.write_rows([{"epoch": epoch} for epoch in (1, 2, 3)])
    assert board.summary() == "1 runs: 1 left, about 0:02:00 to go"


@pytest.mark.parametrize("path", ["a b", "it's", "a,b=c", "a\\b", "a\\'b", "a\\\\", "[x]", "''"])
def test_any_path_survives_hydras_grammar(path: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = Job((), RunDirectory(path), {}).overrides_at(Path(path))
    (override,) = OverridesParser.create().parse_overrides(overrides)
    assert override.value() == path


def test_the_tail_of_a_log_is_short_however_long_the_log(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("\n".join(f"line {n}" for n in range(50_000)) + "\n\n")
    assert log_tail(RunDirectory(tmp_path), 2) == ["line 49998", "line 49999"]


def test_a_run_that_was_marked_failed_can_be_tried_again(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.mark(Status.FAILED, {"seed": 1}, "no data")
    run.check({"seed": 1})
    assert (run.status, run.record()["reason"]) == ("failed", "no data")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_a_job_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    job = (
        "import pathlib, time; from prs_lightning.signals import die_with_parent; die_with_parent(); "
        f"pathlib.Path({str(alive)!r}).write_text(str(__import__('os').getpid())); time.sleep(60)"
    )
    sweep = (
        f"import os, subprocess, sys; os.environ[{PARENT!r}] = str(os.getpid()); "
        f"subprocess.Popen([sys.executable, '-c', {job!r}]).wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", sweep], cwd=PROJECT)
    wait_for(lambda: alive.exists() and alive.read_text(), "the job to start", 30)
    child = int(alive.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "\nState:\tZ" in _status(child), "the job to die", 5)


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "\nState:\tZ"


def test_status_names_every_run_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    for name, said in {"a": "finished", "b": "failed", "c": "interrupted", "d": "running"}.items():
        run_with(folder / name, said)
    note_runs([RunDirectory(folder / name) for name in "abcde"])
    assert status.status_of(folder)[0] == [
        ("failed", "b", "it broke"),
        ("interrupted", "c", "its process 1 is gone without a word; the same command goes on"),
        ("interrupted", "d", "its process 1 is gone without a word; the same command goes on"),
        ("left", "e", "not started"),
        ("finished", "a", ""),
    ]
    status.main(["status", str(folder)])
    assert "1 finished, 0 running, 1 failed, 2 interrupted, 1 left" in capsys.readouterr().out
    with pytest.raises(RunError, match="no folder"):
        status.status_of(tmp_path / "absent")


def test_what_is_uploaded_is_what_finished_runs_kept_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, said in {"a": "finished", "b": "interrupted", "c": "finished"}.items():
        run_with(tmp_path / name, said)
        for part in ("20260102_000000", "20260101_000000"):
            (tmp_path / name / "wandb" / f"offline-run-{part}-{name}").mkdir(parents=True)
    started: list[list[str]] = []

    def keep(line: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        started.append(line)
        return subprocess.CompletedProcess(line, 3)

    monkeypatch.setattr(status.subprocess, "run", keep)
    assert status.sync(tmp_path) == 3
    assert started[0][1:4] == ["-m", "wandb", "sync"]
    names = [Path(folder).name for folder in started[0][4:]]
    assert names == [f"offline-run-2026010{day}_000000-{name}" for name in "ac" for day in (1, 2)]


def test_the_launchers_are_known_where_no_other_plugin_of_hydra_is_installed() -> None:
    code = (
        "import sys; sys.argv = ['train.py', '--info', 'plugins']\n"
        "from importlib.machinery import PathFinder; find = PathFinder.find_spec\n"
        "def without(name, path=None, target=None):\n"
        "    if name == 'hydra_plugins': path = [entry for entry in sys.path if 'site-packages' not in entry]\n"
        "    return find(name, path, target)\n"
        "PathFinder.find_spec = without\n"
        "import train; from prs_lightning.sweep import cli; cli.run(train.train, 'train')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ProcessLauncher" in done.stdout
