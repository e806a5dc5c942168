"""The schema is that of the code: the arguments, defaults and choices of what is called with them; and its lines."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from pydantic import ConfigDict, TypeAdapter, ValidationError

from prs_lightning.attacks.ball import BALLS
from prs_lightning.attacks.losses import LOSSES
from prs_lightning.attacks.schedule import GridAttack
from prs_lightning.attacks.threat_model import ThreatModel
from prs_lightning.data import NAMES, load
from prs_lightning.data.choice import DataChoice
from prs_lightning.errors import ConfigError
from prs_lightning.models.base import ImageClassifier
from prs_lightning.schema import CONFIG_FOLDER, attacks, check_training, launching, parts, relations, values, wandb
from prs_lightning.schema.interventions import TARGETS as INTERVENTIONS
from prs_lightning.schema.page import page
from prs_lightning.schema.targets import AIMS, foreign, located
from prs_lightning.schema.trainer import ACCELERATORS
from prs_lightning.schema.trainer import Trainer as TrainerPart
from prs_lightning.schema.training import TARGETS
from tests.conftest import PROJECT
from tests.test_training import compose

NAMED = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
BEHIND = {"Robustness": ThreatModel, "ImageData": DataChoice, "ResNet18": ImageClassifier, "CNN6": ImageClassifier,
          "VGG16": ImageClassifier, "Adversarial": ThreatModel}  # fmt: skip
"""What takes the keywords that a constructor hands on."""
EXCEPTIONS = {
    ("ImageData", "name"): "runs are named after it",
    ("Adversarial", "early_exit"): "to the last step, unlike other attacks",
    ("RichProgressBar", "theme"): "an object",
    ("CSVLogger", "save_dir"): "in the run directory",
}


def signature(found: Any) -> dict[str, Any]:
    """Names and defaults of what is called; ``empty`` where there is none."""
    return {name: each.default for name, each in inspect.signature(found).parameters.items() if each.kind in NAMED}


@pytest.mark.parametrize("target", TARGETS)
def test_a_part_has_the_arguments_and_defaults_of_what_it_stands_for(target: str) -> None:
    found, part = located(target), TARGETS[target]
    expected = signature(found)
    if (behind := BEHIND.get(found.__name__)) is not None:
        expected = signature(behind) | expected
    if found.__name__ == "WandbLogger":
        import wandb as package

        expected = {**signature(package.init), **expected}
    assert part.model_fields.keys() == expected.keys()
    for name, field in part.model_fields.items():
        if (found.__name__, name) in EXCEPTIONS:
            continue
        if expected[name] is inspect.Parameter.empty:
            assert field.is_required(), name
        elif name == "reinit":
            assert field.default is None
        else:
            assert (field.default, field.is_required()) == (expected[name], False), name


def test_an_entry_of_the_grid_has_the_keys_of_a_threat_model_and_its_choices() -> None:
    keys = {field.name for field in dataclasses.fields(ThreatModel)}
    assert attacks.Entry.model_fields.keys() - attacks.BESIDE.keys() == keys == {*attacks.THREAT}
    assert attacks.BESIDE.keys() == {field.name for field in dataclasses.fields(GridAttack)} - {"threat"}
    assert {*attacks.LOSSES} == LOSSES.keys()
    assert {*attacks.NORMS} == BALLS.keys()


CANDIDATES = [
    None, True, False, 0, 1, 2, -1, 100, 0.0, 0.5, 1.0, "auto", "cpu", "gpu", "ddp", "16-mixed", "32-true", "bf16",
    "64", 32, 16, "norm", "value", "warn", "simple", "pytorch", [0], [0, 1], "00:01:00:00", {"hours": 1}, "abc", [],
]  # fmt: skip


def accepted_by_schema(name: str, value: object) -> bool:
    field = TrainerPart.model_fields[name]
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation(), config=ConfigDict(strict=True))
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", TrainerPart.model_fields)
def test_what_the_schema_takes_lightning_takes(name: str) -> None:
    """By the types of its signature; and its own default is taken, or refused for a reason that is told."""
    parameter = inspect.signature(Trainer.__init__).parameters[name]
    adapter: TypeAdapter[Any] = TypeAdapter(parameter.annotation, config=ConfigDict(arbitrary_types_allowed=True))
    taken = [value for value in CANDIDATES if accepted_by_schema(name, value)]
    assert taken
    for value in taken:
        adapter.validate_python(value)
    ours_alone = {"inference_mode", "num_sanity_val_steps", "log_every_n_steps", "max_epochs"}
    assert accepted_by_schema(name, parameter.default) == (name not in ours_alone)


def test_the_order_and_the_accelerators_are_lightnings() -> None:
    assert list(TrainerPart.model_fields) == [*inspect.signature(Trainer.__init__).parameters][1:]
    assert {*ACCELERATORS} == {*AcceleratorRegistry.available_accelerators(), "auto", "gpu"}


def test_the_known_data_sets_are_what_is_said_of_them() -> None:
    assert relations.KNOWN.keys() == {*NAMES}
    for name in ("mnist5k", "digits"):
        train, test = load(name, "data")
        known = relations.KNOWN[name]
        assert (known.train, known.test, known.channels) == (len(train.labels), len(test.labels), train.images.shape[1])
        assert known.classes == len(train.labels.unique())
    for name, known in relations.KNOWN.items():
        option = yaml.safe_load((CONFIG_FOLDER / "data" / f"{name}.yaml").read_text())
        assert option["channels"] in (None, known.channels)
        assert option["classes"] in (None, known.classes)


def test_the_papers_grid_is_the_default() -> None:
    assert yaml.safe_load((CONFIG_FOLDER / "train.yaml").read_text())["grid_epochs"] == relations.PAPERS_GRID


def test_slurm_takes_what_its_launcher_takes() -> None:
    config = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    own = {*launching.Engine.model_fields}
    for part, queue in ((launching.Slurm, config.SlurmQueueConf), (launching.Submitit, config.LocalQueueConf)):
        assert {*part.model_fields} - own == {each.name for each in dataclasses.fields(queue)} - {"_target_"}


def test_the_modes_are_those_of_wandb() -> None:
    mode = inspect.signature(__import__("wandb").init).parameters["mode"].annotation
    assert all(repr(each) in str(mode) for each in wandb.MODES)


def test_the_page_of_all_keys_is_fresh() -> None:
    assert (PROJECT / "docs" / "config.md").read_text() == page(), "python -m prs_lightning.schema > docs/config.md"


class Shrink:
    """What a user may have written."""

    def __init__(self, rate: float, steps: int = 3, names: list[str] | None = None, kind: str = None, free=1) -> None:  # type: ignore[assignment]  # noqa: RUF013
        """Nothing."""


def any_keys(**keys: object) -> None:
    """Takes all."""


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"rate": 0.5}, None),
        ({"rate": 1, "steps": 2, "names": ["a"], "kind": None, "free": "x"}, None),
        ({}, "x.rate is needed: tests.test_schema.Shrink has no default for it"),
        ({"rate": 0.5, "step": 1}, "x.step: tests.test_schema.Shrink has no such argument: did you mean steps"),
        ({"rate": "abc"}, "x.rate=abc: expected float"),
        ({"rate": True}, "x.rate=true: expected float"),
        ({"rate": 0.5, "steps": 1.5}, "x.steps=1.5: expected int"),
        ({"rate": 0.5, "names": "a"}, "x.names=a: expected list[str] | None"),
        ({"rate": 0.5, "names": [1]}, "x.names=[1]: expected list[str] | None"),
        ({"rate": {"_target_": "tests.test_schema.any_keys"}}, None),
        ({"rate": {"_target_": "tests.test_schema.gone"}}, "x.rate._target_=tests.test_schema.gone: tests.test_schema"),
        ({"_target_": "tests.test_schema.any_keys", "anything": 1}, None),
        ({"_target_": "no_such_package.Thing"}, "there is no package no_such_package"),
        ({"_target_": "tests.test_schema.PROJECT"}, "expected a class or a function"),
        ({"_target_": "Shrink"}, "expected a dotted name"),
    ],
)  # fmt: skip
def test_a_users_own_class_is_compared_with_its_signature(node: dict[str, Any], says: str | None) -> None:
    found = list(foreign("", "x", {"_target_": "tests.test_schema.Shrink", **node}))
    assert len(found) == (says is not None)
    assert says is None or says in found[0]


def test_a_network_of_the_users_is_given_what_it_takes() -> None:
    shared = {"channels": None, "classes": 10, "mean": [0.5], "std": [0.5], "seed": 0, "learning_rate": 0.1}
    node = {"_target_": "tests.any_networks.Convolutional", **shared}
    assert list(foreign("model", "model", node)) == []
    (line,) = foreign("model", "model", {**node, "with": 3})
    assert "model.with: tests.any_networks.Convolutional has no such argument: did you mean width?" in line


def test_a_callback_under_logger_is_told_apart() -> None:
    (line,) = foreign("logger", "logger.x", {"_target_": "prs_lightning.callbacks.Scores"})
    assert "expected a subclass of lightning.pytorch.loggers.logger.Logger" in line


RELATED = [
    ("epochs=3 grid_epochs=[4]", "grid_epochs=[4]: epoch 4 is never reached: the run has epochs=3"),
    ("epochs=3 grid_epochs=[1] callbacks.robustness.epochs=[9]", "callbacks.robustness.epochs=[9]: epoch 9"),
    ("grid_epochs=[1,1]", "grid_epochs=[1,1]: expected a list of different epochs"),
    ("batch_size=21 trainer.devices=2", "batch_size=21 must be a multiple of the 2 devices"),
    ("batch_size=21 trainer.devices=[0,1] trainer.accelerator=gpu", "must be a multiple of the 2 devices"),
    ("trainer.devices=[0]", "expected a number with trainer.accelerator=cpu"),
    ("data.train_limit=4001", "data.train_limit=4001 exceeds the 4000 samples"),
    ("data.test_limit=1001", "data.test_limit=1001 exceeds the 1000 samples"),
    ("data.train_limit=9", "less than the 10 classes"),
    ("callbacks.robustness.limit=41", "callbacks.robustness.limit=41 exceeds the 40 test samples"),
    ("data.test_limit=null callbacks.robustness.limit=1001", "exceeds the 1000 test samples"),
    ("data.channels=3", "data.channels=3, but mnist5k has 1"),
    ("data.classes=5", "data.classes=5, but mnist5k has labels up to 9"),
    ("model.channels=3", "model.channels=3, but mnist5k has 1"),
    ("model.classes=5", "model.classes=5, but mnist5k has labels up to 9"),
    ("model.mean=[0.1,0.1]", "expected a number for each of the 1 channels"),
    ("data.mean=null", "expected both, or neither"),
    ("data.std=[0]", "data.std=[0]: expected a list of a number above 0 per channel"),
    ("data.epsilon=0", "data.epsilon=0: expected a number above 0"),
    ("data.size=[32]", "data.size=[32]: expected a number of pixels"),
    ("data.name=mnist6k", "data.name=mnist6k is unknown"),
    ("+data.source=folder data.root=null", "data.root is not given"),
    ("+data.dataset=SVHN", "data.dataset is for data=torchvision"),
    ("+data.source=folder data.channels=2", "images of folder can have 1 or 3"),
    ("data.batch_size=7", "data.batch_size=7: set batch_size instead"),
    ("trainer.max_steps=7", "trainer.max_steps=7 ends within an epoch, which has 5 steps"),
    ("trainer.min_steps=11", "trainer.min_steps=11, but the run's 2 epochs are 10 steps"),
    ("trainer.check_val_every_n_epoch=3", "nothing would be measured"),
    ("intervention=low_prs intervention.low_prs.warmup=2", "it would only look on: the run has epochs=2"),
    ("intervention=[high_prs,low_prs]", "intervention=[high_prs,low_prs]: they contradict each other"),
    ("intervention=width model.width=8", "intervention.width.strength=32, but model.width=8: expected the same"),
    ("intervention=adversarial intervention.adversarial.strength=4", "strength=4 gives a radius of 1.2"),
    ("grid_attacks.fgsm.steps=2", "is not what fgsm says"),
    ("+grid_attacks.pgd20={steps:20}", "is measured at every epoch already"),
    ("+grid_attacks.mine={steps:2,restarts:2,random_start:false}", "without random_start would repeat"),
    ("+callbacks.robustness.loss=dlr", "others are entries of grid_attacks"),
    ("callbacks.records._target_=prs_lightning.callbacks.Scores", "callbacks.records._target_=prs_lightning.callb"),
    ("+callbacks.progress=5", "callbacks.progress=5: expected an entry with _target_"),
    (
        "seed=true batch_size=0 epochs=1.5 runs=''",
        "batch_size=0: expected an integer of 1 or more; seed=true: expected",
    ),
]


@pytest.mark.parametrize(("overrides", "says"), RELATED)
def test_values_that_do_not_fit_together_are_one_line(overrides: str, says: str) -> None:
    plain = composed(*overrides.split())
    with pytest.raises(ConfigError) as raised:
        check_training(plain)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def composed(*overrides: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(compose(*overrides), resolve=True)
    return plain


def test_many_problems_are_three_and_a_count_and_handed_on_values_are_told_once() -> None:
    with pytest.raises(ConfigError) as raised:
        check_training(composed("seed=-1", "batch_size=0", "epochs=0", "runs=''", "sweep=a/../b"))
    assert str(raised.value).count("expected") == 3
    assert str(raised.value).endswith("; and 2 more")
    assert "data.seed" not in str(raised.value)


@pytest.mark.parametrize("name", ["a", "a b", "grid-2", "é", "0..4", "a/b", ".hidden", "a" * 255])
def test_names_of_sweeps(name: str) -> None:
    assert values.is_name(name)


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "/a", "a/", "a//b", "a/../b", "a\0b", "a\nb", "\x1b[2J", "a" * 256]
)
def test_no_names_of_sweeps(name: str) -> None:
    assert not values.is_name(name)


def test_values_keep_their_types() -> None:
    """What YAML tells apart is told apart: 1, 1.0, true, and the text."""
    for value in (True, 1.0, "1", [1], None):
        with pytest.raises(ConfigError, match=r"epochs="):
            check_training(composed() | {"epochs": value})
    assert json.loads(json.dumps(composed()["epochs"])) == 2
    assert parts.Network.model_validate({"learning_rate": 1}).learning_rate == 1


def test_every_line_is_there_for_every_file() -> None:
    """Every key of every YAML is one of the schema's: none is checked by nobody."""
    known = page()
    for file in Path(CONFIG_FOLDER).rglob("*.yaml"):
        content = yaml.safe_load(file.read_text()) or {}
        group = file.parent.name
        if group in ("data", "model", "trainer"):
            assert all(f"`{group}.{key}`" in known for key in content.keys() - {"defaults", "_target_"}), file


def test_interventions_aim_at_what_the_config_says() -> None:
    aims = {target.split(".")[-2]: located(target).aim for target in INTERVENTIONS}
    assert {name: aim for name, aim in aims.items() if aim} == AIMS
