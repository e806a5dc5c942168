"""The run directory (docs/architecture.md, law 5): complete, resumable or marked failed, and never half-written."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from prs_lightning.errors import ConfigError, Interrupted, RunError
from prs_lightning.runs import RunDirectory, find_runs, write_atomically, write_text
from prs_lightning.runs.naming import differing_keys

CONFIG = {
    "model": {"_target_": "prs_lightning.models.CNN6", "learning_rate": 0.001},
    "data": {"name": "mnist5k", "root": "data"},
    "batch_size": 20,
    "seed": 3,
    "wandb": {"mode": "offline"},
}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 1 kB: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_is_running_then_finished(run: RunDirectory) -> None:
    assert run.status is None
    with run.recording(CONFIG, seed=3):
        assert run.status == "running"
        assert run.locked
    assert run.status == "finished"
    assert not run.locked
    assert run.config() == CONFIG
    record = run.record()
    assert record["seed"] == 3
    assert {"started", "ended", "git_commit", "versions", "wandb_id"} <= record.keys()
    assert find_runs(run.path.parent)[0].path == run.path


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("the loss is not finite"), "failed", "ValueError: the loss is not finite"),
        (ValueError("two\n  lines"), "failed", "ValueError: two lines"),
        (KeyboardInterrupt(), "interrupted", "SIGINT (Ctrl-C)"),
        (Interrupted("SIGUSR1"), "interrupted", "SIGUSR1"),
        (SystemExit(1), "interrupted", "interrupted"),
    ],
)
def test_a_run_that_ends_early_says_why(run: RunDirectory, error: BaseException, status: str, reason: str) -> None:
    with pytest.raises(type(error)), run.recording(CONFIG):
        raise error
    assert (run.status, run.record()["reason"]) == (status, reason)


def test_a_killed_run_counts_as_interrupted_and_keeps_its_wandb_id(run: RunDirectory) -> None:
    code = (
        "import os, sys, yaml; from prs_lightning.runs import RunDirectory\n"
        f"with RunDirectory({str(run.path)!r}).recording(yaml.safe_load(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(CONFIG)], check=False)
    assert run.record()["status"] == "running"
    assert run.status == "interrupted"
    wandb_id = run.record()["wandb_id"]
    with RunDirectory(run.path).recording(CONFIG):
        pass
    assert run.record()["wandb_id"] == wandb_id


def test_two_processes_do_not_train_in_one_directory(run: RunDirectory) -> None:
    with run.recording(CONFIG):
        with pytest.raises(RunError, match=f"being trained by process {os.getpid()}"):
            with RunDirectory(run.path).recording(CONFIG):
                pytest.fail("both hold the directory")
        assert run.status == "running"


def test_a_run_of_another_config_is_refused_and_untouched(run: RunDirectory) -> None:
    with run.recording(CONFIG):
        pass
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    other = {**CONFIG, "batch_size": 30, "model": {**CONFIG["model"], "learning_rate": 0.1}}
    with pytest.raises(
        RunError, match=r"batch_size \(20 there, 30 now\), model.learning_rate \(0.001 there, 0.1 now\)"
    ):
        with run.recording(other):
            pytest.fail("a foreign run was opened")
    assert before == {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def test_a_run_that_trained_nothing_may_be_deleted_for_another(run: RunDirectory) -> None:
    with suppress(ConfigError), run.recording(CONFIG):
        raise ConfigError("trainer.max_steps=6 ends within an epoch")
    with pytest.raises(RunError, match=r"no epoch of it was trained: delete .*config.yaml to take .* another run_dir"):
        run.check({**CONFIG, "batch_size": 30})
    run.write_rows([{"epoch": 1}])
    with pytest.raises(RunError, match=r"now\); choose another run_dir"):
        run.check({**CONFIG, "batch_size": 30})


def test_bookkeeping_does_not_make_another_config() -> None:
    moved = {**CONFIG, "wandb": {"mode": "online"}, "data": {"name": "mnist5k", "root": "/elsewhere"}}
    assert differing_keys(CONFIG, moved) == []
    assert differing_keys(CONFIG, {**CONFIG, "seed": 4}) == ["seed"]


def test_rows_come_back_in_the_order_of_the_registry(run: RunDirectory) -> None:
    run.write_rows(
        [
            {"time/train_s": "1.5", "epoch": 1, "prs/entropy": "0.1", "prs/ratio": "0.5"},
            {"epoch": 2, "robust/pgd20": "0.25", "prs/ratio": "0.4"},
        ]
    )
    header = run.metrics_file.read_text().splitlines()[0]
    assert header == "epoch,prs/ratio,robust/pgd20,time/train_s,prs/entropy"
    assert [row["robust/pgd20"] for row in run.rows()] == ["", "0.25"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(run: RunDirectory) -> None:
    write_text(run.metrics_file, "old")

    def interrupted(file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"cannot write .*metrics.csv: .*No space left.*make room"):
        write_atomically(run.metrics_file, interrupted)
    assert run.metrics_file.read_text() == "old"
    assert list(run.path.iterdir()) == [run.metrics_file]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_old_file_and_no_other(run: RunDirectory) -> None:
    write_text(run.metrics_file, "old")
    with pytest.raises(RunError, match="cannot write"):
        write_text(run.metrics_file, "x" * 5000)
    assert run.metrics_file.read_text() == "old"
    assert list(run.path.iterdir()) == [run.metrics_file]


def test_reading_runs_needs_no_torch() -> None:
    code = "import sys, prs_lightning.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
