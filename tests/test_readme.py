"""Every command of the README is one that works: its config composes, its make target or module exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from prs_lightning.sweep.cli import CONFIG_FOLDER
from prs_lightning.sweep.ranges import jobs
from tests.conftest import PROJECT

README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line.strip()]


def commands(*start: str) -> list[list[str]]:
    return [command[len(start) :] for command in COMMANDS if command[: len(start)] == list(start)]


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 15


TRAIN = [*commands("python", "train.py"), *commands("prs-train")]
ANALYZE = [*commands("python", "analyze.py"), *commands("prs-analyze")]


@pytest.mark.parametrize("arguments", TRAIN, ids=" ".join)
def test_a_training_command_composes(arguments: list[str]) -> None:
    overrides = [word for word in arguments if "=" in word and not word.startswith("-")]
    sweeping = "-m" in arguments
    parsed = OverridesParser.create().parse_overrides(overrides)
    each_job = jobs(parsed) if sweeping else [tuple(overrides)]
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        for job in {each_job[0], each_job[-1]}:
            # The launcher is a choice of the sweep itself, which has no place in a config that is composed alone.
            hydra.compose("train", [override for override in job if not override.startswith("hydra")])


@pytest.mark.parametrize("arguments", ANALYZE, ids=" ".join)
def test_an_analysis_command_composes(arguments: list[str]) -> None:
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        hydra.compose("analyze", arguments)


@pytest.mark.parametrize("target", sorted({command[1] for command in COMMANDS if command[0] == "make"}))
def test_a_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("module", sorted({command[2] for command in COMMANDS if command[:2] == ["python", "-m"]}))
def test_a_module_exists(module: str) -> None:
    path = PROJECT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (PROJECT / target).exists(), target


def test_the_project_tells_no_path_of_a_machine() -> None:
    pages = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *Path(PROJECT / "docs").glob("*.md")]
    assert not [page for page in pages if re.search(r"/(work|root|home|tmp)/", page.read_text())]
