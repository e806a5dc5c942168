"""Reading run directories: whole, unfinished, damaged, and of different schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prs_lightning.analysis import measured
from prs_lightning.analysis.table import read_runs, save
from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, write_text
from tests.synthetic_runs import COMMIT, write_run

PRS = np.array([0.5, 0.25, np.nan])


def columns(**more: np.ndarray) -> dict[str, np.ndarray]:
    return {"test/accuracy": np.array([0.8, 0.9, 0.95]), "prs/ratio": PRS, **more}


def without_rows(run: RunDirectory) -> None:
    """Delete metrics.csv and the copy of it."""
    run.metrics_file.unlink()
    run.rows_file.unlink()


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
    without_rows(write_run(tmp_path, columns(), seed=3, status="failed", reason="ConfigError: no data"))
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
        ("epoch,prs/ratio\n1,0.5\n1.5,0.4\n", [1], "without an epoch"),
        ("epoch,prs/ratio\n0,0.5\n-1,0.5\n1e300,0.4\n2,0.3\n", [2], "3 line(s) without an epoch"),
        ("epoch,prs/ratio,prs/ratio\n1,0.5,0.4\n", [1], "stand there twice are left out: prs/ratio"),
        ("epoch,epoch,prs/ratio\n1,2,0.4\n", [], "stand there twice are left out: epoch"),
        ("epoch,seed,,config.x,prs/ratio\n1,7,8,9,0.5\n", [1], "are no measures are left out: 'seed', '', 'config.x'"),
        ('epoch,prs/ratio\n1,"' + "x" * 140_000 + '"\n', [], "field larger than field limit"),
        ("epoch,prs/ratio\n1,0.5\n2,0.\0\0\0\n3,0.25\n", [1, 3], "1 line(s) with zeroed bytes"),
    ],
)
def test_a_damaged_csv_costs_what_cannot_be_read_and_says_so(
    tmp_path: Path, text: str, epochs: list[int], told: str
) -> None:
    good, bad = write_run(tmp_path, columns(), seed=0), write_run(tmp_path, columns(), seed=1)
    without_rows(bad)
    write_text(bad.metrics_file, text)
    table = read_runs(tmp_path)
    assert table.rows.columns.is_unique
    assert table.rows.loc[table.rows["run"] == bad.path.name, "epoch"].tolist() == epochs
    assert table.rows.loc[table.rows["run"] == good.path.name, "epoch"].tolist() == [1, 2, 3]
    messages = [message for message in table.messages if message.startswith(bad.path.name)]
    assert told in " ".join(messages)
    assert told in table.runs.set_index("run").loc[bad.path.name, "reason"]


def test_the_later_of_two_rows_of_one_epoch_counts(tmp_path: Path) -> None:
    run = write_run(tmp_path, columns())
    without_rows(run)
    write_text(run.metrics_file, "epoch,prs/ratio\n1,0.5\n1,0.4\n")
    assert read_runs(tmp_path).rows["prs/ratio"].tolist() == [0.4]


@pytest.mark.parametrize(
    "text", [None, b"", b"epoch,prs/ratio\n1,0.5\n", b"\xff\xfe\0\0", b"epoch,test/accuracy\n1,0.1\n"]
)
def test_rows_that_were_harmed_are_those_of_the_copy(tmp_path: Path, text: bytes | None) -> None:
    run = write_run(tmp_path, columns())
    whole = read_runs(tmp_path)
    run.metrics_file.unlink()
    if text is not None:
        run.metrics_file.write_bytes(text)
    table = read_runs(tmp_path)
    pd.testing.assert_frame_equal(table.rows, whole.rows)
    why = "is missing" if text is None else "is not as it was written"
    assert table.messages == [f"{run.path.name}: metrics.csv {why}: its rows are those of checkpoints/rows.json"]


def test_a_copy_that_was_harmed_too_changes_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path, columns())
    whole = read_runs(tmp_path)
    write_text(run.rows_file, run.rows_file.read_text().replace("0.25", "0.75"))
    pd.testing.assert_frame_equal(read_runs(tmp_path).rows, whole.rows)


def test_line_ends_and_marks_of_other_editors_change_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path, columns())
    whole = read_runs(tmp_path)
    text = run.metrics_file.read_text()
    run.rows_file.unlink()
    quoted = "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines())
    for other in ("\ufeff" + text, text.replace("\n", "\r\n"), text.replace("\n", "\r"), quoted):
        run.metrics_file.write_bytes(other.encode())
        table = read_runs(tmp_path)
        pd.testing.assert_frame_equal(table.rows, whole.rows)
        assert table.messages == []


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_quick_reader_reads_what_the_careful_one_does(data: st.DataObject) -> None:
    cells = st.one_of(
        st.floats(allow_nan=False).map(repr), st.sampled_from(["", "nan", "x", "1e400", " 1", "1_0", "null"])
    )
    epochs = st.one_of(st.integers(-1, 9).map(str), st.sampled_from(["1.5", "2.0", ""]))
    lines = data.draw(st.lists(st.tuples(epochs, cells, cells), max_size=6))
    content = "epoch,a/b,c/d\n" + "".join(",".join(line) + "\n" for line in lines)
    careful = measured._careful(content.encode(), [])
    quick = measured._usual(content.encode())
    if quick is not None:
        pd.testing.assert_frame_equal(quick.to_pandas(), careful.to_pandas())
    elif all(epoch.isdigit() for epoch, *_ in lines):
        plain = all(part not in line for line in lines for part in ("x", "1e400", " 1", "1_0", "null"))
        rising = [int(epoch) for epoch, *_ in lines]
        finite = all("inf" not in cell for line in lines for cell in line)
        assert not (plain and finite and lines and rising[0] > 0 and rising == sorted({*rising})), content


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


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe\0\x01", b"[1, 2]", b"7", b"null", b'"finished"', b"{", b"\0" * 4096, b"{1: 2}",
        b"a: &a [x]\nb: *c\n", b"!!python/object/apply:os.system [exit]", b"[" * 5000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
def test_what_cannot_be_read_of_a_run_is_named_and_the_rest_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    bad, _ = write_run(tmp_path, columns(), seed=0), write_run(tmp_path, columns(), seed=1)
    (bad.path / name).write_bytes(content)
    table = read_runs(tmp_path)
    assert len(table.rows) == 6
    assert table.rows["run"].nunique() == 2
    (message,) = table.messages
    assert message.startswith((f"{bad.path.name}: {name} is damaged (", f"{bad.path.name}: {name} is missing or empty"))
    assert "\n" not in message


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"status": "finishing"}, "status 'finishing'"),
        ({}, "missing or empty"),
        ({"status": "finished", "versions": [], "reason": 5, "started": {}}, None),
        ({"status": "finished", "versions": "2.14"}, "versions=2.14 is no mapping"),
        ({"status": "running", "pid": "x", "wandb_id": 5}, None),
    ],
)
def test_values_of_a_record_that_are_none(tmp_path: Path, record: dict[str, object], told: str | None) -> None:
    write_run(tmp_path, columns(), seed=0).record_file.write_text(json.dumps(record))
    write_run(tmp_path, columns(), seed=1)
    table = read_runs(tmp_path)
    assert len(table.rows) == 6
    assert [told in message for message in table.messages] == [True] if told else table.messages == []
    assert table.runs["reason"][0] in (None, "5", table.messages[0].partition(": ")[2] if told else None)


@pytest.mark.parametrize("value", ["abc", [1], True, float("inf"), 10**40])
def test_a_seed_that_is_no_number_is_told(tmp_path: Path, value: object) -> None:
    run = write_run(tmp_path, columns())
    run.config_file.write_text(yaml.safe_dump(run.config() | {"seed": value}))
    table = read_runs(tmp_path)
    assert np.isnan(table.runs["seed"][0])
    assert len(table.messages) == 1
    assert "is no number" in table.messages[0]


def test_what_is_unreadable_by_right_or_kind_is_named(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, columns(), seed=seed) for seed in range(4)]
    for run, name in zip(runs, ("run.json", "config.yaml", "metrics.csv"), strict=False):
        (run.path / name).unlink()
        (run.path / name).mkdir()
    table = read_runs(tmp_path)
    assert len(table.rows) == 12
    assert [message.split()[1] for message in table.messages] == ["run.json", "config.yaml", "metrics.csv"]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run directories"):
        read_runs(tmp_path)
    with pytest.raises(RunError, match="is no folder"):
        read_runs(tmp_path / "absent")


def test_runs_without_any_row_are_still_a_table(tmp_path: Path) -> None:
    without_rows(write_run(tmp_path, columns(), status="failed", reason="early"))
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
