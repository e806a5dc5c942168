"""Arms of an experiment through the whole analysis: what counts where, and what the section on causes shows."""

from __future__ import annotations

import re
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from scipy import stats

from analyze import analyze
from prs_lightning.analysis import causal, causal_section, causal_tables, mediation
from prs_lightning.analysis.arms import SCALED, arm_names, left_alone
from prs_lightning.analysis.causes import VERDICTS, Causes
from prs_lightning.analysis.contrasts import END, MATCHED
from prs_lightning.analysis.figures import make_all
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.table import read_runs
from prs_lightning.measures import AUDITED_ACCURACY, PRS_RATIO, ROBUST_ACCURACY
from prs_lightning.runs import RunDirectory, write_text
from tests.causal_worlds import WORLDS
from tests.synthetic_runs import write_grid, write_rows, write_run
from tests.test_analysis_report import config

SMALL = {"batch_sizes": (64,), "seeds": range(1), "epochs": 6, "grid": (2, 4, 6)}
QUICK = ("figures=[2b,4,17,18]", "bootstrap.draws=100")
TABLES = ("statistics.csv", "claims.csv", "coupled.csv", "figures/fig-2b.csv", "figures/fig-4.csv")
ARMS = (
    "low_prs 1", "low_prs 5", "low_prs 5 + logit_penalty 0.01", "high_prs 1", "adversarial 1", SCALED,
)  # fmt: skip


