"""CONTRIBUTING.md names files that exist, and its recipes import what is there; the hooks are what `make lint` runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import PROJECT

PAGE = (PROJECT / "CONTRIBUTING.md").read_text()
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
RECIPES = ["An architecture", "A data set", "A measure", "An intervention", "An attack", "A figure", "A claim"]
FILE = re.compile(r"[\w./-]+\.(py|md|yaml|toml|txt|csv|json)")

# A block of a recipe starts with the name of its file: "# conf/train.yaml: where in it", "# a/b.py, a new file".
BLOCKS = [
    (found.group(1), found.group(2), body)
    for _, body in FENCED.findall(PAGE)
    if (found := re.match(r"# ([\w./-]+)(.*)", body))
]
NEW = {name: body for name, where, body in BLOCKS if where.startswith(", a new file")}
CHANGED = [(name, where) for name, where, _ in BLOCKS if name not in NEW]


def files_named(text: str) -> list[str]:
    """What stands between backticks outside the blocks and looks like a file or folder of the repository."""
    top = {path.name for path in PROJECT.iterdir()}
    quoted = re.findall(r"`([^`\s]+)`", FENCED.sub("", text))
    return [name for name in quoted if FILE.fullmatch(name) or ("/" in name and Path(name).parts[0] in top)]


def test_every_file_that_is_named_exists() -> None:
    named = files_named(PAGE)
    assert len(named) >= 20
    assert [name for name in named if not (PROJECT / name).exists()] == []


def test_there_are_seven_recipes_and_each_shows_lines_and_names_its_tests() -> None:
    sections = re.split(r"^### ", PAGE.split("## Recipes")[1], flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections] == RECIPES
    for section in sections:
        assert FENCED.search(section), section
        assert re.search(r"\btests/test_\w+\.py", section), section


@pytest.mark.parametrize(("name", "where"), CHANGED, ids=[f"{name}{where}" for name, where in CHANGED])
def test_a_file_to_change_is_there_with_what_is_changed_in_it(name: str, where: str) -> None:
    text = (PROJECT / name).read_text()
    for place in re.findall(r"\bin ([A-Z_]{3,}|\w+\(\))", where) + re.findall(r"\b(?:in|under) (\w+_\w+)", where):
        assert place.rstrip(")") in text, place


@pytest.mark.parametrize("name", NEW)
def test_a_new_file_has_its_folder_and_imports_what_is_there(name: str) -> None:
    assert not (PROJECT / name).exists()
    assert (PROJECT / name).parent.is_dir()
    if name.endswith(".py"):
        exec(compile(NEW[name], name, "exec"), {"__name__": "tried"})
    else:
        node = yaml.safe_load(NEW[name])
        assert [*node] == [Path(name).stem] or node["defaults"] == ["base"]


def test_the_hooks_are_what_make_lint_runs() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    variables = dict(re.findall(r"^(\w+) :?= (.*)$", makefile, flags=re.MULTILINE))
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    assert recipe
    lines = [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], line) for line in recipe[1].splitlines()]
    (local,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert [hook["entry"] for hook in local["hooks"]] == [line.strip() for line in lines]
    for hook in local["hooks"]:
        assert (hook["language"], hook["pass_filenames"]) == ("system", False)
