"""Bad input: one line that names the value and what to do, exit code 1, before any training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import train as train_script
from prs_lightning.runs import RunDirectory
from prs_lightning.sweep import cli
from tests.conftest import PROJECT, SMALL, RunTrain, given_once


def run_here(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of train.py with these arguments, in this process."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["train.py", *given_once(*arguments)])
    with pytest.raises(SystemExit) as left:
        cli.run(train_script.train, "train")
    return int(left.value.code or 0)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model=cnn7", ["model=cnn7", "cnn6"]),
        ("data=fashion_mnst", ["data=fashion_mnst", "fashion_mnist"]),
        ("callbacks.robustnes.limit=5", ["callbacks.robustnes.limit", "callbacks.robustness.limit"]),
        ("batchsize=64", ["batchsize", "batch_size"]),
        ("experiment=network_c", ["experiment=network_c", "network_a"]),
        ("seed=[", ["seed="]),
        ("batch_size=0", ["batch_size=0", "1 or more"]),
        ("epochs=0", ["epochs=0", "1 or more"]),
        ("data.train_limit=0", ["data.train_limit=0"]),
        ("callbacks.robustness.limit=0", ["limit=0"]),
        ("callbacks.robustness.epsilon=-0.1", ["epsilon=-0.1"]),
        ("callbacks.robustness.epsilon=1.5", ["epsilon=1.5"]),
        ("model.classes=5", ["model.classes=5", "labels up to 9"]),
        ("trainer.devices=3", ["batch_size=20", "3 devices"]),
        ("+model.depth=3", ["depth"]),
    ],
)
def test_bad_overrides(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    override: str,
    expected: list[str],
) -> None:
    assert run_here(monkeypatch, *SMALL, f"runs={tmp_path}", override) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert not list(tmp_path.rglob("run.json")), "the error must come before a run directory is made"
    for words in expected:
        assert words in lines[0]


def test_an_unknown_layer_fails_the_run_before_any_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = f"run_dir={tmp_path / 'run'}"
    assert run_here(monkeypatch, *SMALL, where, "data.step_size=0.1", "callbacks.regions.layers=[hiden]") == 1
    line = capsys.readouterr().err.strip()
    assert "hiden" in line
    assert "hidden" in line
    run = RunDirectory(tmp_path / "run")
    assert (run.status, run.rows()) == ("failed", [])


def test_hydra_full_error_shows_the_traceback(run_train: RunTrain) -> None:
    done = run_train("epochs=0", check=False, env={"HYDRA_FULL_ERROR": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "epochs=0" in done.stderr


def test_a_directory_of_another_config_and_a_finished_one(run_train: RunTrain, tmp_path: Path) -> None:
    where = f"run_dir={tmp_path / 'run'}"
    small = ("callbacks=none", "epochs=1", where)
    first = run_train(*small)
    assert "epoch 1" in first.stdout
    assert str(tmp_path / "run") in first.stdout
    run = RunDirectory(tmp_path / "run")
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    again = run_train(*small)
    assert "is finished: nothing to train" in again.stdout
    done = run_train(*small, "seed=7", check=False)
    assert done.returncode == 1
    assert "seed (0 there, 7 now)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert before == {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}


def test_a_full_disk_interrupts_the_run_in_one_line(run_train: RunTrain, tmp_path: Path) -> None:
    """A limit on the size of a file makes the checkpoint (2 MB and more) fail as a full disk does."""
    done = run_train(
        "callbacks=none", "epochs=1", f"run_dir={tmp_path / 'run'}", check=False, file_size_limit=1_000_000
    )
    assert done.returncode == 1
    assert len([line for line in done.stderr.splitlines() if line.strip()]) == 1
    assert "cannot write" in done.stderr
    assert not list(tmp_path.rglob("*.part"))
    run = RunDirectory(tmp_path / "run")
    assert run.status == "interrupted"
    assert "make room, then the same command goes on" in run.record()["reason"]
    run_train("callbacks=none", "epochs=1", f"run_dir={tmp_path / 'run'}")
    assert run.status == "finished"


def test_config_help_and_completion_answer() -> None:
    def answer(*arguments: str) -> str:
        command = [sys.executable, "train.py", *arguments]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout

    config = answer("--cfg", "job", "experiment=network_a", "seed=7")
    assert "batch_size: 2048" in config
    assert "seed: 7" in config
    assert "callbacks: " in answer("--help")
    assert "Hydra" in answer("--hydra-help")
    assert "complete" in answer("-sc", "install=bash")
