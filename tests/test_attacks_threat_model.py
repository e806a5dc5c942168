"""The threat model as one object, and the attacks of the grid that differ from it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from prs_lightning.attacks import ThreatModel
from prs_lightning.attacks.schedule import EpochAttacks, GridAttack, grid_attacks
from prs_lightning.callbacks.robustness import Robustness
from prs_lightning.errors import ConfigError
from tests.conftest import PROJECT

THREAT = ThreatModel(epsilon=0.1, step_size=0.02, steps=20)


def default_entries(*overrides: str) -> Any:
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        config = compose("train", ["data=mnist5k", *overrides])
    return OmegaConf.to_container(config, resolve=True)["callbacks"]["robustness"]["grid_attacks"]  # type: ignore[index, call-overload]


def test_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        THREAT.epsilon = 0.2  # type: ignore[misc]


def test_the_entries_of_the_config_are_what_their_names_say() -> None:
    entries = default_entries("callbacks.robustness.epsilon=0.1")
    assert grid_attacks(entries, THREAT) == grid_attacks(list(entries), THREAT)
    assert list(entries) == ["fgsm", "bim5", "pgd100", "dlr", "temperature", "distance"]
    often = replace(THREAT, restarts=3)
    assert grid_attacks(entries, often)["fgsm"].threat.restarts == 1


def test_names_and_entries_change_the_threat_model() -> None:
    named = grid_attacks(["fgsm", "bim5", "pgd100", "dlr", "autoattack"], THREAT)
    assert named["fgsm"].threat == replace(THREAT, steps=1, step_size=0.1, random_start=False)
    assert named["bim5"].threat == replace(THREAT, steps=5, random_start=False)
    assert named["pgd100"].threat == replace(THREAT, steps=100)
    assert named["dlr"] == GridAttack(replace(THREAT, loss="dlr"), survivors=True)
    assert named["autoattack"].art
    cooled = grid_attacks(["temperature"], THREAT)["temperature"]
    assert cooled.at_temperatures() == {each: replace(THREAT, temperature=each) for each in (1.0, 10.0, 100.0, 1000.0)}
    assert grid_attacks(["distance_l2"], THREAT)["distance_l2"] == GridAttack(replace(THREAT, norm="l2"), distance=True)
    own = grid_attacks({"mine": {"loss": "margin", "restarts": 3}, "bim5": None}, THREAT)
    assert own == {"mine": GridAttack(replace(THREAT, loss="margin", restarts=3))}


def test_the_command_line_chooses_adds_and_leaves_out() -> None:
    assert default_entries("callbacks.robustness.grid_attacks=[fgsm,autoattack]") == ["fgsm", "autoattack"]
    assert default_entries("callbacks.robustness.grid_attacks=[]") == []
    more = default_entries("+grid_attacks.mine={loss: margin}", "~grid_attacks.dlr")
    assert list(more) == ["fgsm", "bim5", "pgd100", "temperature", "distance", "mine"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["hinge"], "grid_attacks='hinge' is unknown"),
        (["pgd0"], "grid_attacks='pgd0' is unknown"),
        ({"mine": {"step": 3}}, "grid_attacks.mine has no step: expected some of"),
        ({"pgd100": {"steps": 50}}, "pgd100.*is not what pgd100 says"),
        ({"mine": {"steps": 0}}, "steps=0"),
        ({"mine": {"distance": True}}, "mine is a distance and no share: call it distance, or distance_l2"),
        ({"distance": {"distance": True, "steps": 5}}, "distance: no distance depends on steps: leave it out"),
        ({"distance": {"distance": True, "norm": "l2"}}, "is not what distance says"),
        ({"temperature": {"temperatures": [10]}}, "is not what temperature says"),
        ({"mine": {"temperatures": [1, 10], "temperature": 5}}, "has temperature and temperatures: expected one"),
        ({"mine": {"epsilon": 2.0}}, "mine: epsilon=2: expected at most 1, for pixels lie in"),
        ({"mine": {"temperatures": [0]}}, "temperature=0"),
    ],
)
def test_refuses_entries_that_mean_nothing_or_something_else(entries: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid_attacks(entries, THREAT)


@pytest.mark.parametrize("name", ["pgd20", "pgd20_audited", "masking_gap", "zero_gradient"])
def test_refuses_the_name_of_another_number(name: str) -> None:
    with pytest.raises(ConfigError, match=f"grid_attacks.{name} is measured at every epoch already"):
        EpochAttacks(THREAT, grid={name: GridAttack(THREAT)})


@pytest.mark.parametrize(
    ("key", "value"),
    [("loss", "margin"), ("random_start", False), ("norm", "l2"), ("temperature", 10.0), ("targets", 3)],
)
def test_the_epochs_attack_is_what_its_name_says(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key}={value}, but pgd20 is PGD with cross-entropy from a random start"):
        Robustness(epsilon=0.1, step_size=0.02, **{key: value})
    with pytest.raises(TypeError, match="epsilon"):
        Robustness(step_size=0.02)
