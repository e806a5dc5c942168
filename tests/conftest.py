"""Fixtures shared by the tests: real digits, and one network trained on them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from prs_lightning.data import ImageData, Split, balanced_subset, load
from prs_lightning.models import CNN6

PROJECT = Path(__file__).parent.parent
DIGITS = {"name": "mnist5k", "channels": 1, "classes": 10, "mean": [0.13], "std": [0.31], "epsilon": 0.3}


@pytest.fixture(scope="session")
def digits() -> tuple[Split, Split]:
    """The 4,000 training and 1,000 test digits of mnist5k, uint8."""
    return load("mnist5k", "data")


@pytest.fixture(scope="session")
def fashion_mnist_root() -> Path:
    """Folder of the real Fashion-MNIST; tests that need it skip where it is absent."""
    root = Path(os.environ.get("FASHION_MNIST_ROOT", PROJECT / "data"))
    if not (root / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").exists():
        pytest.skip(f"no Fashion-MNIST under {root} (set FASHION_MNIST_ROOT)")
    return root


def digit_data(batch_size: int = 50, train_limit: int = 1000, test_limit: int = 200, seed: int = 0) -> ImageData:
    """A datamodule over a class-balanced subset of the digits."""
    return ImageData(
        batch_size=batch_size, train_limit=train_limit, test_limit=test_limit, seed=seed, step_size=2 / 255, **DIGITS
    )


@pytest.fixture(scope="session")
def trained_state(digits: tuple[Split, Split]) -> dict[str, torch.Tensor]:
    """Weights of a CNN-6 trained for a few epochs on 1,000 digits (about 90% on the test digits)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CNN6(channels=1, mean=[0.13], std=[0.31])
        subset = balanced_subset(digits[0].labels, 1000)
        images, labels = digits[0].images[subset].float() / 255, digits[0].labels[subset]
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(5):
            for index in torch.randperm(1000).split(50):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(images[index]), labels[index]).backward()
                optimizer.step()
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def trained_network(trained_state: dict[str, torch.Tensor]) -> CNN6:
    """A fresh copy, in eval mode, of the shared trained CNN-6."""
    network = CNN6(channels=1, mean=[0.13], std=[0.31])
    network.load_state_dict(trained_state)
    return network.eval()


@pytest.fixture(autouse=True)
def random_state_restored() -> Iterator[None]:
    """No test hangs on what another one drew."""
    with torch.random.fork_rng():
        yield


def given_once(*overrides: str) -> list[str]:
    """Overrides of which the last of each key is left: train.py refuses a key that is given twice."""
    return list({override.split("=")[0].lstrip("+"): override for override in overrides}.values())


RunTrain = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_train(tmp_path: Path) -> RunTrain:
    """Run train.py in a process of its own on a few digits; run directories go to ``tmp_path / "runs"``."""

    def run(
        *overrides: str, check: bool = True, env: dict[str, str] | None = None, file_size_limit: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))

        command = [
            sys.executable,
            str(PROJECT / "train.py"),
            *given_once(*SMALL, f"runs={tmp_path / 'runs'}", *overrides),
        ]
        environment = {**os.environ, "WANDB_SILENT": "true", "OMP_NUM_THREADS": "1", **(env or {})}
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300,
            preexec_fn=limit if file_size_limit else None,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


SMALL = (
    "data=mnist5k", "data.train_limit=100", "data.test_limit=40", "batch_size=20", "epochs=2", "grid_epochs=[1]",
    "logger=none", "callbacks.progress=null", "trainer.accelerator=cpu",
)  # fmt: skip
