"""Making, keeping and failing: the figures as files."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from prs_lightning.analysis import figures
from prs_lightning.analysis.figures import scatter
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.measures import PRS_RATIO
from tests.conftest import PROJECT
from tests.test_figures_tables import table

TABLES_ONLY = ["2b", "4", "4b", "5", "7b", "8", "10", "12", "14", "15"]


def make(folder: Path, rows: pd.DataFrame, **options: object) -> dict[str, figures.Made]:
    told: list[str] = []
    made = figures.make_all(rows, rows, folder=folder, progress=told.append, **options)
    assert len(told) >= len(made)
    return {done.number: done for done in made}


def test_each_figure_is_a_picture_a_page_and_a_table(tmp_path: Path) -> None:
    made = make(tmp_path, table(), only=["4", "5"])
    assert {number: done.inches for number, done in made.items()} == {"4": 3.4, "5": 7.0}  # one panel, and three
    for done in made.values():
        assert done.error is None
        assert not done.kept
        pixels = image.imread(done.png)
        assert pixels.shape[1] == pytest.approx(200 * done.inches, abs=1)
        assert 0.01 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.9
        assert done.pdf.read_bytes().startswith(b"%PDF")
        assert done.caption
    expected = scatter.figure_4(table()).numbers
    pd.testing.assert_frame_equal(pd.read_csv(made["4"].csv), expected, check_dtype=False)


def test_finished_figures_are_kept_until_their_data_change(tmp_path: Path) -> None:
    rows, only = table(), ["4", "8"]
    first = make(tmp_path, rows, only=only)
    written = {number: done.png.stat().st_mtime_ns for number, done in first.items()}
    again = make(tmp_path, rows, only=only)
    assert all(done.kept for done in again.values())
    assert {number: done.png.stat().st_mtime_ns for number, done in again.items()} == written
    for name in ("caption", "inches"):
        assert [getattr(done, name) for done in again.values()] == [getattr(done, name) for done in first.values()]
    changed = rows.assign(**{PRS_RATIO: rows[PRS_RATIO] + 1e-9})
    assert not any(done.kept for done in make(tmp_path, changed, only=only).values())
    assert not any(done.kept for done in make(tmp_path, changed, only=only, force=True).values())
    again["8"].csv.unlink()
    third = make(tmp_path, changed, only=only)
    assert (third["4"].kept, third["8"].kept) == (True, False)
    assert third["8"].csv.exists()


def test_a_failing_figure_is_told_and_stops_no_other(tmp_path: Path) -> None:
    calls = []

    def no_checkpoint() -> None:
        calls.append(1)
        raise RunError("last.ckpt is\ndamaged")

    made = make(tmp_path, table(), networks=no_checkpoint, key="k", only=["2a", "3", "4"])
    assert [done.error for done in made.values()] == ["last.ckpt is damaged", "last.ckpt is damaged", None]
    assert len(calls) == 1
    assert made["2a"].png is None
    broken = make(tmp_path, table().assign(batch_size="many"), only=["5", "4"])
    assert "ValueError" in broken["5"].error
    assert "\n" not in broken["5"].error
    assert broken["4"].error is None
    assert not list(tmp_path.glob("fig-5*"))


def test_a_picture_of_other_data_does_not_stay_behind_a_failure(tmp_path: Path) -> None:
    make(tmp_path, table(), only=["4"])
    failed = make(tmp_path, table().drop(columns="run"), only=["4"])
    assert failed["4"].error
    assert not list(tmp_path.iterdir())


def test_without_a_pair_the_reason_stands_in_place_of_its_figures(tmp_path: Path) -> None:
    made = make(tmp_path, table(), why="fewer than two models have a prs/ratio", only=["1", "9", "12"])
    assert made["1"].error == made["9"].error == "fewer than two models have a prs/ratio"
    assert made["12"].error is None


def test_an_unknown_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"figures=\[99\]: expected some of 1, 2a"):
        make(tmp_path, table(), only=["4", "99"])


def test_the_numbers_are_the_papers_and_ours_in_order() -> None:
    assert figures.NUMBERS == (
        "1", "2a", "2b", "3", "4", "4b", "5", "6a", "6b", "7a", "7b", "8", "9", "10", "11", "12", "13", "14", "15",
        "16", "17", "18",
    )  # fmt: skip


def test_drawing_leaves_matplotlibs_settings_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 31, "lines.linewidth": 9}):
        loud = make(tmp_path / "loud", table(), only=["8"])
        assert mpl.rcParams["font.size"] == 31
    assert dict(mpl.rcParams) == before
    quiet = make(tmp_path / "quiet", table(), only=["8"])
    pictures = [image.imread(io.BytesIO(made["8"].png.read_bytes())) for made in (loud, quiet)]
    np.testing.assert_array_equal(*pictures)


def test_tables_are_drawn_without_torch_and_without_pyplot(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "rows.parquet")
    code = f"""
import sys
from pathlib import Path
import pandas as pd
from prs_lightning.analysis import figures
rows = pd.read_parquet({str(tmp_path / "rows.parquet")!r})
made = figures.make_all(rows, rows, folder=Path({str(tmp_path)!r}), only={TABLES_ONLY!r})
assert [done.number for done in made] == {TABLES_ONLY!r}
assert not any(done.error for done in made), made
assert "torch" not in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_sizes_that_are_not_given_follow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for accelerator, default in ((False, figures.Sizes(64, 1000, 30, 300, 60, 1000, 100)), (True, figures.Sizes())):
        monkeypatch.setattr("torch.accelerator.is_available", lambda accelerator=accelerator: accelerator)
        assert figures.Sizes.on_this_machine() == default
        assert figures.Sizes.on_this_machine(curve=7) == replace(default, curve=7)
