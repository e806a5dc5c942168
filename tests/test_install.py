"""The wheel, installed where no checkout is: modules, configs and commands that work in any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from prs_lightning.runs import find_runs
from tests.conftest import PROJECT

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "train.py", "analyze.py", "callbacks", "conf", "prs_lightning")
SMALL = ("data.train_limit=100", "data.test_limit=50", "batch_size=20", "epochs=1", "grid_epochs=[1]", "logger=none",
         "trainer.accelerator=cpu", "callbacks.progress=null", "callbacks.robustness.steps=2")  # fmt: skip


def run(*command: str | Path, cwd: Path) -> str:
    """What the command prints, without a way to this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, with what is installed here: no network, and no trace in the checkout."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, folder / name)
    return built(folder, folder / "wheel")


def built(source: Path, into: Path) -> Path:
    """The wheel of a folder of sources, or of an archive of them."""
    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", into, source,
        cwd=source.parent)  # fmt: skip
    (wheel,) = into.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment that holds the wheel, and sees the packages but not the checkout of this one."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    # The .pth files of these folders, among them that of an editable install, are not read from here.
    folders = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "packages.pth").write_text("\n".join(folders) + "\n")
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=environment)
    return python.parent


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_module_and_config_once(wheel: Path) -> None:
    held = {name for name in names(wheel) if ".dist-info/" not in name}
    assert all(name.startswith("prs_lightning/") for name in held), "nothing of ours at the top of site-packages"
    files = [*PROJECT.glob("prs_lightning/**/*.*"), *PROJECT.glob("prs_lightning/callbacks/*.py")]
    files += [
        PROJECT / "prs_lightning" / "conf" / file.relative_to(PROJECT / "conf")
        for file in PROJECT.glob("conf/**/*.yaml")
    ]
    assert held == {str(file.relative_to(PROJECT)) for file in files if file.is_file() and file.suffix != ".pyc"}


def test_the_source_archive_makes_the_same_wheel(wheel: Path) -> None:
    source = wheel.parent.parent
    make = "import setuptools.build_meta as build; print(build.build_sdist('archive'))"
    archive = source / "archive" / run(sys.executable, "-c", make, cwd=source).splitlines()[-1]
    assert names(built(archive, source / "second")) == names(wheel)


def test_what_can_be_imported(commands: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util as found, prs_lightning, prs_lightning.callbacks.regions\n"
        "print(prs_lightning.__file__)\n"
        "print([name for name in ('callbacks', 'conf', 'train', 'analyze', 'tests') if found.find_spec(name)])"
    )
    where, top = run(commands / "python", "-c", code, cwd=tmp_path).splitlines()
    assert Path(where).is_relative_to(commands.parent)
    assert top == "[]"


def test_the_commands_train_sweep_and_analyze_in_an_empty_folder(commands: Path, tmp_path: Path) -> None:
    """One run, one on two processes and a sweep, the latter two with configs and a network of the user's own."""
    train = commands / "prs-train"
    assert "epoch 1" in run(train, "data=mnist5k", "seed=7", *SMALL, cwd=tmp_path)

    (tmp_path / "my_networks.py").write_text("from prs_lightning.models import CNN6\n\nclass Mine(CNN6):\n    pass\n")
    for name, text in {
        "data/mine": "defaults: [mnist5k]\nepsilon: 0.2",
        "model/mine": "defaults: [base]\n_target_: my_networks.Mine",
        "experiment/mine": "# @package _global_\nsweep: mine\nhydra:\n  sweeper:\n    params: {data: mine, seed: 0..1}",
    }.items():
        file = tmp_path / "configs" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    run(
        train, "trainer.devices=2", "data=mine", "model=mine", "seed=8", *SMALL, "--config-dir", "configs", cwd=tmp_path
    )
    run(train, "--config-dir", "configs", "-m", "experiment=mine", "model=mine", *SMALL, cwd=tmp_path)
    runs = {(run.path.parent.name, run.config()["seed"]): run for run in find_runs(tmp_path / "runs")}
    assert {key: run.status for key, run in runs.items()} == {
        ("runs", 7): "finished", ("runs", 8): "finished", ("mine", 0): "finished", ("mine", 1): "finished",
    }  # fmt: skip
    assert all(float(run.rows()[0]["prs/count"]) > 0 for run in runs.values())
    mine = runs["mine", 1].config()
    assert (mine["model"]["_target_"], mine["data"]["epsilon"]) == ("my_networks.Mine", 0.2)

    report = run(commands / "prs-analyze", "runs=runs", "figures=none", "wandb.mode=disabled", "bootstrap.draws=100",
                 cwd=tmp_path)  # fmt: skip
    assert "4 runs, 4 rows; 0 messages" in report
    assert (tmp_path / "runs" / "report" / "report.html").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "configs", "my_networks.py"} | {
        path.name for path in tmp_path.glob("__pycache__")
    }
