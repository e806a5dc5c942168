"""Every row of the tables of faults: what is broken ends as the row says (docs/architecture.md: law 5)."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.frame import Fault, Place, check, copied, make_shared_runs

TABLES = sorted(file.stem for file in Path(__file__).parent.glob("table_*.py"))
FAULTS: list[Fault] = [row for name in TABLES for row in importlib.import_module(f"tests.faults.{name}").FAULTS]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        make_shared_runs(folder, patch)
    return folder


@pytest.fixture
def place(shared: Path, tmp_path: Path) -> Place:
    with pytest.MonkeyPatch.context() as patch:
        yield copied(shared, tmp_path, patch)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(fault: Fault, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    check(fault, place, capsys)


def test_no_fault_is_listed_twice() -> None:
    assert [name for name, times in Counter(fault.name for fault in FAULTS).items() if times > 1] == []
