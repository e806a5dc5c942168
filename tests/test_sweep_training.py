"""Sweeps that really train: the numbers are the same however often the sweep was killed, and a lost rank is noticed."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from prs_lightning.runs import find_runs
from prs_lightning.runs.rows import parsed as rows_of
from prs_lightning.sweep.processes import LOG_FILE
from tests.sweeping import REAL, end, kill, measures, processes_in, start, statuses, sweep, wait_for

SOAK_KILLS = 10
TINY = ("model=cnn6", "batch_size=25", "hydra.launcher.jobs=2", "trainer.accelerator=cpu")


def disturb(folder: Path, command: tuple[str, ...], kills: int, seed: int) -> None:
    """Kill the sweep at random moments of its training, then let the same command end it."""
    moments = random.Random(seed)
    folder.mkdir(exist_ok=True)
    for _ in range(kills):
        rows = sum(len(run.rows()) for run in find_runs(folder))
        if set(statuses(folder).values()) == {"finished"}:
            break  # there may be nothing left to kill; runs that were never begun have no status
        process = start(REAL, folder, *command)
        # Importing torch takes most of the time: a moment counted from the start would seldom meet the training.
        wait_for(partial(_begun, folder, rows, process), "a job to train")
        time.sleep(moments.uniform(0.0, 1.5))
        kill(process)
        wait_for(lambda: not processes_in(folder), "the jobs of a killed sweep to die")
    code, output = sweep(REAL, folder, *command)
    assert code == 0, output


def _begun(folder: Path, rows: int, process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None or sum(len(run.rows()) for run in find_runs(folder)) > rows


def test_two_kills_leave_no_trace_in_the_numbers(tmp_path: Path) -> None:
    command = (*TINY, "seed=0..1", "epochs=6")
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    code, output = sweep(REAL, quiet, *command)
    assert code == 0, output
    disturb(disturbed, command, kills=2, seed=1)
    assert measures(disturbed) == measures(quiet)
    assert len(measures(disturbed)) == 2


@pytest.mark.parametrize(("package", "launcher"), [("ray", "ray"), ("submitit", "submitit_processes")])
def test_other_engines_train_to_the_same_numbers(tmp_path: Path, package: str, launcher: str) -> None:
    pytest.importorskip(package)
    there, here, command = tmp_path / "there", tmp_path / "here", (*TINY[:2], *TINY[3:], "epochs=1")
    code, output = sweep(REAL, there, f"hydra/launcher={launcher}", *command, "seed=0..3")
    assert code == 0, output
    assert list(statuses(there).values()) == ["finished"] * 4
    assert sweep(REAL, here, *command, "seed=3")[0] == 0
    ((name, rows),) = measures(here).items()
    assert measures(there)[name] == rows


def test_a_lost_rank_interrupts_its_job_only(tmp_path: Path) -> None:
    """Two ranks per job; rank 1 of the first job is killed, the second job then trains to its end."""
    folder = tmp_path / "runs"
    folder.mkdir()
    command = (*TINY[:2], "trainer.accelerator=cpu", "trainer.devices=2", "seed=0..1", "epochs=8", "batch_size=26")
    process = start(REAL, folder, *command)
    wait_for(lambda: any(run.rows() for run in find_runs(folder)), "the first job to train")
    (rank,) = [
        pid for pid in processes_in(folder) if b"train_ddp_process_1" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(rank, signal.SIGKILL)
    wait_for(lambda: "interrupted" in statuses(folder).values(), "the lost rank to be noticed", patience=10)
    code, output = end(process)
    assert code == 1
    assert "error: 1 interrupted of 2 runs" in output
    assert "Traceback" not in output
    (reason,) = {run.record()["reason"] for run in find_runs(folder)} - {None}
    assert reason == f"rank 1 (process {rank}) was killed by SIGKILL"
    assert sorted(map(str, statuses(folder).values())) == ["finished", "interrupted"]
    assert len(list(folder.rglob("run.json"))) == 2, "one directory per job, not per rank"
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_a_sweep_goes_on_where_runs_were_harmed(tmp_path: Path) -> None:
    """Of two finished runs one lost its rows, and the other's record is garbage: the same command makes them anew."""
    folder, command = tmp_path / "runs", (*TINY, "seed=0..1", "epochs=1")
    assert sweep(REAL, folder, *command)[0] == 0
    before = measures(folder)
    first, second = find_runs(folder)
    first.metrics_file.write_bytes(b"")
    second.record_file.write_text("[")
    code, output = sweep(REAL, folder, *command)
    assert code == 0, output
    assert measures(folder) == before
    assert len(rows_of(first.metrics_file.read_text())) == 1
    assert "its rows are restored" in (first.path / LOG_FILE).read_text()
    assert "run.json damaged or gone: made anew" in (second.path / LOG_FILE).read_text()


def test_after_a_full_disk_the_same_command_goes_on(tmp_path: Path) -> None:
    """A limit on the size of files, which the job inherits: no checkpoint can be written."""
    folder, command = tmp_path / "runs", (*TINY, "seed=0", "epochs=1")
    process = start(REAL, folder, *command)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    code, output = end(process)
    assert code == 1
    assert "error: 1 interrupted of 1 runs" in output
    assert list(statuses(folder).values()) == ["interrupted"]
    code, output = sweep(REAL, folder, *command)
    assert code == 0, output
    assert list(statuses(folder).values()) == ["finished"]


@pytest.mark.slow
def test_soak_ten_kills_leave_no_trace_in_the_numbers(tmp_path: Path) -> None:
    command = (*TINY, "seed=0..3", "epochs=12")
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    assert sweep(REAL, quiet, *command)[0] == 0
    disturb(disturbed, command, kills=SOAK_KILLS, seed=2)
    assert measures(disturbed) == measures(quiet)
    assert len(measures(disturbed)) == 4


def test_the_first_command_of_the_guide(tmp_path: Path) -> None:
    """The 20 runs of ``model=vgg16 batch_size=64,128,512,2048 seed=0..4`` planned; two of them, an epoch each."""
    folder = tmp_path / "runs"
    if shutil.disk_usage(tmp_path).free < 2e9:
        pytest.skip("2 checkpoints of VGG-16 with Adam's state take 0.8 GB")
    limits = ("model=vgg16", "data=mnist5k", "epochs=1", "data.train_limit=10", "data.test_limit=10")
    code, output = sweep(REAL, folder, *limits, "batch_size=64,128,512,2048", "seed=0..4", "dry_run=true")
    names = [f"mnist5k-vgg16-bs{batch}-seed{seed}" for batch in (64, 128, 512, 2048) for seed in range(5)]
    assert (code, re.findall(r"^start +.*/([\w-]+)-\w+$", output, re.M)) == (0, names)
    folder.mkdir()
    try:
        code, output = sweep(REAL, folder, *limits, "batch_size=64,2048", "seed=3", "hydra.launcher.jobs=2")
        assert code == 0, output
        assert list(statuses(folder).values()) == ["finished"] * 2
        assert {name.rsplit("-", 1)[0] for name in statuses(folder)} == {names[3], names[18]}
        assert all(0 < float(rows[-1]["train/loss"]) < 10 for rows in measures(folder).values())
    finally:
        shutil.rmtree(folder)
