"""The scoreboard: on the console, as a forest plot in the page, and as tables in Markdown."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from prs_lightning.analysis import report
from prs_lightning.analysis.boards import console_board
from prs_lightning.analysis.panels import COLUMNS, Statistics
from prs_lightning.analysis.selection import select
from prs_lightning.analysis.shown import MARKS, kind
from prs_lightning.analysis.table import RunTable
from prs_lightning.analysis.verdict import claims_table
from prs_lightning.sweep.cli import CONFIG_FOLDER
from tests.made_claims import VERDICTS, made, other_form
from tests.test_analysis_words import models

CLAIMS = [*(made(name, f"low PRS ratio → high y{place}") for place, name in enumerate(VERDICTS)), other_form()]


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_the_console_shows_every_word_and_number_at_any_width(width: int, terminal: bool) -> None:
    console = Console(width=width, force_terminal=terminal, color_system="standard" if terminal else None, record=True)
    with console.capture() as capture:
        console.print(console_board(CLAIMS, width))
    written = capture.get()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written)
    assert all(len(line) <= width for line in plain.splitlines())
    assert ("\x1b[32m" in written) is terminal  # green
    words = plain.split()
    for claim in CLAIMS:
        for text in (claim.claim, claim.verdict):
            assert {*text.split()} <= {*words}
    assert "…" not in plain
    # An interval is never broken within its brackets.
    assert plain.count("[0.41, 0.68]") == sum(claim.association.low == 0.41 for claim in CLAIMS)


def test_every_verdict_has_a_mark_of_its_own() -> None:
    assert {kind(claim) for claim in CLAIMS} == {*MARKS}
    assert len({mark.sign for mark in MARKS.values()}) == len({mark.style for mark in MARKS.values()}) == len(MARKS)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of claims made by hand, with pairs and seeds."""
    rows = models().assign(git_commit=None, versions="", reason=None, torch="2", epochs=100, last_epoch=100)
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = OmegaConf.to_container(compose("analyze", ["runs=runs", "wandb.mode=disabled"]), resolve=False)
    claims = [replace(CLAIMS[0], new_low=-0.25, new_high=0.9), *CLAIMS[1:]]
    coupled = pd.DataFrame({
        "claim": "low PRS ratio → high y0", "factor": ["seed", "batch size"], "pairs": [1200, 0],
        "sign_error": [0.25, np.nan], "low": [0.2, np.nan], "high": [0.3, np.nan], "worst": [True, False],
        "worst_environment": ["CNN-6, MNIST", ""], "worst_sign_error": [0.75, np.nan],
    })  # fmt: skip
    evidence = report.Evidence(
        config, RunTable(rows, rows.drop_duplicates("run"), []), select(rows, [50, 100]),
        Statistics(pd.DataFrame(columns=list(COLUMNS)), {}), claims, [], None, "none", coupled=coupled,
        power=pd.DataFrame({"claim": ["low PRS ratio → high y0"], "5 seeds": ["81%"]}),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("report")
    report.write_report(evidence, folder)
    return folder


def drawn(folder: Path) -> list[ElementTree.Element]:
    """Every interval of the page."""
    rows = re.findall(r'<div class="row .*?</div>', (folder / "report.html").read_text(), flags=re.DOTALL)
    return [picture for row in rows if (picture := ElementTree.fromstring(row).find("svg")) is not None]


def test_a_forest_plot_places_what_its_label_says(written: Path) -> None:
    """Place on the axis is 50% + 48% of the value, read from the label of each drawing."""
    pictures = drawn(written)
    assert len(pictures) > 3 * len(VERDICTS)
    intervals = 0
    for picture in pictures:
        label = picture.attrib["aria-label"]
        numbers = re.match(r".*?: (-?\d\.\d\d)(?: \[(-?\d\.\d\d), (-?\d\.\d\d)\])?", label)
        points = picture.findall("svg")
        lines = {line.attrib["class"]: line for line in picture.findall("line")}
        assert {"axis", "zero"} <= lines.keys()
        if numbers is None:
            assert label.endswith(": –")  # noqa: RUF001
            assert not points
            assert "range" not in lines
            continue
        effect, low, high = numbers.groups()
        assert float(points[0].attrib["x"][:-1]) == pytest.approx(50 + 48 * float(effect), abs=0.3)
        assert ("range" in lines) is (low is not None)
        if low is not None:
            intervals += 1
            ends = [float(lines["range"].attrib[end][:-1]) for end in ("x1", "x2")]
            assert ends == pytest.approx([50 + 48 * float(low), 50 + 48 * float(high)], abs=0.3)
    assert intervals > 20
    expected = pictures[0].find("line[@class='expected']")
    assert expected is not None
    assert [float(expected.attrib[end][:-1]) for end in ("x1", "x2")] == pytest.approx([38, 93.2], abs=0.1)
    assert pictures[0].attrib["aria-label"].endswith("expected of a new panel: [-0.25, 0.90]")


def test_the_page_names_panels_that_were_left_out_and_the_unit_of_other_claims(written: Path) -> None:
    page = (written / "report.html").read_text()
    reason = "Left out: ResNet-18 on MNIST: RA (PGD-20) within one sample of 0 in 30 of 36 models."
    assert page.count(reason) == sum(bool(claim.panels) for claim in CLAIMS)
    assert "3 panels, of which 1 left out" in page
    assert "<b>ResNet-18 on MNIST</b>" not in page
    assert page.count("Unit: RA(inclusion) - RA(exclusion).") == page.count("RA(inclusion)") == 1
    assert "0.002 (0.03)" in page
    assert "RA (PGD-20) +0.12 [+0.08, +0.16] over the middle 80% of PRS ratios; at fixed batch size and epoch" in page
    assert '<span class="verdict association-only">◐ association only</span> explained by batch size and' in page
    assert '<span class="verdict supported small">✓ supported but small</span>' in page


def test_page_and_markdown_have_the_same_numbers(written: Path) -> None:
    page, markdown = ((written / name).read_text() for name in ("report.html", "report.md"))
    for number in {*re.findall(r"-?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\]", page)}:
        assert number in markdown
    assert "| ResNet-18 on MNIST | – | – | – | RA (PGD-20) within one sample" in markdown  # noqa: RUF001
    assert "| a new one, expected | [-0.25, 0.90] |" in markdown
    for text in (page, markdown):
        assert "0.25 [0.20, 0.30] of 1,200 pairs" in text
        assert "no pairs" in text
        assert "seed: 0.75 for CNN-6, MNIST" in text
        assert "81%" in text
        assert "if runs of one batch size correlate by 0.5; 90% is enough. Simulated" in text
        assert "With 3 runs the data cannot say" in text
        assert not re.search(r"\bnan\b", text)


def test_the_table_of_claims_has_both_answers() -> None:
    table = claims_table(CLAIMS)
    assert len(table) == len(CLAIMS)
    for answer in ("association", "between_runs", "between_epochs"):
        assert {answer, f"{answer}_low", f"{answer}_high", f"{answer}_p"} <= {*table.columns}


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_the_words_of_a_verdict_stand_out_from_their_ground_in_light_and_dark() -> None:
    """Contrast 4.5 or more (WCAG 2.2, 1.4.3)."""
    style = (Path(report.__file__).parent / "report.css").read_text()
    light, dark = style.split("prefers-color-scheme", 1)
    for part in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part))
        for name in ("good", "bad", "half", "none", "open"):
            for ground in (f"{name}-page", "page"):
                dim, bright = sorted(luminance(colours[each]) for each in (name, ground))
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (name, ground)
    for mark in MARKS.values():
        assert f".{mark.style}" in style
