"""Every file under conf/ is composed and instantiated (docs/architecture.md, law 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prs_lightning.runs import RunDirectory
from prs_lightning.runs.loggers import make_logger
from prs_lightning.runs.naming import arm, strength
from prs_lightning.schema import check_training
from prs_lightning.sweep import ranges
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


def arms_of(name: str) -> list[dict[str, Any]]:
    arms: list[dict[str, Any]] = yaml.safe_load((FOLDER / "experiment" / f"{name}.yaml").read_text())["hydra"][
        "sweeper"
    ]["arms"]
    return arms


@pytest.mark.parametrize("name", ["causal_mini", "causal_grid"])
def test_every_arm_is_a_config_that_can_be_trained(name: str) -> None:
    data = "mnist5k" if name == "causal_mini" else "mnist"
    found = []
    for lines in ranges.arms(arms_of(name), ()):
        plain: Any = OmegaConf.to_container(composed(f"experiment={name}", f"data={data}", *lines), resolve=True)
        check_training(plain, {"epsilons"})
        found.append((arm(plain), strength(plain)))
    assert found[0] == ("none", 0.0)
    assert len({*found}) == len(found) == {"causal_mini": 6, "causal_grid": 16}[name]


def test_the_factorial_parts_batch_size_steps_and_learning_rate() -> None:
    """13 cells: the one in which all designs meet, and four of each other batch size; equal steps are exactly equal."""
    arms, samples = arms_of("batch_factorial"), composed("experiment=batch_factorial").data.train_limit
    cells = {}
    for each in arms:
        size, epochs, rate = each["batch_size"], each["epochs"], each["model.learning_rate"]
        steps = epochs * samples / size
        assert each["grid_epochs"][-1] == epochs
        assert not any(epoch % each["trainer.check_val_every_n_epoch"] for epoch in each["grid_epochs"])
        assert each.get("trainer.max_steps", steps) == steps == epochs * (samples // size)
        equal = {"epochs": epochs == 100, "steps": steps == 32_000}
        kinds = {"fixed": rate == 1e-3, "linear": rate == pytest.approx(1e-3 * size / 128)}
        cells[size, *(name for name in equal if equal[name]), *(name for name in kinds if kinds[name])] = each
    others = {
        (size, equal, kind) for size in (64, 512, 2048) for equal in ("epochs", "steps") for kind in ("fixed", "linear")
    }
    assert cells.keys() == {(128, "epochs", "steps", "fixed", "linear")} | others
    assert len(arms) == len(cells)
    longest = [line for line in ranges.arms(arms, ()) if "trainer.max_steps=32000" in line][-1]
    plain: Any = OmegaConf.to_container(composed("experiment=batch_factorial", "data=mnist", *longest), resolve=True)
    check_training(plain)


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
