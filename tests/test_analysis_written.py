"""CSV files: those of pandas to the byte, but for cells that a spreadsheet would run; and what stands in a report."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from analyze import analyze
from prs_lightning.analysis.text import code_span, in_markdown, markdown_block
from prs_lightning.analysis.written import AT_ONCE, check_folder, write_csv
from prs_lightning.errors import RunError
from tests.synthetic_runs import write_grid, write_run
from tests.test_analysis_report import config

HARMLESS = st.text(
    st.characters(codec="utf-8", exclude_characters="=+-@\t\r\n\0", exclude_categories=("Cs",)), max_size=6
)
NUMBERS = st.floats() | st.sampled_from([1e-4, 9.9e-5, 1e9, 999_999_999.5, 1e16, 1e22, 5e-324, -0.0, 3.0])


@given(st.data(), st.integers(1, 6))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_that_of_pandas(tmp_path: Path, data: st.DataObject, length: int) -> None:
    def column(cells: st.SearchStrategy[Any], **how: Any) -> pd.Series:
        return pd.Series(data.draw(st.lists(cells, min_size=length, max_size=length)), **how)

    texts = column(HARMLESS)
    frame = pd.DataFrame(
        {
            "float": column(NUMBERS, dtype=float),
            "int": column(st.integers(-(2**60), 2**60), dtype=np.int64),
            "a,b": texts,
            'quoted "name"': texts.astype("category"),
            "mixed": column(HARMLESS | st.integers() | st.floats() | st.none(), dtype=object),
            "bool": column(st.booleans()),
        }
    )
    write_csv(tmp_path / "ours.csv", frame)
    assert (tmp_path / "ours.csv").read_bytes().decode() == frame.to_csv(index=False, lineterminator="\n")


def test_a_long_file_is_that_of_pandas(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=AT_ONCE + 7) * 10.0 ** np.arange(AT_ONCE + 7).clip(max=4)
    frame = pd.DataFrame({"x": numbers.round(3), "name": "mnist"})
    write_csv(tmp_path / "ours.csv", frame)
    assert (tmp_path / "ours.csv").read_text() == frame.to_csv(index=False)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-", "=", '=HYPERLINK("a,b")']
)
@pytest.mark.parametrize("kind", ["object", "category", "str"])
def test_text_is_no_formula(tmp_path: Path, text: str, kind: str) -> None:
    write_csv(tmp_path / "ours.csv", pd.DataFrame({text: pd.Series([text, "x"], dtype=kind), "-1": [-1.5, -2.0]}))
    with (tmp_path / "ours.csv").open(newline="") as file:
        header, first, second = csv.reader(file)
    assert (header[0], first[0], second[0]) == (f"'{text}", f"'{text}", "x")
    assert (header[1], first[1], second[1]) == ("-1", "-1.5", "-2.0")


def test_text_that_is_a_number_stays_one(tmp_path: Path) -> None:
    write_csv(tmp_path / "ours.csv", pd.DataFrame({"steps": ["-1", "+2", "-1e-3"], "other": [1, 2, 3]}))
    assert (tmp_path / "ours.csv").read_text() == "steps,other\n-1,1\n+2,2\n-1e-3,3\n"


class Elements(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.said: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags |= {tag, *(name for name, _ in attrs)}

    def handle_data(self, data: str) -> None:
        self.said.append(data)


MARKUP = "<img src=x onerror=alert(1)>|`<b>`**x** [it](javascript:alert(1)) _y_ \x1b[31m \u202e"


def test_what_others_wrote_is_no_markup_in_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs <img> `x`"
    write_grid(runs, batch_sizes=(64,), seeds=range(2), epochs=4, grid=(2, 4))
    run = write_run(runs, {"test/accuracy": np.ones(2)}, seed=9, status="failed", reason=MARKUP + "\n# heading\n```")
    run.path.rename(runs / MARKUP.replace("/", ""))
    analyze(config(tmp_path, f"runs='{runs}'", "wandb.tags=['```\\n<img>']"))
    page, markdown = ((runs / "report" / name).read_text() for name in ("report.html", "report.md"))
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    said = MARKUP.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
    for text in (page, rendered):
        found = Elements(text)
        assert not {"img", "onerror", "script", "em"} & found.tags
        assert [tag for tag in ("a", "strong", "b") if tag in found.tags] == (["a", "b"] if text == page else [])
        assert f"{said} # heading ```" in " ".join("".join(found.said).split())
    for text in (page, markdown, capsys.readouterr().out):
        assert "\x1b" not in text
        assert "\u202e" not in text
    tables = [line for line in markdown.splitlines() if line.startswith("|") and "alert" in line]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in tables}) == 1


def test_code_in_markdown_cannot_be_left() -> None:
    assert code_span("a``b\nc") == "``` a``b c ```"
    assert markdown_block("a: |\n  ```\n  <b>\n") == "````yaml\na: |\n  ```\n  <b>\n````"
    assert in_markdown("a\n- b") == "a - b"
    assert in_markdown(in_markdown("<")) == "&lt;"


def test_a_folder_that_cannot_be_written_is_refused_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunError, match=r"cannot write into .*file/a \(Not a directory\): choose another, output=FOLDER"
    ):
        check_folder(tmp_path / "file" / "a")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    check_folder(tmp_path / "new" / "one")
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(RunError, match="Read-only file system"):
        check_folder(tmp_path / "other" / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new"]


@pytest.mark.parametrize(
    "name", ["table.parquet", "table.csv", "runs.csv", "statistics.csv", "claims.csv", "report.md"]
)
def test_a_full_disk_is_one_line_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_grid(tmp_path, batch_sizes=(64,), seeds=range(2), epochs=4, grid=(2, 4))
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match=rf"cannot write \S*{name}: No space left on device; make room") as error:
        analyze(config(tmp_path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report" / name).exists()
    assert not list((tmp_path / "report").glob(".*part"))
