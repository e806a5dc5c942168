"""The same network gives the same numbers on 1 and 2 processes, with uneven shards (docs/architecture.md, law 2)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prs_lightning.runs import RunDirectory
from tests.conftest import PROJECT, SMALL, RunTrain, given_once
from tests.test_training import NETWORK, fit

EXACT = ("prs/", "robust/", "train/accuracy", "test/accuracy", "logits/loss_underflow", "features/local_complexity")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    """All measures of one trained checkpoint, by number of processes."""
    folder = tmp_path_factory.mktemp("processes")
    run = fit(folder / "run", "callbacks=none", "epochs=4", "data.train_limit=400")
    found = {}
    for devices in (1, 2):
        out = folder / f"{devices}.json"
        command = [sys.executable, "tests/validate_checkpoint.py", str(run.last_checkpoint), str(devices), str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        content = json.loads(out.read_text())
        assert content["world"] == devices
        found[devices] = content["measures"]
    return found


def test_every_measure_is_the_same(measured: dict[int, dict[str, float]]) -> None:
    one, two = measured[1], measured[2]
    assert one.keys() == two.keys()
    assert len(one) >= 19
    for name, value in one.items():
        tolerance = 0 if name.startswith(EXACT) and "entropy" not in name else 1e-5
        assert two[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name


def test_the_measures_are_not_trivial(measured: dict[int, dict[str, float]]) -> None:
    assert 0 < measured[1]["prs/ratio"] < 1
    assert 0 < measured[1]["robust/pgd4"] < 1
    for name in ("logits/gap", "collapse/nc1", "collapse/nc2", "features/local_complexity"):
        assert measured[1][name] > 0


def test_training_on_two_processes(run_train: RunTrain, tmp_path: Path) -> None:
    where = tmp_path / "two"
    run_train(NETWORK, "trainer.devices=2", "epochs=1", "callbacks.robustness.limit=20", f"run_dir={where}")
    run = RunDirectory(where)
    assert run.status == "finished"
    assert [row["epoch"] for row in run.rows()] == ["1"]
    assert float(run.rows()[0]["prs/count"]) <= 100


def test_a_signal_interrupts_both_processes_and_the_run_goes_on(tmp_path: Path) -> None:
    """SIGTERM, where Lightning's own handler waits for the other process for ever."""
    run = RunDirectory(tmp_path / "run")
    small = (NETWORK, "callbacks=none", f"run_dir={run.path}")
    line = [sys.executable, str(PROJECT / "train.py"), *given_once(*SMALL, *small, "epochs=1000")]
    first = subprocess.Popen(
        [*line, "trainer.devices=2"], cwd=PROJECT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while len(run.rows()) < 2 and first.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=10)
    assert first.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "interrupted: SIGTERM; the same command goes on"
    assert (run.status, run.record()["reason"]) == ("interrupted", "SIGTERM")
    epochs = len(run.rows())
    again = subprocess.run(
        [*line, "trainer.devices=1", "trainer.max_time='00:00:00:01'"],
        cwd=PROJECT, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert again.returncode == 1
    assert "trainer.max_time=00:00:00:01 is over" in run.record()["reason"]
    assert [row["epoch"] for row in run.rows()] == [str(epoch) for epoch in range(1, len(run.rows()) + 1)]
    assert len(run.rows()) > epochs
