"""The registry of the numbers, and what is read from it."""

from __future__ import annotations

import json

import pytest

from prs_lightning.measures import COLUMNS, GROUPS, MEASURES, find, markdown, on_bar
from tests.conftest import PROJECT

RECORDED = json.loads((PROJECT / "tests" / "golden" / "training.json").read_text())


def test_names_labels_and_ranges_make_sense() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
    for measure in MEASURES:
        assert measure.group in GROUPS, measure
        assert measure.label, measure
        assert measure.meaning, measure
        assert measure.better in (-1, 0, 1), measure
        assert measure.high is None or measure.low < measure.high, measure


@pytest.mark.parametrize("network", ["cnn6", "vgg16", "resnet18"])
def test_every_number_of_a_real_run_is_known_and_within_its_range(network: str) -> None:
    rows = RECORDED[network]["rows"]
    assert [name for name in rows[0] if name in COLUMNS] == [name for name in COLUMNS if name in rows[0]]
    checked = 0
    for name, value in [cell for row in rows for cell in row.items() if "/" in cell[0] and cell[1]]:
        measure = find(name)
        assert measure is not None, name
        assert measure.low <= float(value) <= (float("inf") if measure.high is None else measure.high), (name, value)
        checked += 1
    assert checked > 50


def test_the_readme_holds_the_table() -> None:
    assert markdown() in (PROJECT / "README.md").read_text()


def test_the_progress_bar_shows_what_the_study_is_about() -> None:
    shown = ["test/accuracy", "prs/ratio", "robust/pgd20", "robust/pgd20_audited", "robust/pgd100"]
    assert [measure.name for measure in MEASURES if measure.bar and "<" not in measure.name] == shown
    assert on_bar("robust/pgd7")
    assert not on_bar("prs/ratio/hidden.1")
    assert not on_bar("loss")


def test_names_that_a_config_chooses_are_found() -> None:
    chosen = {"robust/pgd7_audited": "robust/pgd<steps>_audited", "robust/mine": "robust/<attack>"}
    for name, pattern in (chosen | {"prs/ratio/convolutions.0": "prs/ratio/<layer>"}).items():
        measure = find(name)
        assert measure is not None
        assert measure.name == pattern
    assert find("prs/other") is None
