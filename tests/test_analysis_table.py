"""Reading run directories: whole, unfinished, damaged, and of different schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prs_lightning.analysis.table import read_runs, save
from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, write_text
from tests.synthetic_runs import COMMIT, write_run

PRS = np.array([0.5, 0.25, np.nan])


def columns(**more: np.ndarray) -> dict[str, np.ndarray]:
    return {"test/accuracy": np.array([0.8, 0.9, 0.95]), "prs/ratio": PRS, **more}


def test_a_row_per_run_and_epoch_with_config_commit_and_versions(tmp_path: Path) -> None:
    write_run(tmp_path / "sweep", columns(), batch_size=64, seed=3)
    table = read_runs(tmp_path)
    assert table.messages == []
    rows = table.rows
    assert rows["run"].tolist() == ["sweep/mnist-cnn6-bs64-seed3"] * 3
    assert rows["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(rows["prs/ratio"], PRS)
    first = rows.iloc[0]
    assert (first["data"], first["model"], first["batch_size"], first["seed"]) == ("mnist", "cnn6", 64, 3)
    assert (first["git_commit"], first["torch"]) == (COMMIT, "2.14.0")
    assert first["config.data.epsilon"] == "0.3"
    assert first["config.grid_epochs"] == "[50, 100, 150, 200, 250, 300]"
    assert dict(rows.filter(like="/").dtypes) == {"prs/ratio": np.float64, "test/accuracy": np.float64}


def test_unfinished_and_failed_runs_are_listed_with_their_reason(tmp_path: Path) -> None:
    write_run(tmp_path, columns(), seed=0)
    write_run(tmp_path, columns(), seed=1, status="failed", reason="RunError: the loss is not finite", epochs=300)
    write_run(tmp_path, columns(), seed=2, status="running", epochs=300)  # its process is gone
    empty = write_run(tmp_path, columns(), seed=3, status="failed", reason="ConfigError: no data")
    empty.metrics_file.unlink()
    table = read_runs(tmp_path)
    runs = table.runs.set_index("seed")
    assert runs["status"].tolist() == ["finished", "failed", "interrupted", "failed"]
    assert runs.loc[1, "reason"] == "RunError: the loss is not finite"
    assert runs["rows"].tolist() == [3, 3, 3, 0]
    assert table.rows["run"].nunique() == 3
    assert len(table.messages) == 1
    assert "metrics.csv is missing" in table.messages[0]


@pytest.mark.parametrize(
    ("text", "epochs", "told"),
    [
        ("epoch,prs/ratio\n1,0.5\n2,0.2", [1], "cut in line 3"),  # 0.2 may have been 0.25
        ("epoch,prs/ratio\n1,0.5\n2\n3,0.1\n", [1, 3], "1 line(s) without 2 values"),
        ("epoch,prs/ratio\n1,0.5\n2,abc\n", [1, 2], "are no numbers, such as 'abc'"),
        ("epoch,prs/ratio\n1,inf\n", [1], "infinite"),
        ("epoch,prs/ratio\n1,0.5\n1,0.4\n", [1], "comes again later"),
        ("epoch,prs/ratio\n,0.5\n2,0.4\n", [2], "without an epoch"),
        ("prs/ratio\n0.5\n", [], "no column 'epoch'"),
        ("", [], "is empty"),
        ("epo", [], "cut in line 1"),
    ],
)
def test_a_damaged_csv_costs_what_cannot_be_read_and_says_so(
    tmp_path: Path, text: str, epochs: list[int], told: str
) -> None:
    good, bad = write_run(tmp_path, columns(), seed=0), write_run(tmp_path, columns(), seed=1)
    write_text(bad.metrics_file, text)
    table = read_runs(tmp_path)
    assert table.rows.loc[table.rows["run"] == bad.path.name, "epoch"].tolist() == epochs
    assert table.rows.loc[table.rows["run"] == good.path.name, "epoch"].tolist() == [1, 2, 3]
    messages = [message for message in table.messages if message.startswith(bad.path.name)]
    assert told in " ".join(messages)
    assert told in table.runs.set_index("run").loc[bad.path.name, "reason"]


def test_the_later_of_two_rows_of_one_epoch_counts(tmp_path: Path) -> None:
    run = write_run(tmp_path, columns())
    write_text(run.metrics_file, "epoch,prs/ratio\n1,0.5\n1,0.4\n")
    assert read_runs(tmp_path).rows["prs/ratio"].tolist() == [0.4]


def test_mixed_schemas_are_joined_and_the_lacking_runs_named(tmp_path: Path) -> None:
    write_run(tmp_path, columns(), seed=0)
    write_run(tmp_path, columns(**{"robust/pgd20": np.array([0.1, 0.2, 0.3])}), seed=1)
    table = read_runs(tmp_path)
    by_seed = table.rows.groupby("seed")["robust/pgd20"]
    assert by_seed.count().tolist() == [0, 3]
    assert table.messages == ["1 of 2 runs have no column robust/pgd20: mnist-cnn6-bs128-seed0"]


def test_damaged_or_absent_config_and_record_leave_the_rows(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, columns(), seed=seed) for seed in range(4)]
    runs[0].config_file.unlink()
    runs[1].config_file.write_text("a: [")
    runs[2].record_file.write_text('{"status": "fin')
    runs[3].record_file.unlink()
    table = read_runs(tmp_path)
    assert len(table.rows) == 12
    told = dict(message.split(": ", 1) for message in table.messages)
    assert [told[run.path.name].split(" ")[0] for run in runs] == ["config.yaml"] * 2 + ["run.json"] * 2
    assert table.runs["data"].tolist() == ["unknown", "unknown", "mnist", "mnist"]
    assert table.runs["status"].tolist() == ["finished", "finished", "unreadable", "unreadable"]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run directories"):
        read_runs(tmp_path)
    with pytest.raises(RunError, match="is no folder"):
        read_runs(tmp_path / "absent")


def test_runs_without_any_row_are_still_a_table(tmp_path: Path) -> None:
    write_run(tmp_path, columns(), status="failed", reason="early").metrics_file.unlink()
    table = read_runs(tmp_path)
    assert len(table.rows) == 0
    assert table.runs["reason"].tolist() == ["early"]


def test_parquet_and_csv_hold_the_table(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", columns())
    table = read_runs(tmp_path / "runs")
    save(table, tmp_path / "out")
    parquet = pd.read_parquet(tmp_path / "out" / "table.parquet")
    comma = pd.read_csv(tmp_path / "out" / "table.csv")
    for written in (parquet, comma):
        assert list(written.columns) == list(table.rows.columns)
        np.testing.assert_array_equal(written["prs/ratio"], PRS)
    assert pd.read_csv(tmp_path / "out" / "runs.csv")["status"].tolist() == ["finished"]


def test_a_live_run_is_running(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "live")
    with run.recording({"seed": 0}):
        assert read_runs(tmp_path).runs["status"].tolist() == ["running"]


def test_tables_statistics_and_scatter_figures_need_no_torch(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from tests.synthetic_runs import write_grid
from prs_lightning.analysis.table import read_runs, save
from prs_lightning.analysis.selection import choose_pair, select
from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.claims import scoreboard
from prs_lightning.analysis import figures, networks, report
folder = Path(sys.argv[1])
write_grid(folder, epochs=2, grid=(1, 2), batch_sizes=(64,), seeds=range(5))
table = read_runs(folder)
save(table, folder / "report")
models = select(table.rows).models
assert len(models) == 10
scoreboard(panel_statistics(models, draws=100), table.rows)
made = figures.make_all(table.rows, models, folder=folder / "figures", only=["4", "5"], why="none", progress=str)
assert [figure.error for figure in made] == [None, None], made
print("torch" in sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
