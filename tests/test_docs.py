"""docs/architecture.md tells of this code: what it names exists, and it leaves no module and no law's test out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.conftest import PROJECT
from tests.test_architecture import FLOORS

PAGE = (PROJECT / "docs" / "architecture.md").read_text()
BLOCKS = dict(re.findall(r"^```(\S+)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE))
IN_A_RUN = {line.split()[0] for line in BLOCKS["run-directory"].splitlines()} | {"sweep.json"}
IS_PATH = re.compile(r"[\w./-]+(/|\.(py|md|yaml|json|csv|svg|jinja|css|log))")


def named_paths() -> set[tuple[str, str]]:
    """Every path in backticks, after the folder that its section is about (nothing where it is about none)."""
    found, folder = set(), ""
    for line in PAGE.splitlines():
        paths = [span for span in re.findall(r"`([^`]+)`", line) if IS_PATH.fullmatch(span)]
        if line.startswith("#"):
            folder = paths[0] if paths else ""
        found |= {(folder, path) for path in paths if path not in IN_A_RUN}
    return found


def place(folder: str, path: str) -> Path:
    """Where a path of the page leads: from the folder of its section, or from the top."""
    inside = PROJECT / folder / path
    return inside if inside.exists() else PROJECT / path


def test_every_file_and_folder_exists() -> None:
    named = named_paths()
    assert len(named) > 80
    assert not [path for folder, path in named if not place(folder, path).exists()]


def test_no_module_is_left_out() -> None:
    named = {place(*each) for each in named_paths()}
    modules = [*PROJECT.glob("prs_lightning/**/*.py"), *PROJECT.glob("callbacks/*.py"), *PROJECT.glob("*.py")]
    modules = [file for file in modules if not file.is_symlink()]
    assert not [str(file) for file in modules if file.name != "__init__.py" and file not in named]


def test_every_test_exists() -> None:
    named = set(re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE))
    assert len(named) > 25
    for file, test in sorted(named):
        nodes = ast.parse((PROJECT / file).read_text()).body
        assert test in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


def test_every_law_has_a_test_and_those_that_tests_cite_are_on_the_page() -> None:
    laws = dict(re.findall(r"^\| (\d+) \| (.*)$", PAGE, flags=re.MULTILINE))
    assert list(laws) == [str(number) for number in range(1, 11)]
    assert all("::test_" in law for law in laws.values())
    cited = {number for file in PROJECT.glob("tests/*.py") for number in re.findall(r"\blaw (\d+)", file.read_text())}
    assert {"1", "2", "5", "6", "7"} <= cited <= laws.keys()


def test_the_floors_are_those_that_are_tested() -> None:
    assert [set(line.split()) for line in BLOCKS["floors"].splitlines()] == list(FLOORS)


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (PROJECT / "docs" / target).exists(), target
