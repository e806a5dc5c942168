"""A run's directory follows from its config."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from prs_lightning.errors import ConfigError
from prs_lightning.runs.naming import RECORDED, arm, flatten, place, strength
from prs_lightning.sweep.cli import CONFIG_FOLDER


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        yield


def placed(*overrides: str) -> tuple[Path, dict[str, Any]]:
    composed = hydra.compose("train", list(overrides), return_hydra_config=True)
    plain = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    return place(plain, composed.hydra)


def directory(*overrides: str) -> Path:
    return placed(*overrides)[0]


def test_the_name_says_data_model_batch_size_and_seed() -> None:
    assert directory("data=mnist5k", "model=vgg16", "batch_size=64", "seed=3") == Path("runs/mnist5k-vgg16-bs64-seed3")
    assert directory("sweep=grid", "runs=/r") == Path("/r/grid/cifar10-cnn6-bs128-seed0")


def test_a_given_directory_is_taken_as_it_is() -> None:
    assert directory("run_dir=a/b", "sweep=x", "epochs=3") == Path("a/b")


@pytest.mark.parametrize(
    "override",
    ["wandb.mode=online", "logger=none", "data.root=elsewhere", "trainer.devices=2", "print_config=true",
     "retry_failed=true", "dry_run=true", "trainer.accelerator=cpu", "data.size=32"],
)  # fmt: skip
def test_bookkeeping_does_not_change_the_name(override: str) -> None:
    assert directory(override) == directory()


@pytest.mark.parametrize(
    "override",
    [
        "epochs=3",
        "model.learning_rate=0.01",
        "data.train_limit=100",
        "callbacks=none",
        "data.epsilon=0.5",
        "data.size=36",
        "data.size=null",
        "data.size=[32,32]",
    ],
)
def test_any_other_change_gets_a_hash(override: str) -> None:
    name = directory(override).name
    assert name.startswith("cifar10-cnn6-bs128-seed0-")
    assert len(name.rsplit("-", 1)[1]) == 6


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (("data=torchvision", "data.dataset=CIFAR100"), "cifar100"),
        (("data=torchvision", "data.dataset=SVHN", "data.root=/elsewhere", "data.memory_limit=0"), "svhn"),
        (("data=folder", "data.root=/disk/my pets", "data.workers=3"), "my_pets"),
        (("data=npz", "data.root=arrays/pets.v2.npz"), "pets.v2"),
        (("data=digits",), "digits"),
    ],
)
def test_data_of_any_kind_have_a_name(overrides: tuple[str, ...], name: str) -> None:
    assert directory(*overrides) == Path(f"runs/{name}-cnn6-bs128-seed0")


def test_a_given_name_does_not_hide_which_data_set_it_is() -> None:
    names = {directory("data=torchvision", f"data.dataset={each}", "data.name=mine").name for each in ("SVHN", "USPS")}
    assert len(names) == 2
    assert all(name.startswith("mine-cnn6-bs128-seed0-") for name in names)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=torchvision",), "data.dataset is not given: expected one, as in data.dataset=CIFAR100"),
        (("data=folder",), "data.root is not given"),
        (("data=npz",), "data.root is not given"),
        (("data=folder", "data.root=a", "data.name=../b"), "data.name='../b': expected letters, digits"),
    ],
)
def test_data_without_a_name_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        directory(*overrides)


@pytest.mark.parametrize(
    "override",
    ["trainer.max_steps=-1", "trainer.limit_train_batches=null", "trainer.max_time='00:08:00:00'",
     "trainer.profiler=simple", "trainer.detect_anomaly=true"],
)  # fmt: skip
def test_an_argument_that_changes_nothing_does_not_change_the_name(override: str) -> None:
    assert directory(override) == directory()


def test_a_record_is_as_it_was_before_the_config_listed_every_argument() -> None:
    assert directory("trainer.gradient_clip_val=1.0") == directory("++trainer.gradient_clip_val=1.0") != directory()
    recorded = placed("trainer.gradient_clip_val=1.0")[1]
    assert list(recorded["trainer"]) == [*RECORDED, "gradient_clip_val"]
    assert directory("trainer.gradient_clip_val=1.0").name == "cifar10-cnn6-bs128-seed0-1c3dd9"


def test_a_record_is_as_it_was_before_there_were_interventions_and_networks_of_other_widths() -> None:
    usual = ("model.width=null", "model.width_multiplier=1", "model.schedule=constant", "intervention=none")
    recorded = placed(*usual)[1]
    assert placed(*usual) == placed() == placed("intervention=low_prs", "intervention.low_prs=null")
    assert "intervention" not in recorded
    assert [*recorded["model"]] == ["channels", "classes", "mean", "std", "seed", "learning_rate", "_target_"]
    own = directory("data=mnist5k", "model._target_=my_package.MyNet", "+model.width=64").name
    assert own == "mnist5k-mynet-bs128-seed0-bbfdc2", "a network of one's own that has a width"


@pytest.mark.parametrize(
    ("overrides", "recorded"),
    [
        (("intervention=low_prs",), "intervention.low_prs.strength"),
        (("model.width=64",), "model.width"),
        (("model=vgg16", "model.width_multiplier=0.5"), "model.width_multiplier"),
        (("model=resnet18", "model.schedule=cosine"), "model.schedule"),
    ],
)
def test_what_is_new_in_a_record_changes_the_name(overrides: tuple[str, ...], recorded: str) -> None:
    path, config = placed(*overrides)
    assert recorded in flatten(config)
    assert re.fullmatch(r"cifar10-\w+-bs128-seed0-[0-9a-f]{6}", path.name)


def test_each_arm_and_strength_has_a_directory_of_its_own() -> None:
    arms = [
        ("none", 0.0, []), ("low_prs", 1.0, ["intervention=low_prs"]),
        ("low_prs", 5.0, ["intervention=low_prs", "intervention.low_prs.strength=5"]),
        ("low_prs+logit_penalty", "1+0.01", ["intervention=[low_prs,logit_penalty]"]),
    ]  # fmt: skip
    found = [placed(*overrides) for _, _, overrides in arms]
    assert [(arm(config), strength(config)) for _, config in found] == [each[:2] for each in arms]
    assert len({path for path, _ in found}) == len(arms)


def test_runs_of_an_arm_share_their_hash_whatever_their_seed() -> None:
    names = {directory("intervention=adversarial", f"seed={seed}").name[-6:] for seed in (0, 1)}
    fixed = {
        directory("intervention=adversarial", f"seed={seed}", "intervention.adversarial.seed=7") for seed in (0, 1)
    }
    assert len(names) == 1
    assert not {path.name[-6:] for path in fixed} & names


def test_the_hash_follows_from_the_values_and_not_from_who_set_them() -> None:
    assert directory("epochs=3", "seed=1").name[-6:] == directory("seed=2", "epochs=3").name[-6:]
    assert directory("epochs=3") != directory("epochs=4")
    assert directory("epochs=300") == directory()
    assert directory("model=resnet18", "model.stem=imagenet") == directory("model=resnet18")
    assert directory("model=resnet18", "model.stem=cifar") != directory("model=resnet18")


def test_attacks_of_the_grid_count_by_what_they_are() -> None:
    names = "callbacks.robustness.grid_attacks=[fgsm,bim5,pgd100,dlr,temperature,distance]"
    assert directory(names) == directory() == directory("grid_attacks.pgd100.steps=100")
    assert directory("callbacks.robustness.grid_attacks=[]").name == "cifar10-cnn6-bs128-seed0-8c5711"
    others = {
        directory(change) for change in ("grid_attacks.pgd100.steps=99", "~grid_attacks.dlr", "grid_attacks.dlr=null")
    }
    assert len({*others, directory()}) == 4


def test_a_run_of_the_papers_grid_by_hand_lands_in_the_grids_directory() -> None:
    choice = ["model=resnet18", "data=mnist", "batch_size=64", "seed=3"]
    by_hand = directory(*choice, "sweep=paper_grid")
    assert by_hand == directory("experiment=paper_grid", *choice) == Path("runs/paper_grid/mnist-resnet18-bs64-seed3")
