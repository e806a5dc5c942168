"""The order of imports (docs/architecture.md): lower rooms never know higher ones, and no two modules each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import PROJECT

FLOORS = (
    {"errors", "outputs", "signals", "measures", "measuring", "memory", "seeding"}
    | {"bars", "network", "shortage", "online"},
    {"regions", "data", "dashboard", "schema"},
    {"models", "attacks"},
    {"runs", "measuring_pass", "training_step"},
    {"sweep", "analysis"},
    {"audit"},
    {"callbacks", "train", "analyze"},
    {"programs"},
)
"""From the ground up: a room knows itself and the floors below its own."""

NO_TORCH = (
    "prs_lightning.runs",
    "prs_lightning.runs.__main__",
    "prs_lightning.sweep.launcher",
    "prs_lightning.analysis.table",
    "prs_lightning.analysis.statistics",
    "prs_lightning.analysis.claims",
    "prs_lightning.analysis.figures.scatter",
    "prs_lightning.analysis.figures.curves",
    "prs_lightning.train",
    "prs_lightning.analyze",
)
"""What reads runs, plans sweeps and answers --help starts without torch."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by its full name; a package is named after its folder."""
    names = {}
    # A glob does not follow links.
    for file in (*PROJECT.glob("prs_lightning/**/*.py"), *PROJECT.glob("prs_lightning/callbacks/*.py")):
        parts = file.relative_to(PROJECT).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = file
    return {name: file for name, file in names.items() if "hydra_plugins" not in name}


def imported(name: str) -> Iterator[str]:
    """The project's modules that a module imports anywhere: at the top, in a function, or for types only."""
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{name} imports by a relative path"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in found:
            if (module := target if target in modules() else target.rpartition(".")[0]) in modules():
                yield module


def room(module: str) -> str:
    """The room of a module: the part after ``prs_lightning``."""
    return module.split(".")[1]


def floor(module: str) -> int:
    return next(height for height, rooms in enumerate(FLOORS) if room(module) in rooms)


def inner(name: str) -> bool:
    return name != "prs_lightning"


def test_every_room_has_its_floor() -> None:
    assert {room(name) for name in modules() if inner(name)} == set().union(*FLOORS)


@pytest.mark.parametrize("name", sorted(filter(inner, modules())))
def test_a_module_knows_its_own_room_and_lower_floors(name: str) -> None:
    for target in imported(name):
        if inner(target) and room(target) != room(name):
            assert floor(target) < floor(name) or FLOORS[0] >= {room(target), room(name)}, f"{name} imports {target}"


def test_no_module_imports_itself_by_a_detour() -> None:
    edges = {name: {target for target in imported(name) if target != name} for name in modules()}
    # A package imports its modules to offer what they hold; that they are in it is no import.
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in edges[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def loaded(*names: str) -> set[str]:
    """What Python has loaded after it imported these modules."""
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_what_reads_runs_and_answers_help_needs_no_torch() -> None:
    assert not loaded(*NO_TORCH) & {"torch", "lightning"}


def test_only_a_check_of_the_config_needs_pydantic() -> None:
    assert not loaded(*NO_TORCH, "prs_lightning.schema", "prs_lightning.schema.targets") & {"pydantic"}


def test_regions_of_any_torch_module_need_no_lightning() -> None:
    assert not loaded("prs_lightning.regions") & {"lightning", "torchvision"}
