"""The numbers of the golden record (tests/golden): to the bit where it was made, within tolerances elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden import record

SHARES = ("correct_before", "correct_after", "zero_gradient_clean", "zero_gradient_end")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """The four parts, made by this code on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("golden")
    yield {name: make(folder) for name, make in record.PARTS.items()}
    torch.set_num_threads(threads)


def recorded(part: str) -> tuple[dict[str, Any], bool]:
    """A part of the record, and whether it was made on such a machine."""
    content = json.loads((Path(record.__file__).parent / f"{part}.json").read_text())
    return content, content.pop("machine") == record.machine()


def differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """Where two nested values differ, a line each."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return [
            line
            for key in found.keys() | expected.keys()
            for line in differences(found.get(key), expected.get(key), f"{path}/{key}")
        ]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return [
            line
            for i, pair in enumerate(zip(found, expected, strict=True))
            for line in differences(*pair, f"{path}[{i}]")
        ]
    return [] if found == expected else [f"{path}: {found!r}, recorded {expected!r}"]


def test_regions_have_the_same_keys_everywhere(made: dict[str, Any]) -> None:
    assert differences(made["regions"], recorded("regions")[0]) == []


@pytest.mark.parametrize("part", ["training", "attacks", "analysis"])
def test_on_the_same_machine_nothing_differs(made: dict[str, Any], part: str) -> None:
    expected, same_machine = recorded(part)
    if not same_machine:
        pytest.skip("another processor or torch than the record's")
    assert differences(json.loads(json.dumps(made[part])), expected) == []


def test_runs_have_the_same_names_configs_and_columns(made: dict[str, Any]) -> None:
    for name, run in recorded("training")[0].items():
        found = made["training"][name]
        assert (found["run"], found["config"]) == (run["run"], run["config"])
        assert [list(row) for row in found["rows"]] == [list(row) for row in run["rows"]]


def test_measures_are_near(made: dict[str, Any]) -> None:
    for name, run in recorded("training")[0].items():
        for row, expected in zip(made["training"][name]["rows"], run["rows"], strict=True):
            for column, value in expected.items():
                assert (row[column] == "") == (value == ""), (name, column)
                group = column.split("/")[0]
                if value and group in ("train", "test", "prs", "weights", "features"):
                    assert float(row[column]) == pytest.approx(float(value), rel=0.2, abs=0.15), (name, column)
                elif value and group == "robust":  # of ten images, and another processor trains other weights
                    assert 0 <= float(row[column]) <= 1, (name, column)


def test_few_samples_meet_another_end(made: dict[str, Any]) -> None:
    for name, expected in recorded("attacks")[0].items():
        found = made["attacks"][name]
        if name.endswith("curve"):
            assert found == pytest.approx(expected, abs=0.15), name
        elif not name.endswith("audit"):
            for flag in SHARES:
                moved = sum(one != other for one, other in zip(found[flag], expected[flag], strict=True))
                assert moved <= 4, (name, flag)


def test_statistics_and_claims_are_near(made: dict[str, Any]) -> None:
    expected, found = recorded("analysis")[0], made["analysis"]
    for part in ("claims", "statistics"):
        for row, other in zip(found[part], expected[part], strict=True):
            assert row.keys() == other.keys()
            for column, value in other.items():
                try:
                    assert float(row[column]) == pytest.approx(float(value), rel=1e-6, abs=1e-9), column
                except ValueError:
                    assert row[column] == value, column
    assert found["captions"] == expected["captions"]
    assert found["figures"].keys() == expected["figures"].keys()
