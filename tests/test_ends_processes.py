"""Training on two processes ends as one: whichever is hit, by what and when, all are gone in 10 s, and it goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from prs_lightning.runs import RunDirectory
from tests.ending import SLOW, end, hit, ranks, start
from tests.sweeping import REAL, processes_in, statuses, sweep, wait_for
from tests.sweeping import measures as sweep_measures
from tests.sweeping import start as start_sweep
from tests.test_training import assert_same_weights, measures

TWO = ("trainer.devices=2", "trainer.strategy=ddp", "epochs=6", "callbacks.robustness=null")
STRIKES = ((signal.SIGKILL, "rank"), (signal.SIGTERM, "all"))
SOAK = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL)


def test_whoever_is_hit_all_end_and_the_run_goes_on(tmp_path: Path) -> None:
    cut, uncut = RunDirectory(tmp_path / "cut"), RunDirectory(tmp_path / "uncut")
    undisturbed = start(uncut.path, *TWO, SLOW_SECONDS="0")
    for number, target in STRIKES:
        rows = len(cut.rows())
        process = start(cut.path, *TWO)
        while len(cut.rows()) == rows and process.poll() is None:
            time.sleep(0.02)
        (rank,) = ranks(cut.path)
        hit(process, cut.path, number, target)
        code, said = end(process, cut.path)
        by_rank = f"rank 1 (process {rank}) was killed by SIGKILL"
        reason = by_rank if target == "rank" else "SIGTERM"
        assert (code, said) == (128 + number, [f"interrupted: {reason}; the same command goes on"])
        assert (cut.status, cut.record()["reason"]) == ("interrupted", reason)
    for run, process in ((cut, start(cut.path, *TWO, SLOW_SECONDS="0")), (uncut, undisturbed)):
        complaints = process.communicate(timeout=120)[1]
        assert (process.returncode, run.status) == (0, "finished"), complaints
    assert measures(cut) == measures(uncut)
    assert_same_weights(cut, uncut)
    assert not list(cut.path.glob(".rank*"))


def test_an_error_on_one_process_is_the_reason_of_all(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    process = start(run.path, *TWO, FAILING_RANK="1")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert [line for line in said.splitlines() if "error: " in line] == ["error: rank 1: ValueError: this rank fails"]
    assert said.count("Traceback") == 1, "the user's own, once"
    assert (run.status, run.record()["reason"]) == ("failed", "RunError: rank 1: ValueError: this rank fails")
    assert not processes_in(run.path)
    assert not list(run.path.glob(".rank*"))


def strike(moments: random.Random, where: Path, command: tuple[str, ...]) -> None:
    """A signal of any kind to any process at any moment, from the first import on."""
    process = start(where, *command)
    time.sleep(moments.uniform(0.1, 14 if "trainer.devices=2" in command else 9))
    number, target = moments.choice(SOAK), moments.choice(("main", "rank", "all"))
    hit(process, where, number, target)
    strike = f"{number.name} to {target}"
    try:
        code, said = end(process, where)
    except Exception as error:
        raise AssertionError(f"{strike}: {error}") from error
    run = RunDirectory(where)
    assert run.status in (None, "interrupted", "finished"), f"{strike}: {run.record()}"
    told = f"{strike}: exit code {code}, {run.record()}, {said}"
    assert code < 0 or code > 128 or (code == 0 and run.status == "finished"), told
    assert len(said) <= 2, f"{strike}: {said}"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_soak_signals_at_random_moments_of_a_run(tmp_path: Path, devices: int) -> None:
    command = (f"trainer.devices={devices}", "epochs=8", "callbacks.robustness.steps=3")
    moments = random.Random(devices)
    cut, uncut = RunDirectory(tmp_path / "cut"), RunDirectory(tmp_path / "uncut")
    for _ in range(10):
        if cut.status != "finished":
            strike(moments, cut.path, command)
    for run in (cut, uncut):
        process = start(run.path, *command, SLOW_SECONDS="0")
        said = process.communicate(timeout=200)[1]
        assert process.returncode == 0, said
    assert measures(cut) == measures(uncut)
    assert_same_weights(cut, uncut)


@pytest.mark.slow
def test_soak_signals_at_random_moments_of_a_sweep(tmp_path: Path) -> None:
    folder, quiet, moments = tmp_path / "runs", tmp_path / "quiet", random.Random(5)
    folder.mkdir()
    command = (*SLOW, "seed=0..2", "epochs=6", "hydra.launcher.jobs=2", "trainer.accelerator=cpu", "batch_size=25")
    for _ in range(8):
        process = start_sweep(REAL, folder, *command)
        time.sleep(moments.uniform(0.3, 14))
        number = moments.choice(SOAK)
        victim = moments.choice([process.pid, *processes_in(folder)])
        with suppress(ProcessLookupError):
            os.kill(victim, number)
        output, _ = process.communicate(timeout=100)
        wait_for(lambda: not processes_in(folder), "all processes to end", 10)
        finished = [*statuses(folder).values()] == ["finished"] * 3  # before the signal, or in spite of it
        assert process.returncode or finished, f"{number.name}: {output}"
        assert "Traceback" not in output, output
        if finished:
            break
        assert "failed" not in statuses(folder).values(), f"{number.name}: {output}"
    for where in (folder, quiet):
        code, output = sweep(REAL, where, *command, SLOW_SECONDS="0")
        assert code == 0, output
    assert sweep_measures(folder) == sweep_measures(quiet)
