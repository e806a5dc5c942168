"""Every file under conf/ is composed and instantiated (docs/architecture.md, law 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prs_lightning.runs import RunDirectory
from prs_lightning.runs.loggers import make_logger
from prs_lightning.sweep.cli import CONFIG_FOLDER

FOLDER = Path(CONFIG_FOLDER)
PARTS = {"base"}
"""Files that other files of their group include."""


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (FOLDER / group).glob("*.yaml") if file.stem not in PARTS)


def composed(*overrides: str):
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return hydra.compose("train", list(overrides))


@pytest.mark.parametrize(
    "override", [f"{group}={name}" for group in ("model", "data", "logger", "trainer") for name in choices(group)]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what MLflow and TensorBoard import
def test_a_choice_is_instantiated(override: str, tmp_path: Path) -> None:
    group, name = override.split("=")
    cfg = composed(override, "trainer.accelerator=cpu")
    if name in ("mlflow", "tensorboard"):
        pytest.importorskip(name)
    if group == "logger":
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        made = [make_logger(each, node, config, RunDirectory(tmp_path)) for each, node in cfg.logger.items()]
        nodes = list(cfg.logger.values())
    else:
        nodes = [cfg[group]]
        arguments = {"default_root_dir": str(tmp_path), "logger": False} if group == "trainer" else {}
        made = [instantiate(cfg[group], **arguments)]
    assert [type(each).__name__ for each in made] == [node["_target_"].rsplit(".", 1)[-1] for node in nodes]


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in ("callbacks", "intervention") for name in choices(group)]
)
def test_the_callbacks_and_interventions_are_instantiated(group: str, name: str) -> None:
    for key, callback in composed(f"{group}={name}")[group].items():
        assert type(instantiate(callback)).__name__ == callback["_target_"].rsplit(".", 1)[-1], key


@pytest.mark.parametrize("name", choices("experiment"))
def test_an_experiment_composes_and_its_interpolations_resolve(name: str) -> None:
    cfg = composed(f"experiment={name}")
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    assert resolved["trainer"]["max_epochs"] == cfg.epochs


def test_the_networks_of_the_paper() -> None:
    for name, batch_size in (("network_a", 2048), ("network_b", 128)):
        cfg = composed(f"experiment={name}")
        assert (cfg.batch_size, cfg.epochs, cfg.data.name) == (batch_size, 300, "cifar10")
        assert cfg.model._target_.endswith("CNN6")


@pytest.mark.parametrize(
    ("data", "epsilon"), [("mnist", 0.3), ("fashion_mnist", 0.1), ("cifar10", 8 / 255), ("mnist5k", 0.3)]
)
def test_the_threat_model_of_the_paper(data: str, epsilon: float) -> None:
    robustness = composed(f"data={data}").callbacks.robustness
    assert robustness.epsilon == pytest.approx(epsilon)
    assert robustness.step_size == pytest.approx(2 / 255)
