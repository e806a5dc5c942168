"""Files of a run that was cut at a random moment are harmed at random: it goes on with nothing lost, or says so.

``make soak``; SOAK_SECONDS says for how long, SOAK_SEED where the random numbers begin.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

import train as train_script
from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, Status, find_runs
from prs_lightning.runs.checkpoints import load_plain, read_checkpoint
from tests.faults.frame import Place, call, rows
from tests.faults.test_faults import shared  # noqa: F401  # the fixture

SECONDS, SEED = float(os.environ.get("SOAK_SECONDS", 300)), int(os.environ.get("SOAK_SEED", 0))
HOOKS = ("on_train_epoch_start", "on_train_batch_end", "on_train_epoch_end", "on_fit_start")


class CutAnywhere(Callback):
    """Ends the work as a kill would, at the n-th time that one of the hooks is called."""

    def __init__(self, chance: random.Random) -> None:
        left = iter(range(chance.randrange(25), -1, -1))

        def cut(*_: object, **__: object) -> None:
            if next(left, 0) == 0:
                raise KeyboardInterrupt

        for hook in HOOKS:
            setattr(self, hook, cut)


def harm(run: RunDirectory, other: RunDirectory, chance: random.Random) -> str:
    """Do something to one file of the run, and say what."""
    files = [path for path in run.path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    path = chance.choice(sorted(files))
    content = path.read_bytes()
    place = chance.randrange(len(content) + 1)
    how = chance.choice(
        ["emptied", "cut", "flipped", "zeroed", "gone", "a folder", "a link", "other text", "another's"]
    )
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "a link":
        path.symlink_to("nowhere")
    elif how == "flipped" and content:
        flipped = bytearray(content)
        flipped[min(place, len(content) - 1)] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
    elif how == "another's" and (theirs := other.path / path.relative_to(run.path)).exists():
        shutil.copy(theirs, path)
    elif how != "gone":
        changed = {"emptied": b"", "cut": content[:place], "other text": b"Dear Sir"}
        path.write_bytes(
            changed.get(how, content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :])
        )
    return f"{path.relative_to(run.path)} {how} at {place}"


@pytest.mark.slow
def test_soak_of_harm(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    (whole,), end, ends = find_runs(shared / "whole"), time.monotonic() + SECONDS, {"went on": 0, "refused": 0}
    (other,) = [run for run in find_runs(shared / "runs") if "seed1" in run.path.name]
    for seed in range(SEED, SEED + 10**6):
        if time.monotonic() > end:
            break
        chance, folder = random.Random(seed), tmp_path / str(seed)
        story = [f"SOAK_SEED={seed}"]
        with pytest.MonkeyPatch.context() as patch:
            place = Place(folder / "runs", *[RunDirectory(folder)] * 3, patch)  # type: ignore[arg-type]
            place.folder.mkdir(parents=True)
            make_trainer, cutting = train_script.make_trainer, CutAnywhere(chance)

            def cut(*arguments: Any, make: Any = make_trainer, cutting: Callback = cutting) -> Any:
                trainer = make(*arguments)
                trainer.callbacks.insert(0, cutting)
                return trainer

            patch.setattr(train_script, "make_trainer", cut)
            call(place, ("train",))
            patch.setattr(train_script, "make_trainer", make_trainer)
            (run,) = find_runs(place.folder) or [None]
            if run is None:
                continue
            story += [f"{len(run.rows())} rows", *(harm(run, other, chance) for _ in range(chance.choice([1, 1, 2])))]
            capsys.readouterr()
            code = call(place, ("train",))
            told = capsys.readouterr()
            told_of = f"{story}\n{told.out[-2000:]}{told.err}"
            assert "Traceback" not in told.err, told_of
            if code:
                lines = [line for line in told.err.splitlines() if line.startswith("error: ")]
                assert len(lines) == 1, told_of
                assert str(run.path) in lines[0], told_of
                empty = f"no epoch of it was trained: delete {run.config_file} "
                assert "delete" not in lines[0].replace(empty, ""), told_of
                with suppress(RunError):
                    assert run.status != Status.FINISHED, told_of
                ends["refused"] += 1
            else:
                assert_kept(run, whole, told_of)
                ends["went on"] += 1
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\n{ends}")
    assert min(ends.values()) > 0


def assert_kept(run: RunDirectory, whole: RunDirectory, told: str) -> None:
    """As an uncut run; weights of the grid that were harmed are refused, by the analysis, which alone reads them."""
    assert run.status == Status.FINISHED, told
    assert rows(run) == rows(whole), told
    for name in ("last", "epoch-001", "epoch-003"):
        there, expected = (each.checkpoints / f"{name}.ckpt" for each in (run, whole))
        try:
            weights = read_checkpoint(there)["state_dict"]
        except RunError:
            assert name in told, told
            continue
        torch.testing.assert_close(weights, load_plain(expected)["state_dict"], rtol=0, atol=0, msg=told)
