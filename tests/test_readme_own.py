"""Every line of the README's section on one's own network and data is run: the callbacks, examples and commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from tests.conftest import PROJECT
from tests.foreign import FEATURES, TEST, TRAIN, Layers, Module, samples

SECTION = (PROJECT / "README.md").read_text().split("## Your own network, your own data")[1].split("\n## ")[0]
PYTHON = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)
LINES = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", SECTION, flags=re.DOTALL)
    for line in block.splitlines()
]
EXAMPLES = [line[1] for line in LINES if line[1].startswith("examples/")]
TRAINING = [line[2:] for line in LINES if line[1] == "train.py"]
IMPORTS = [line[3:] for line in LINES if line[1:3] == ["-m", "prs_lightning.runs"]]
QUICKLY = [
    *("epochs=1", "grid_epochs=[]", "batch_size=16", "data.train_limit=40", "data.test_limit=20", "logger=none"),
    *("callbacks.robustness.steps=2", "callbacks.progress=null", "trainer.accelerator=cpu"),
]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_each_line_is_known() -> None:
    assert len(EXAMPLES) + len(TRAINING) + len(IMPORTS) == len(LINES) >= 9
    assert {PROJECT / name for name in EXAMPLES} == set((PROJECT / "examples").glob("*.py"))


@pytest.mark.filterwarnings("ignore")  # of a user's own settings
def test_the_callbacks_of_the_five_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        "module": Module(Layers()),
        "train_loader": DataLoader(TRAIN, batch_size=16, shuffle=True),
        "val_loader": DataLoader(samples(16, FEATURES, seed=9), batch_size=8),
        "test_set": TEST,
    }
    (code,) = PYTHON
    exec(compile(code, "README.md", "exec"), names)
    logged = names["trainer"].callback_metrics  # type: ignore[attr-defined]
    assert {"prs/ratio", "weights/cosine_similarity", "features/sparsity", "robust/pgd20_audited"} <= set(logged)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    assert len((PROJECT / name).read_text().splitlines()) < 40
    done = run(tmp_path, str(PROJECT / name))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"robust(/pgd20| accuracy)", done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the lines name: a folder of pets, arrays of pets, a package with a network."""
    place = tmp_path_factory.mktemp("own")
    numbers = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 10)):
        for label in ("cat", "dog"):
            for number in range(count):
                file = place / "pets" / split / label / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(numbers.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file)
    arrays = {f"x_{split}": numbers.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8) for split in ("train", "test")}
    np.savez(place / "pets.npz", **arrays, y_train=np.arange(40) % 2, y_test=np.arange(40) % 2)
    (place / "my_package.py").write_text(
        "from torch import nn\n\n\nclass MyNet(nn.Sequential):\n"
        "    def __init__(self, channels=1, classes=10, width=8):\n"
        "        layers = nn.Linear(channels * 1024, width), nn.ReLU(), nn.Linear(width, classes)\n"
        "        super().__init__(nn.Flatten(), *layers)\n"
    )
    code = "import torch, my_package; torch.save(my_package.MyNet().state_dict(), 'weights.pth')"
    assert run(place, "-c", code).returncode == 0
    return place


@pytest.mark.parametrize("arguments", TRAINING, ids=" ".join)
def test_a_command_trains_and_measures(arguments: list[str], folder: Path) -> None:
    done = run(folder, str(PROJECT / "train.py"), *arguments, *QUICKLY)
    if "data=torchvision" in arguments and done.returncode == 1:  # no network here: one line says where files belong
        (line,) = done.stderr.strip().splitlines()
        assert re.match("error: .*CIFAR100.* could not be made ready", line)
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"prs/ratio .*0\.\d|prs/ratio .*1", done.stdout)


@pytest.mark.parametrize("arguments", IMPORTS, ids=" ".join)
def test_a_network_from_elsewhere_becomes_a_run(arguments: list[str], folder: Path) -> None:
    quickly = ["--train-limit", "40", "--test-limit", "20", "--overrides", "callbacks.progress=null"]
    done = run(folder, "-m", "prs_lightning.runs", *arguments, *quickly)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = (folder / arguments[arguments.index("--into") + 1]).rglob("metrics.csv")
    assert record.read_text().startswith("epoch,")
