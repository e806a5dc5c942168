"""What the tables of faults have in common: two shared runs, a fault done to a copy of them, a command, and its end.

A fault ends in one of the ways of ``End``: never in silence, a traceback, a hang, or in advice that destroys.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import analyze as analyze_script
import train as train_script
from prs_lightning.runs import RunDirectory, Status, find_runs
from prs_lightning.runs.__main__ import main as runs_command
from prs_lightning.runs.checkpoints import read_checkpoint
from prs_lightning.sweep import cli
from tests.conftest import SMALL, given_once
from tests.test_training import MEASURES, NETWORK

COMMAND = (*SMALL, NETWORK, *MEASURES, "epochs=3", "grid_epochs=[1,3]")
"""What both shared runs were trained with; seed 0 was cut in its third epoch, seed 1 is finished."""


class End(StrEnum):
    """How a fault may end.

    GOES_ON: exit code 0, and rows and weights are those of a run that nothing happened to; ``says`` was told.
    TOLD: exit code 0, ``says`` was told, and the rest of the folder was read: for commands that read many runs.
    REFUSED: exit code 1, one line with ``says``, and not a file was made, changed or removed.
    FAILED: exit code 1, one line with ``says``; the run is marked failed with that reason.
    SAID: exit code 1, one line with ``says``; ``expect`` looks at what was done all the same.
    INTERRUPTED: exit code not 0, one line with ``says``; the same command without the fault goes on, as GOES_ON.
    """

    GOES_ON = "goes on"
    TOLD = "told"
    REFUSED = "refused"
    FAILED = "failed"
    SAID = "said"
    INTERRUPTED = "interrupted"


@dataclass
class Place:
    """A copy of the shared runs for one fault.

    Attributes:
        folder: of the runs; commands are given in its parent.
        cut: the run of seed 0: two rows, ``last.ckpt`` of epoch 2, ``previous.ckpt`` of epoch 1.
        finished: the run of seed 1.
        whole: a run of seed 0 that nothing happened to, elsewhere: only to be compared with.
        patch: for faults of the system; undone before the run is looked at.
    """

    folder: Path
    cut: RunDirectory
    finished: RunDirectory
    whole: RunDirectory
    patch: pytest.MonkeyPatch


@dataclass(frozen=True)
class Fault:
    """A row of a table.

    Attributes:
        name: what is broken, and where.
        end: how the command must end.
        says: a regular expression that is found in what is told (stdout and stderr).
        inject: does it.
        command: its first word is ``train`` (the command of the cut run), ``again`` (of the finished one), ``sweep``
            (both, with -m), ``status``, ``sync``, ``import``, or ``analyze``; the others are more arguments, in which
            ``FOLDER``, ``CUT`` and ``FINISHED`` stand for the paths of the place.
        code: the exit code of an INTERRUPTED end.
    """

    name: str
    end: End
    says: str = ""
    inject: Callable[[Place], Any] = lambda place: None
    command: Sequence[str] = ("train",)
    code: int | None = None
    expect: Callable[[Place], Any] = field(default=lambda place: None)
    """More that must hold afterwards, as assertions."""


def call(place: Place, command: Sequence[str]) -> int:
    """The exit code of a command, in this process."""
    names = {"FOLDER": place.folder, "CUT": place.cut.path, "FINISHED": place.finished.path}
    first, *more = (re.sub("|".join(names), lambda found: str(names[found[0]]), word) for word in command)
    place.patch.chdir(place.folder.parent)
    GlobalHydra.instance().clear()
    place.patch.setattr(sys, "path", [*sys.path])
    if first in ("status", "sync", "import"):
        arguments = more if first == "import" else [str(place.folder), *more]
        try:
            return runs_command([first, *arguments]) or 0
        except SystemExit as left:
            return left.code if isinstance(left.code, int) else int(bool(left.code))
    seeds = {"train": ["seed=0"], "again": ["seed=1"], "sweep": ["-m", "seed=0,1"]}
    if first == "analyze":
        usual = [f"runs={place.folder}", "figures=none", "bootstrap.draws=100", "wandb.mode=disabled"]
        script, task, overrides = "analyze", analyze_script.analyze, usual
    else:
        script, task, overrides = "train", train_script.train, [*COMMAND, f"runs={place.folder}", *seeds[first]]
    place.patch.setattr(sys, "argv", [f"{script}.py", *given_once(*overrides, *more)])
    try:
        cli.run(task, script)
    except SystemExit as left:
        if isinstance(left.code, str):  # as Python itself does
            print(left.code, file=sys.stderr)
        return left.code if isinstance(left.code, int) else int(bool(left.code))
    return 0


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder, and where links lead, but for empty lock files."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            files[name] = f"-> {path.readlink()}"
        elif path.is_file() and not path.name.endswith("lock"):
            files[name] = path.read_bytes()
    return files


def rows(run: RunDirectory) -> list[dict[str, str]]:
    """The rows of metrics.csv, read without the code that writes and restores them, but for the times."""
    header, *lines = (line.split(",") for line in run.metrics_file.read_text().splitlines())
    return [
        {name: value for name, value in zip(header, line, strict=True) if not name.startswith("time/")}
        for line in lines
    ]


def assert_whole(run: RunDirectory, whole: RunDirectory) -> None:
    """The run ended as one that nothing happened to."""
    assert run.status == Status.FINISHED
    assert rows(run) == rows(whole)
    for name in ("last", "epoch-001", "epoch-003"):
        there, expected = (read_checkpoint(each.checkpoints / f"{name}.ckpt")["state_dict"] for each in (run, whole))
        torch.testing.assert_close(there, expected, rtol=0, atol=0, msg=name)


def check(fault: Fault, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Do the fault, give the command, and see that it ends as the table says."""
    fault.inject(place)
    before = contents(place.folder.parent) if fault.end == End.REFUSED else {}
    capsys.readouterr()
    code = call(place, fault.command)
    place.patch.undo()
    output = capsys.readouterr()
    told = output.out + output.err
    assert "Traceback" not in told, told
    assert re.search(fault.says, told), told
    errors = [line for line in output.err.splitlines() if line.startswith(("error: ", "interrupted: "))]
    if fault.end in (End.GOES_ON, End.TOLD):
        assert code == 0, told
        assert not errors, errors
    else:
        assert code == (fault.code or (code if fault.end == End.INTERRUPTED else 1)) != 0, told
        assert len(errors) == 1, told
        assert re.search(fault.says, errors[0]), told
    if fault.end == End.GOES_ON:
        assert_whole(place.cut, place.whole)
    elif fault.end == End.REFUSED:
        after = contents(place.folder.parent)
        assert sorted(after) == sorted(before)
        assert [name for name in after if after[name] != before[name]] == []
    elif fault.end == End.FAILED:
        assert place.cut.status == Status.FAILED
        assert re.search(fault.says, place.cut.record()["reason"])
    elif fault.end == End.INTERRUPTED:
        assert place.cut.status == Status.INTERRUPTED
        assert call(place, ("train",)) == 0, capsys.readouterr()
        assert_whole(place.cut, place.whole)
    fault.expect(place)


def make_shared_runs(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """``folder/runs`` with the cut and the finished run, and ``folder/whole`` with the one to compare with."""
    from tests.test_training import Cut

    def trained(name: str, *more: str) -> int:
        (folder / name).mkdir(exist_ok=True)
        place = Place(folder / name, *[RunDirectory(folder)] * 3, patch)  # type: ignore[arg-type]
        return call(place, more)

    assert trained("whole", "train") == 0
    assert trained("runs", "again") == 0
    make_trainer = train_script.make_trainer

    def cut(*arguments: Any) -> Any:
        trainer = make_trainer(*arguments)
        trainer.callbacks.insert(0, Cut("on_train_batch_end"))
        return trainer

    patch.setattr(train_script, "make_trainer", cut)
    assert trained("runs", "train") != 0
    patch.undo()


def copied(shared: Path, folder: Path, patch: pytest.MonkeyPatch) -> Place:
    """The shared runs, copied for one fault."""
    shutil.copytree(shared / "runs", folder / "runs")
    (whole,) = find_runs(shared / "whole")
    seed_0, seed_1 = sorted(find_runs(folder / "runs"), key=lambda run: str(run.path).partition("seed")[2])
    return Place(folder / "runs", seed_0, seed_1, whole, patch)