def world() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of a planted experiment on one panel, and of its negative control."""
    rows, scaled = WORLDS["causal, large"].make(np.random.default_rng(0), panels=1)
    return rows, scaled.assign(run=scaled["run"] + " x1000")


def measured_instead(rows: pd.DataFrame, *_: object, **__: object) -> tuple[pd.DataFrame, list[str]]:
    """The planted control in the columns of the runs, as if it had been made from checkpoints."""
    own = rows[(rows["arm"] == "none") & (rows["epoch"] == 12)].set_index("seed")
    planted = world()[1].set_index("seed")
    columns = [name for name in planted if "/" in name]
    return own.assign(arm=SCALED, strength="1000", **planted[columns]).reset_index(), ["one was left out"]


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Causes]:
    """Reports of the same runs without and with arms beside them, and what the study of the latter found."""
    alone, beside = (tmp_path_factory.mktemp(name) for name in ("alone", "beside"))
    rows = world()[0]
    write_rows(alone, rows[rows["arm"] == "none"])
    write_rows(beside, rows)
    studies: list[Causes | None] = []

    def study(*given: Any, **options: Any) -> Causes | None:
        studies.append(causal.causal_study(*given, **options))
        return studies[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causal_section, "scaled_rows", measured_instead)
        patch.setattr(causal_section, "causal_study", study)
        patch.setattr(mediation, "mediated", partial(mediation.mediated, draws=50))  # a thousand take seconds
        for folder in (alone, beside):
            analyze(config(folder, *QUICK))
    without, found = studies
    assert without is None
    assert found is not None
    return alone / "report", beside / "report", found


@pytest.fixture
def both(analyzed: tuple[Path, Path, Causes]) -> tuple[Path, Path]:
    return analyzed[:2]


@pytest.fixture
def causes(analyzed: tuple[Path, Path, Causes]) -> Causes:
    return analyzed[2]


def test_rows_and_runs_know_their_arm(tmp_path: Path) -> None:
    rows = world()[0]
    write_rows(tmp_path, rows[rows["seed"] == 0])
    read = read_runs(tmp_path)
    for table in (read.rows, read.runs):
        assert {*arm_names(table)} == {"none", *ARMS[:-1]}
    assert {*zip(read.runs["arm"], read.runs["strength"], strict=True)} >= {
        ("none", "0"), ("low_prs", "5"), ("low_prs+logit_penalty", "5+0.01")
    }  # fmt: skip
    assert {*left_alone(read.rows)["run"]} == {"mnist5k-cnn6-bs32-seed0"}


@pytest.mark.parametrize("found", [None, "strong", {"low_prs": {"strength": "much"}}, {"low_prs": None}, [1]])
def test_an_intervention_that_cannot_be_read_stops_nothing(tmp_path: Path, found: object) -> None:
    (run,) = write_grid(tmp_path, **SMALL)
    write_text(run.config_file, yaml.safe_dump(run.config() | ({} if found is None else {"intervention": found})))
    read = read_runs(tmp_path)
    (row,) = read.runs.to_dict("records")
    unreadable = found == {"low_prs": {"strength": "much"}}
    assert (row["arm"], row["strength"]) == (("low_prs", "unknown") if unreadable else ("none", "0"))
    assert len(left_alone(read.rows)) == 6 * (not unreadable)
    assert len(read.messages) == unreadable


def test_arms_change_nothing_about_the_runs_that_were_left_alone(both: tuple[Path, Path]) -> None:
    for name in TABLES:
        assert (both[0] / name).read_text() == (both[1] / name).read_text(), name


def test_nothing_of_causes_stands_where_no_run_has_an_intervention(both: tuple[Path, Path]) -> None:
    alone = both[0]
    for name in ("report.md", "report.html"):
        text = (alone / name).read_text()
        assert not re.search(r"[Ii]ntervention|\bCauses\b|Figure 1[78]", text[: text.index("Config of the analysis")])
    assert not [*alone.glob("causal*.csv"), *alone.glob("figures/fig-1[78]*")]


def test_the_report_says_what_does_not_count(both: tuple[Path, Path]) -> None:
    text = (both[1] / "report.md").read_text()
    others = (
        "25 runs with an intervention (5 of adversarial 1, 5 of high_prs 1, 5 of low_prs 1, 5 of low_prs 5 and 5 of"
    )
    assert f"Not counted here, but in the section on causes: {others} low_prs 5 + logit_penalty 0.01)." in text
    assert "| rows read, one per run and epoch | 360 | 30 |" in text
    assert "| of runs without an intervention | 60 | 5 |" in text
    assert "50 candidate models, of which 50 pass" in text


def test_the_section_holds_verdict_controls_and_every_number(both: tuple[Path, Path], causes: Causes) -> None:
    page, markdown = ((both[1] / name).read_text() for name in ("report.html", "report.md"))
    own = {
        "page": unescape(page[page.index('id="causes"') : page.index('id="scoreboard"')]),
        "markdown": unescape(markdown[markdown.index("## Causes") : markdown.index("## Scoreboard")]),
    }
    rows = causal_tables.together(causes)
    for text in own.values():
        assert "✓ causal" in text
        assert f"{causes.reason}." in text
        assert causal_tables.RULE in text
        assert causal_tables.MEDIATION in text
        assert "one was left out" in text
        assert text.index("adversarial 1 (positive control)") < text.index("low_prs 1 (fewer regions)")
        assert not re.search(r"\bnan\b|\.\.", text)
        for arm in causes.arms:
            assert f"{arm.name}: {arm.shows}" in text
            assert (
                f"{arm.name} ({causal_tables.AIMS[arm.aim]}): {arm.shows}. {arm.why[:1].upper()}{arm.why[1:]}." in text
            )
            ratios = (rows[arm.name, END, PRS_RATIO][side] for side in ("none", "treated"))
            assert " → ".join(f"{ratio:.3g}" for ratio in ratios) in text
            for at in (END, MATCHED)[: 1 + (arm.aim != "negative")]:
                for measure in causal_tables.measures_of(causes):
                    row = rows[arm.name, at, measure]
                    star = " *" if row["p_holm"] < 0.05 else ""
                    cell = f"{row['effect']:+z.2g} [{row['low']:+z.2g}, {row['high']:+z.2g}]{star}"
                    assert cell in text.replace("\\*", "*"), (arm, at, measure)
    assert [name for name in re.findall(r'id="([\w-]+)"', page) if name.startswith("figure-")] == [
        "figure-17", "figure-18", "figure-2b", "figure-4"
    ]  # fmt: skip
    assert '<a href="#causes">' in page


def test_tables_of_the_section_are_files(both: tuple[Path, Path], causes: Causes) -> None:
    names = {file.name for file in both[1].glob("causal*.csv")}
    assert names == {"causal.csv", "causal_mediation.csv", "causal_doses.csv"}
    written = pd.read_csv(both[1] / "causal.csv")
    written["note"] = written["note"].fillna("")
    pd.testing.assert_frame_equal(written, causes.contrasts, check_dtype=False)
    assert list(dict.fromkeys(written["arm"])) == [*ARMS]
    (row,) = written.query("arm == 'low_prs 1' and at == 'end' and panel == 'all' and measure == @PRS_RATIO").to_dict(
        "records"
    )
    ends = world()[0].query("epoch == 12").assign(arm=lambda table: arm_names(table)).groupby("arm")[PRS_RATIO].mean()
    assert row["effect"] == pytest.approx(ends["low_prs 1"] - ends["none"], rel=1e-5)  # all seeds have both


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_console_shows_verdict_check_and_effects_at_any_width(causes: Causes, width: int) -> None:
    console = Console(width=width)
    with console.capture() as capture:
        causal_section.show(console, causes, 0.95)
    text = capture.get()
    assert all(len(line) <= width for line in text.splitlines())
    assert "Causes: ✓ causal" in text
    words = {*re.split(r"[\s│]+", text)}
    for arm in causes.arms:
        assert {*arm.name.split(), *arm.shows.split()} <= words
    for (_, at, measure), row in causal_tables.together(causes).items():
        if at == END and (measure != PRS_RATIO or width >= 100):
            assert f"{row['effect']:+z.2g}{'*' * bool(row['p_holm'] < 0.05)}" in words
    assert "…" not in text


def test_what_moves_is_told_after_correction() -> None:
    told = [causal_tables.moves({"p": p, "p_holm": holm}, 0.95) for p, holm in ((0.01, 0.06), (0.01, 0.04))]
    assert told == [False, True]
    assert not causal_tables.moves({"p": np.nan, "p_holm": np.nan}, 0.95)


def test_every_verdict_has_a_mark_of_its_own() -> None:
    marks = causal_tables.MARKS
    assert {*marks} == {*VERDICTS}
    assert len({mark.sign for mark in marks.values()}) == len({mark.style for mark in marks.values()}) == len(marks)


def test_figure_17_has_both_runs_of_each_pair_at_its_end(both: tuple[Path, Path]) -> None:
    numbers = pd.read_csv(both[1] / "figures" / "fig-17.csv")
    rows = world()[0].query("epoch == 12")
    assert len(numbers) == 2 * 5 * len(ARMS)
    for (arm, seed), pair in numbers.groupby(["arm", "seed"]):
        assert [*pair["side"]] == ["none", "arm"]
        alone = rows[(rows["arm"] == "none") & (rows["seed"] == seed)]
        of_arm = rows[(arm_names(rows) == arm) & (rows["seed"] == seed)]
        for name in (PRS_RATIO, ROBUST_ACCURACY, AUDITED_ACCURACY):
            expected = [alone[name].item(), of_arm[name].item() if arm != SCALED else pair[name].iloc[1]]
            np.testing.assert_allclose(pair[name], expected, rtol=1e-5)


def test_figure_18_has_the_means_and_students_interval_of_the_paired_differences(both: tuple[Path, Path]) -> None:
    numbers = pd.read_csv(both[1] / "figures" / "fig-18.csv")
    points, means = numbers[numbers["measure"].isna()], numbers[numbers["measure"].notna()]
    assert {*points["intervention"]} == {"low_prs"}  # the others have one strength, or are two at once
    assert [*points.groupby("dose")["strength"].first()] == [0, 1, 5]
    for (measure, dose), row in means.groupby(["measure", "dose"]):
        first, other = (points[points["dose"] == each].sort_values("seed")[measure] for each in (0, dose))
        assert row["mean"].item() == pytest.approx(other.mean())
        if dose:
            found = stats.ttest_rel(other, first).confidence_interval(0.95)
            expected = [first.mean() + found.low, first.mean() + found.high]
            assert [row["low"].item(), row["high"].item()] == pytest.approx(expected)
        else:
            assert row[["low", "high"]].isna().all(axis=None)


def test_figures_of_arms_say_what_was_not_run(tmp_path: Path) -> None:
    rows = world()[0]
    rows = rows[(rows["arm"] != "low_prs") & (rows["seed"] == 0)].drop(columns=[AUDITED_ACCURACY])
    made = make_all(rows, rows, folder=tmp_path, arms=rows, only=["17", "18"], progress=lambda line: None)
    assert [done.error for done in made] == [None, None]
    assert make_all(rows, rows, folder=tmp_path, only=["17", "18"], progress=lambda line: None) == []


def test_a_folder_of_interventions_alone_is_read_all_the_same(tmp_path: Path) -> None:
    for seed in range(2):
        columns = {"test/accuracy": np.ones(2), "prs/ratio": np.ones(2)}
        write_run(tmp_path, columns, seed=seed, grid=(1, 2), interventions={"low_prs": 1.0})
    assert select(read_runs(tmp_path).rows).models.empty
    analyze(config(tmp_path, "figures=[17]"))
    text = (tmp_path / "report" / "report.md").read_text()
    assert "No model counts." in text
    assert "**? undecided** the positive control was not run." in text
    assert "factorial" not in text
    assert "no run of none for low_prs 1 with seeds 0 and 1" in text


def test_a_factorial_alone_is_shown_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed in range(4):
        for batch in (32, 256):
            for epochs in (2, 6):
                ratio = 0.1 * np.log2(batch) - 0.05 * np.log2(epochs) + 0.01 * rng.standard_normal(epochs)
                columns = {"test/accuracy": np.full(epochs, 0.95), "prs/ratio": ratio, "prs/count": ratio * 1000}
                run = write_run(tmp_path, columns, batch_size=batch, seed=seed, grid=(1, 2))
                run.path.rename(tmp_path / f"{run.path.name}-{epochs}")
    analyze(config(tmp_path, "bootstrap.draws=100"))
    text = (tmp_path / "report" / "report.md").read_text()
    section = text[text.index("## Causes: the batch-size factorial") : text.index("## Scoreboard")]
    table = pd.read_csv(tmp_path / "report" / "causal_factorial.csv").set_index(["measure", "factor"])
    slope = table.loc[(PRS_RATIO, "batch size"), "slope"]
    assert slope == pytest.approx(0.1, abs=0.01)
    assert f"| PRS ratio | {slope:+.2g} [" in section
    for absent in ("undecided", "Causal:", "control", "Each arm"):
        assert absent not in section
    assert [file.name for file in (tmp_path / "report").glob("causal*.csv")] == ["causal_factorial.csv"]


def test_a_run_without_that_key_was_left_alone(tmp_path: Path) -> None:
    (run,) = write_grid(tmp_path, **SMALL)
    assert "intervention" not in RunDirectory(run.path).config()
    table = read_runs(tmp_path).rows
    assert {*table["arm"]} == {"none"}
    pd.testing.assert_frame_equal(left_alone(table), table)
