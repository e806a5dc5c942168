"""Arms of an experiment beside runs that were left alone: what counts where."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from analyze import analyze
from prs_lightning.analysis.arms import arm_names, left_alone
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.table import read_runs
from prs_lightning.runs import RunDirectory, write_text
from tests.synthetic_runs import ARMS, write_arms, write_grid
from tests.test_analysis_report import config

SMALL = {"batch_sizes": (64,), "seeds": range(5), "epochs": 6, "grid": (2, 4, 6)}
TABLES = ("statistics.csv", "claims.csv", "coupled.csv", "figures/fig-2b.csv", "figures/fig-4.csv", "figures/fig-5.csv")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Reports of the same runs without and with arms beside them."""
    alone, beside = (tmp_path_factory.mktemp(name) for name in ("alone", "beside"))
    for folder in (alone, beside):
        write_grid(folder, **SMALL)
    write_arms(beside, **SMALL)
    for folder in (alone, beside):
        analyze(config(folder, "figures=[2b,4,5]"))
    return alone / "report", beside / "report"


def test_rows_and_runs_know_their_arm(tmp_path: Path) -> None:
    write_arms(tmp_path, [{}, *ARMS], **SMALL | {"seeds": range(1)})
    read = read_runs(tmp_path)
    for table in (read.rows, read.runs):
        assert {*zip(table["arm"], table["strength"], strict=True)} == {
            ("none", "0"), ("low_prs", "1"), ("low_prs", "5"), ("high_prs", "1"), ("adversarial", "1"),
            ("low_prs+logit_penalty", "1+0.01"),
        }  # fmt: skip
    assert {*arm_names(read.runs)} == {
        "none", "low_prs 1", "low_prs 5", "high_prs 1", "adversarial 1", "low_prs 1 + logit_penalty 0.01"
    }  # fmt: skip
    assert {*left_alone(read.rows)["run"]} == {"mnist-cnn6-bs64-seed0"}


@pytest.mark.parametrize("found", ["strong", {"low_prs": {"strength": "much"}}, {"low_prs": None}, [1]])
def test_an_intervention_that_cannot_be_read_stops_nothing(tmp_path: Path, found: object) -> None:
    (run,) = write_grid(tmp_path, **SMALL | {"seeds": range(1)})
    write_text(run.config_file, yaml.safe_dump(run.config() | {"intervention": found}))
    (row,) = read_runs(tmp_path).runs.to_dict("records")
    assert (row["arm"], row["strength"]) in (("none", "0"), ("low_prs", "unknown"))


def test_arms_change_nothing_about_the_runs_that_were_left_alone(both: tuple[Path, Path]) -> None:
    for name in TABLES:
        assert (both[0] / name).read_text() == (both[1] / name).read_text(), name


def test_the_report_says_what_does_not_count(both: tuple[Path, Path]) -> None:
    without, beside = ((folder / "report.md").read_text() for folder in both)
    assert "intervention" not in without
    assert "Not counted here, but in the section on causes: 25 runs with an intervention (" in beside
    assert "| of runs without an intervention | 30 | 5 |" in beside
    assert "| rows read, one per run and epoch | 180 | 30 |" in beside
    assert "5 of low_prs 1 + logit_penalty 0.01" in beside


def test_a_folder_of_interventions_alone_is_read_all_the_same(tmp_path: Path) -> None:
    write_arms(tmp_path, **SMALL | {"seeds": range(1)})
    rows = read_runs(tmp_path).rows
    assert select(rows).models.empty
    analyze(config(tmp_path))
    assert "No model counts." in (tmp_path / "report" / "report.md").read_text()


def test_a_run_without_that_key_was_left_alone(tmp_path: Path) -> None:
    (run,) = write_grid(tmp_path, **SMALL | {"seeds": range(1)})
    assert "intervention" not in RunDirectory(run.path).config()
    table = read_runs(tmp_path).rows
    assert {*table["arm"]} == {"none"}
    pd.testing.assert_frame_equal(left_alone(table), table)
