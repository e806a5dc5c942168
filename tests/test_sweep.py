"""The sweep's machinery, on jobs that sleep instead of training: skip, resume, retry, kill, claim, report."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prs_lightning.runs import find_runs
from prs_lightning.runs.finding import SWEEP_FILE
from tests.sweeping import (
    SLEEPY,
    SMALL,
    end,
    epochs_trained,
    kill,
    measures,
    processes_in,
    start,
    statuses,
    sweep,
    wait_for,
)

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks at /proc")


def test_a_sweep_trains_each_run_once_and_the_same_command_skips_them(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    command = ("seed=0..1,4", "epochs=3", "sweep=digits", "hydra.launcher.jobs=3")
    code, output = sweep(SLEEPY, folder, *command)
    assert code == 0, output
    assert "3 runs: 3 finished" in output
    assert sorted(statuses(folder / "digits").values()) == ["finished"] * 3  # type: ignore[type-var]
    code, output = sweep(SLEEPY, folder, *command)
    assert code == 0, output
    assert "3 runs: 3 finished" in output
    assert all(epochs == ["1", "2", "3"] for epochs in epochs_trained(folder).values())
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_a_single_run_lands_in_the_sweeps_directory(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    assert sweep(SLEEPY, folder, "seed=3", "epochs=1", "batch_size=64")[0] == 0
    line = [sys.executable, str(SLEEPY), f"runs={folder}", *SMALL, "seed=3", "epochs=1", "batch_size=64", "sweep=sweep"]
    subprocess.run(line, check=True, cwd=tmp_path)
    (record,) = folder.rglob("run.json")
    assert record.parent.name.startswith("mnist5k-cnn6-bs64-seed3-")


def test_a_dry_run_says_what_would_run_and_touches_nothing(tmp_path: Path) -> None:
    """The first command of the user guide, as it stands: 4 batch sizes x 5 seeds."""
    folder = tmp_path / "runs"
    line = ("model=vgg16", "batch_size=64,128,512,2048", "seed=0..4", "epochs=1", "dry_run=true")
    code, output = sweep(SLEEPY, folder, *line)
    assert code == 0, output
    paths = [line.split()[1] for line in output.splitlines() if line.startswith("start ")]
    assert len(set(paths)) == 20
    assert all(path.startswith(f"{folder}/sweep/mnist5k-vgg16-bs") for path in paths)
    assert not folder.exists()


@pytest.mark.parametrize(
    "mistake", ["seed=4..0", "model=cnn7,cnn6", "nonsense=1,2", "run_dir=x", "trainer.fast_dev_run=false,true"]
)
def test_a_mistake_is_one_line_and_starts_nothing(tmp_path: Path, mistake: str) -> None:
    code, output = sweep(SLEEPY, tmp_path / "runs", mistake)
    assert code == 1
    assert output.startswith("error: ")
    assert len(output.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_failing_and_a_killed_job_are_reported_and_the_others_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    command = ("data.train_limit=50,666,667", "seed=0", "epochs=3")
    code, output = sweep(SLEEPY, folder, *command)
    assert code == 1
    assert len(measures(folder)) == 1
    assert "ValueError: this one [/always] fails" in output  # the reason, with what a markup parser would choke on
    assert "  | " in output
    assert "killed by SIGKILL" in output
    assert "error: 1 failed and 1 interrupted of 3 runs" in output
    reasons = {json.loads(file.read_text())["reason"] for file in folder.rglob("run.json")}
    assert reasons == {None, "ValueError: this one [/always] fails", "killed by SIGKILL"}

    code, output = sweep(SLEEPY, folder, *command)
    assert code == 1, "a sweep with failed runs is not done"
    assert output.count("resume: ") == 1, "what was killed from outside goes on without retry_failed"
    assert {len(epochs) for epochs in epochs_trained(folder).values()} == {1, 3}
    before = epochs_trained(folder)
    _, output = sweep(SLEEPY, folder, *command, "retry_failed=true")
    assert (output.count("retry: "), output.count("resume: ")) == (1, 1)
    assert epochs_trained(folder) == before  # epoch 2 fails again


def test_a_job_that_fails_before_it_has_a_record_is_marked_failed(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    code, output = sweep(SLEEPY, folder, "epochs=1", "seed=0", "hydra.launcher.jobs=1", SLEEPY_SECONDS="not a number")
    assert code == 1
    assert "could not convert string to float" in output
    record = json.loads(next(folder.rglob("run.json")).read_text())
    assert record["status"] == "failed"
    assert "could not convert" in record["reason"]
    assert sweep(SLEEPY, folder, "epochs=1", "seed=0", "retry_failed=true")[0] == 0
    assert list(statuses(folder).values()) == ["finished"]


def test_a_reason_is_in_words_and_a_signal_interrupts(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    code, output = sweep(SLEEPY, folder, "epochs=1", "seed=0", "data.train_limit=668,669")
    assert code == 1
    assert "error: 1 failed and 1 interrupted of 2 runs" in output
    said = {record["status"]: record["reason"] for record in map(json.loads, map(Path.read_text, records(folder)))}
    assert said["interrupted"] == "SIGUSR1"
    assert said["failed"].endswith("InstantiationException: Error in call to target 'Trainer': ValueError('no room')")


def test_a_job_says_in_one_line_what_can_be_mended(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    code, output = sweep(SLEEPY, folder, "epochs=1", "seed=0", "data.train_limit=670")
    assert code == 1
    log = next(folder.rglob("train.log")).read_text()
    assert log == "error: nothing is at hand\n", "no traceback"
    assert json.loads(records(folder)[0].read_text())["reason"] == "nothing is at hand"
    assert "Traceback" not in output
    sweep(SLEEPY, tmp_path / "full", "epochs=1", "seed=0", "data.train_limit=670", HYDRA_FULL_ERROR="1")
    assert "Traceback" in next((tmp_path / "full").rglob("train.log")).read_text(), "as who started the sweep asked"


def records(folder: Path) -> list[Path]:
    return sorted(folder.rglob("run.json"))


def test_killed_at_random_moments_the_same_command_ends_with_the_same_runs(tmp_path: Path) -> None:
    command = ("seed=0..3", "epochs=5", "hydra.launcher.jobs=2")
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    assert sweep(SLEEPY, quiet, *command)[0] == 0
    moments = random.Random(0)
    for _ in range(6):
        process = start(SLEEPY, disturbed, *command, SLEEPY_SECONDS="0.2")
        time.sleep(moments.uniform(1.0, 4.0))
        kill(process)
        wait_for(lambda: not processes_in(disturbed), "the jobs of a killed sweep to die")
    code, output = sweep(SLEEPY, disturbed, *command)
    assert code == 0, output
    assert measures(disturbed) == measures(quiet)
    assert len(measures(disturbed)) == 4


def test_interrupting_stops_the_jobs_and_leaves_them_resumable(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    command = ("seed=0..2", "epochs=400", "hydra.launcher.jobs=2")
    process = start(SLEEPY, folder, *command)
    wait_for(lambda: len(epochs_trained(folder)) == 2 and all(epochs_trained(folder).values()), "two jobs to train")
    process.send_signal(signal.SIGINT)
    code, output = end(process, patience=60)
    assert code == 130, output
    assert "Traceback" not in output
    assert "give the same command to go on" in output
    wait_for(lambda: not processes_in(folder), "the jobs to end", 10)
    assert list(statuses(folder).values()) == ["interrupted"] * 2
    _, output = sweep(SLEEPY, folder, *command, "dry_run=true")
    assert [line.split()[0] for line in sorted(output.splitlines())] == ["resume", "resume", "start"]


def test_two_sweeps_at_once_train_no_run_twice(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    command = ("seed=0..3", "epochs=4", "hydra.launcher.jobs=2")
    both = [start(SLEEPY, folder, *command, SLEEPY_SECONDS="0.3") for _ in range(2)]
    ends = [end(process) for process in both]
    assert [code for code, _ in ends] == [0, 0], ends
    assert all(epochs == ["1", "2", "3", "4"] for epochs in epochs_trained(folder).values())
    assert list(statuses(folder).values()) == ["finished"] * 4
    assert len(json.loads((folder / "sweep" / SWEEP_FILE).read_text())["runs"]) == 4


def test_a_sweep_names_what_another_one_is_running(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    first = start(SLEEPY, folder, "seed=0", "epochs=100")
    wait_for(lambda: epochs_trained(folder), "the first sweep to train")
    code, output = sweep(SLEEPY, folder, "seed=0", "epochs=100")
    assert code == 0
    assert "1 running elsewhere" in output
    kill(first)


def test_each_job_sees_its_own_gpu(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    code, output = sweep(SLEEPY, folder, "seed=0..1", "epochs=10", SLEEPY_SECONDS="0.3", CUDA_VISIBLE_DEVICES="5,7")
    assert code == 0, output
    assert sorted(file.read_text() for file in folder.rglob("gpus.txt")) == ["5", "7"], "both at a time, one each"
    pair = ("seed=2", "epochs=1", "trainer.devices=2")
    assert sweep(SLEEPY, folder, *pair, CUDA_VISIBLE_DEVICES="5,7")[0] == 0
    assert sorted(file.read_text() for file in folder.rglob("gpus.txt")) == ["5", "5,7", "7"]
    code, output = sweep(SLEEPY, folder, *pair, "hydra.launcher.gpus=[5]")
    assert code == 0, "a finished run needs no GPU"
    code, output = sweep(SLEEPY, folder, "seed=3", "epochs=1", "trainer.devices=2", "hydra.launcher.gpus=[5]")
    assert output == "error: trainer.devices=2, but the sweep has 1 GPUs: 5\n"


@pytest.mark.parametrize("launcher", ["processes", "submitit_processes", "ray"])
def test_a_users_configs_reach_every_job(tmp_path: Path, launcher: str) -> None:
    """The folder is given relative to where the command is; what Hydra sets for a job is set in each."""
    pytest.importorskip({"processes": "hydra", "ray": "ray"}.get(launcher, "submitit"))
    grid = "sweep: mine\nepochs: 1\nhydra: {sweeper: {params: {seed: 0..1}}}"
    for name, text in {
        "mine/data/mine.yaml": "defaults: [mnist5k]\nepsilon: 0.2",
        "others/data/far.yaml": "defaults: [mnist5k]\nepsilon: 0.1",
        "mine/experiment/mine.yaml": f"# @package _global_\n{grid}",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    mine = ("--config-dir=mine", "hydra.searchpath=[others]", "+hydra.job.env_set.CUDA_VISIBLE_DEVICES='8'")
    code, output = sweep(
        SLEEPY, tmp_path / "runs", *mine, f"hydra/launcher={launcher}", "experiment=mine", "data=mine,far"
    )
    assert code == 0, output
    found = [(run.config()["data"]["epsilon"], run.config()["seed"]) for run in find_runs(tmp_path / "runs" / "mine")]
    assert sorted(found) == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    assert [file.read_text() for file in tmp_path.rglob("gpus.txt")] == ["8"] * 4


def test_two_experiments_are_two_sweeps_and_neither_stops_the_other(tmp_path: Path) -> None:
    for name, params in {"bad": "{seed: 0..1}", "good": "{batch_size: '8,16', seed: 5}"}.items():
        (tmp_path / "mine" / "experiment").mkdir(parents=True, exist_ok=True)
        text = f"# @package _global_\nsweep: {name}\nhydra: {{sweeper: {{params: {params}}}, launcher: {{jobs: 2}}}}"
        (tmp_path / "mine" / "experiment" / f"{name}.yaml").write_text(text)
    command = ("--config-dir=mine", "experiment=bad,good", "epochs=2", "data.train_limit=666")
    code, output = sweep(SLEEPY, tmp_path / "runs", *command)
    assert code == 1
    assert output.splitlines()[-1].count("2 failed of 2 runs") == 2
    names = {str(run.path.relative_to(tmp_path / "runs"))[:-7] for run in find_runs(tmp_path / "runs")}
    assert names == {f"bad/mnist5k-cnn6-bs128-seed{n}" for n in (0, 1)} | {
        f"good/mnist5k-cnn6-bs{n}-seed5" for n in (8, 16)
    }


@pytest.mark.parametrize(("package", "launcher"), [("ray", "ray"), ("submitit", "submitit_processes")])
def test_other_engines_run_the_same_sweep(tmp_path: Path, package: str, launcher: str) -> None:
    """Four jobs on a local cluster: one fails, three finish, and the same command submits none of them again."""
    pytest.importorskip(package)
    folder = tmp_path / "runs"
    command = (f"hydra/launcher={launcher}", "seed=0..1", "data.train_limit=50,666", "epochs=2")
    good = ("seed=0..2", "epochs=2", "data.train_limit=50")
    code, output = sweep(SLEEPY, folder, *command[:1], *good)
    assert code == 0, output
    assert "3 runs: 3 finished" in output
    code, output = sweep(SLEEPY, folder, *command)
    assert code == 1, output
    assert "ValueError: this one [/always] fails" in output
    assert "error: 2 failed of 4 runs" in output
    assert sorted(map(str, statuses(folder).values())) == ["failed"] * 2 + ["finished"] * 3
    assert sum(len(epochs) for epochs in epochs_trained(folder).values()) == 3 * 2 + 2
    by_hand = (*good, "dry_run=true")
    assert sweep(SLEEPY, folder, *by_hand)[1].count("skip (finished)") == 3, "the same directories on every engine"
