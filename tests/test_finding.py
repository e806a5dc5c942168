"""Finding the runs of a folder: behind links, each once, and copies of a run counted once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.table import read_runs
from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, find_runs
from prs_lightning.runs.__main__ import main, status_of
from prs_lightning.runs.finding import SWEEP_FILE, note_runs, noted_runs, survey
from tests.synthetic_runs import write_grid, write_run

ROWS = {"test/accuracy": np.array([0.8, 0.9, 0.95]), "prs/ratio": np.array([0.5, 0.4, 0.3])}


def names(folder: Path) -> list[str]:
    return [run.path.relative_to(folder).as_posix() for run in find_runs(folder)]


@pytest.fixture
def runs(tmp_path: Path) -> list[RunDirectory]:
    return [write_run(tmp_path / "runs", ROWS, seed=seed) for seed in range(2)]


def test_a_backup_changes_no_statistic(tmp_path: Path) -> None:
    """Four runs have no interval; four runs and their copies once had one."""
    folder = tmp_path / "runs"
    write_grid(folder, batch_sizes=(64, 2048), seeds=range(2), epochs=6, grid=(2, 4, 6))
    before = read_runs(folder)
    shutil.copytree(folder, tmp_path / "backup")
    shutil.move(tmp_path / "backup", folder / "backup")
    shutil.copytree(find_runs(folder)[0].path, folder / "run (copy)")
    table = read_runs(folder)
    pd.testing.assert_frame_equal(table.rows, before.rows)
    pd.testing.assert_frame_equal(table.runs, before.runs)
    there, now = (panel_statistics(select(each.rows).models, draws=100).table for each in (before, table))
    pd.testing.assert_frame_equal(now, there)
    assert now["spearman_low"].isna().all()
    assert len(table.messages) == 2
    assert table.messages[0].startswith("runs holds a copy of a run, counted once: run (copy) (of ")
    assert table.messages[1].startswith("backup holds 4 copies of runs, counted once: mnist-cnn6-bs2048-seed0 (of ")


def test_a_run_behind_links_is_found_once_under_its_shortest_name(tmp_path: Path, runs: list[RunDirectory]) -> None:
    folder = tmp_path / "runs"
    elsewhere = write_run(tmp_path / "disk", ROWS, seed=7)
    (folder / "linked").symlink_to(tmp_path / "disk")
    (folder / "again").symlink_to(tmp_path / "disk")
    (folder / "a").symlink_to(elsewhere.path)
    (folder / "0").symlink_to(runs[0].path)
    assert names(folder) == ["a", *(run.path.name for run in runs)]
    assert survey(folder).messages == ()
    (tmp_path / "view").symlink_to(folder)
    assert names(tmp_path / "view") == names(folder)


def test_circles_end_and_links_to_nothing_are_named(tmp_path: Path, runs: list[RunDirectory]) -> None:
    folder = tmp_path / "runs"
    for name, target in {
        "self": folder, "up": tmp_path, "root": Path("/"), "gone": tmp_path / "gone", "ring": folder / "ring",
    }.items():  # fmt: skip
        (folder / name).symlink_to(target)
    (runs[0].path / "back").symlink_to(folder)
    found = survey(folder)
    assert [run.path.name for run in found.runs] == [run.path.name for run in runs]
    assert sorted(found.messages) == [
        "gone is a link that leads nowhere", "ring is a link that leads nowhere",
        "root links to a folder that it lies in: not followed", "up links to a folder that it lies in: not followed",
    ]  # fmt: skip


def test_of_copies_the_longest_counts_then_the_finished_then_the_shortest_path(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    run = write_run(folder / "sweep", ROWS, status="interrupted")
    copy = RunDirectory(shutil.copytree(run.path, folder / "a" / "deep" / "copy"))
    assert names(folder) == [f"sweep/{run.path.name}"]
    copy.update_record(status="finished")
    assert names(folder) == ["a/deep/copy"]
    run.write_rows([*run.rows(), {"epoch": 4, "prs/ratio": 0.2}])
    found = survey(folder)
    assert [each.path for each in found.runs] == [run.path]
    assert [each.path for each in found.copies] == [copy.path]
    (message,) = found.messages
    assert message == f"a/deep/copy is a copy of sweep/{run.path.name}, which was trained on: its 4 rows count, not 3"
    rows = run.rows()
    run.write_rows([*rows[:3], rows[3] | {"prs/ratio": "0.1"}])
    copy.write_rows(rows)
    assert "are copies of one run with other rows: a/deep/copy counts" in " ".join(survey(folder).messages)


def test_a_copy_whose_record_is_damaged_is_still_one(tmp_path: Path, runs: list[RunDirectory]) -> None:
    copy = RunDirectory(shutil.copytree(runs[0].path, tmp_path / "runs" / "z"))
    copy.record_file.write_text("{")
    assert names(tmp_path / "runs") == [run.path.name for run in runs]
    runs[0].record_file.write_text("")
    assert len(names(tmp_path / "runs")) == 2


def test_rows_of_other_loggers_are_no_runs_and_a_run_without_its_record_is_one(
    tmp_path: Path, runs: list[RunDirectory]
) -> None:
    version = runs[0].path / "csv" / "version_0"
    version.mkdir(parents=True)
    shutil.copy(runs[0].metrics_file, version)
    runs[1].record_file.unlink()
    assert names(tmp_path / "runs") == [run.path.name for run in runs]
    lines, _ = status_of(tmp_path / "runs")
    assert ("unreadable", runs[1].path.name, "run.json is missing") in lines


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, runs: list[RunDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path) == runs[1].path:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = survey(tmp_path / "runs")
    assert [run.path for run in found.runs] == [runs[0].path]
    assert found.messages == (f"{runs[1].path.name} cannot be read (Permission denied): runs in it are not counted",)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"runs": 5}', b'{"runs": [5]}', b'{"runs": ["../x"]}', b'{"run": []}', None],
)
def test_a_damaged_note_is_named_kept_aside_and_written_anew(
    tmp_path: Path, runs: list[RunDirectory], content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    file = folder / SWEEP_FILE
    note_runs([*runs, RunDirectory(folder / "left")])
    if content is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(RunError, match="sweep.json"):
        noted_runs(folder)
    assert main(["status", str(folder)]) is None
    shown = capsys.readouterr().out
    assert "2 finished, 0 running" in shown
    assert "sweep.json" in shown
    (told,) = note_runs([RunDirectory(folder / "new")])
    assert "sweep.json" in told
    assert noted_runs(folder) == [*(run.path.name for run in runs), "new"]
    (aside,) = (path for path in folder.iterdir() if path.name.startswith("sweep.json."))
    assert content is None or aside.read_bytes() == content
    assert str(aside) in told


def test_the_note_of_a_copied_folder_says_nothing_new(tmp_path: Path, runs: list[RunDirectory]) -> None:
    folder = tmp_path / "runs"
    note_runs([*runs, RunDirectory(folder / "left")])
    before, _ = status_of(folder)
    shutil.copytree(folder, tmp_path / "other")
    shutil.move(tmp_path / "other", folder / "backup")
    now, messages = status_of(folder)
    assert now == before
    assert len(messages) == 1


def test_looking_writes_nothing(tmp_path: Path, runs: list[RunDirectory]) -> None:
    runs[0].update_record(status="running", pid=1)
    runs[0].lock_file.touch()
    folder = tmp_path / "runs"

    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}

    before = state()
    main(["status", str(folder)])
    main(["sync", str(folder)])
    read_runs(folder)
    assert state() == before


def test_an_identity_is_a_word(tmp_path: Path, runs: list[RunDirectory]) -> None:
    for run in runs:
        run.record_file.write_text(json.dumps(run.record() | {"wandb_id": 5}))
    assert len(names(tmp_path / "runs")) == 2
