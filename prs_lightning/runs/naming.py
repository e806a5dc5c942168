"""Where a run is kept: ``<runs>[/<sweep>]/<data>-<model>-bs<batch size>-seed<seed>[-<hash>]``, from its config alone.

The hash stands for every other value that changes a result and differs from the default of the chosen model and data,
whoever set it (the command line or an experiment file), so that two configs never meet in one directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError
from prs_lightning.schema import CONFIG_FOLDER
from prs_lightning.schema.targets import without_usual

PART = "base"
"""The file of a group that its others include, and which is no option."""

NO_ARM = "none"
"""The arm of a run without an intervention."""

# Keys that may differ when a run is taken up again, because they do not change what is computed.
BOOKKEEPING = (
    "run_dir", "runs", "sweep", "retry_failed", "dry_run", "wandb", "logger", "print_config", "data.root",
    "data.workers", "data.memory_limit",
    "trainer.devices", "trainer.accelerator", "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar",
    "trainer.max_time", "trainer.profiler", "trainer.detect_anomaly", "trainer.enable_autolog_hparams",
    "callbacks.progress", "callbacks.scores",
    "callbacks.robustness.batch_size",
)  # fmt: skip

# The Trainer's arguments that every record holds, as the first ones did; the others stand in it where they are changed.
RECORDED = (
    "_target_", "max_epochs", "accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic",
    "inference_mode", "num_sanity_val_steps", "enable_model_summary", "log_every_n_steps",
)  # fmt: skip


def place(composed: DictConfig, hydra_config: HydraConf) -> tuple[Path, dict[str, Any]]:
    """The directory of a run, and its config as that directory keeps it: plain values. Needs a running Hydra.

    Args:
        composed: the config.
        hydra_config: Hydra's part of it, which tells the options chosen of the groups ``model`` and ``data``.
    """
    config: Any = OmegaConf.to_container(composed, resolve=True)
    names = {"model": model_name(config), "data": config["data"]["name"]}
    searched = [line for line in hydra_config.overrides.hydra if line.startswith("hydra.searchpath=")]
    chosen = [f"{group}={_option(group, hydra_config.runtime.choices[group], name)}" for group, name in names.items()]
    usual = _composed(*chosen, *searched).copy()
    usual.batch_size, usual.seed = config["batch_size"], config["seed"]
    defaults: Any = OmegaConf.to_container(usual, resolve=True)
    data_says = data_name(config["data"])
    if config["data"]["name"] is None:  # then the name says which data set it is
        defaults["data"] |= {"name": data_says, "dataset": config["data"].get("dataset")}
    config["data"] |= {"name": data_says}
    config, defaults = as_first_recorded(config), as_first_recorded(defaults)
    recorded = with_named_attacks(with_changed_arguments(config, defaults), defaults["grid_attacks"])
    if config["run_dir"]:
        return Path(config["run_dir"]), recorded
    values, name = flatten(recorded), run_name(config)
    usual_record = with_named_attacks(with_changed_arguments(defaults, defaults), defaults["grid_attacks"])
    changed = differing_keys(recorded, usual_record)
    if changed:
        said = {key: values.get(key, "(none)") for key in changed}
        # Interventions that follow the run's seed are the same arm in runs of other seeds.
        seeds = (key for key in said if key.startswith("intervention.") and key.endswith(".seed"))
        follow = {key: "seed" for key in seeds if said[key] == config["seed"]}
        text = json.dumps(said | follow, sort_keys=True)
        name += "-" + hashlib.sha256(text.encode()).hexdigest()[:6]
    return Path(config["runs"], config["sweep"] or "", name), recorded


def _option(group: str, chosen: str, name: str) -> str:
    """The option whose values are the defaults: of a user's own option that one of ours which its name repeats."""
    ours = {file.stem for file in (CONFIG_FOLDER / group).glob("*.yaml")}
    return name if chosen not in ours and name in ours else chosen


@lru_cache
def _composed(*overrides: str) -> DictConfig:
    return hydra.compose("train", [*overrides])


def with_changed_arguments(config: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The config without those arguments of the Trainer that are as ``usual``, but for the ``RECORDED`` ones.

    >>> usual = {"trainer": {"precision": "32-true", "max_steps": -1, "profiler": None}}
    >>> with_changed_arguments({"trainer": {**usual["trainer"], "max_steps": 5}}, usual)
    {'trainer': {'precision': '32-true', 'max_steps': 5}}
    """
    there = usual["trainer"]
    kept = {
        name: value
        for name, value in config["trainer"].items()
        if name in RECORDED or name not in there or value != there[name]
    }
    return {**config, "trainer": kept}


def as_first_recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what the first records did not know, where it is as it was then.

    >>> as_first_recorded({"model": {"width": None}, "data": {"size": 32}, "intervention": {"low_prs": None}})
    {'model': {}, 'data': {}}
    """
    kept = {**config, "model": without_usual(config["model"]), "data": recorded_data(config["data"])}
    interventions = {name: node for name, node in kept.pop("intervention", {}).items() if node}
    return kept | ({"intervention": interventions} if interventions else {})


def recorded_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """A config ``data`` with a size only if that is not 32, which the first records did not know.

    A size of null is recorded as ``original``: where records are compared, null is the same as nothing.

    >>> recorded_data({"name": "mnist", "size": 32}), recorded_data({"name": "mnist", "size": None})
    ({'name': 'mnist'}, {'name': 'mnist', 'size': 'original'})
    """
    original = {"size": "original"} if "size" in data and data["size"] is None else {}
    return {key: value for key, value in data.items() if (key, value) != ("size", 32)} | original


def data_name(data: Mapping[str, Any]) -> str:
    """What runs and tables call the data of a config ``data``.

    Its name; or the lower case name of its data set; or that of its folder, or of its file without the ending.

    >>> data_name({"name": None, "source": "folder", "root": "/disk/my pets/"})
    'my_pets'

    Raises:
        ConfigError: a name that cannot be part of one of a directory, or none, and nothing to make one of.
    """
    if (name := data["name"]) is None:
        wanted, example = ("dataset", "CIFAR100") if "dataset" in data else ("root", "a/folder/or/file")
        if not data.get(wanted):
            raise ConfigError(f"data.{wanted} is not given: expected one, as in data.{wanted}={example}")
        path = Path(os.path.abspath(data["root"]))  # so that .. has a name
        of_files = path.stem if data.get("source") == "npz" else path.name
        name = re.sub(r"[^\w.-]+", "_", str(data["dataset"]).lower() if "dataset" in data else of_files)
    if not re.fullmatch(r"\w[\w.-]*", str(name)):
        raise ConfigError(f"data.name={name!r}: expected letters, digits, and _ . - between them")
    return str(name)


def with_named_attacks(config: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The config whose grid attacks, if all are ``usual`` ones, are a list of their names, as they once were.

    So a run is the same run whether its attacks were given as entries or by name, then or now.

    >>> entries = {"pgd100": {"steps": 100}}
    >>> with_named_attacks({"callbacks": {"robustness": {"grid_attacks": entries}}, "grid_attacks": entries}, entries)
    {'callbacks': {'robustness': {'grid_attacks': ['pgd100']}}}
    """
    kept = {key: value for key, value in config.items() if key != "grid_attacks"}
    robustness = (config.get("callbacks") or {}).get("robustness") or {}
    entries = robustness.get("grid_attacks")
    if isinstance(entries, Mapping) and all(usual.get(name) == entry for name, entry in entries.items()):
        kept["callbacks"] = config["callbacks"] | {"robustness": robustness | {"grid_attacks": list(entries)}}
    return kept


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted keys.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ, bookkeeping left out."""
    one, other = _renamed(first), _renamed(second)
    changed = (key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return sorted(key for key in changed if not is_bookkeeping(key))


def config_digest(config: Mapping[str, Any]) -> str:
    """Equal for configs without ``differing_keys``.

    >>> config_digest({"seed": 1, "runs": "here"}) == config_digest({"seed": 1.0, "runs": "there", "sweep": None})
    True
    >>> config_digest({"seed": 1}) == config_digest({"seed": 2})
    False
    """
    kept = {key: value for key, value in _renamed(config).items() if value is not None and not is_bookkeeping(key)}
    return hashlib.sha256(json.dumps(_comparable(kept), sort_keys=True, default=str).encode()).hexdigest()[:16]


def _comparable(value: Any) -> Any:
    """Numbers that are equal look alike: 1, 1.0 and true."""
    if isinstance(value, Mapping):
        return {str(key): _comparable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(each) for each in value]
    return float(value) if isinstance(value, int) else value


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A flat config whose callbacks have the package that they lie in now; old run directories have none."""
    values = flatten(config)
    targets = {key: value for key, value in values.items() if key.startswith("callbacks.") and key.endswith("_target_")}
    return values | {key: re.sub("^callbacks", "prs_lightning.callbacks", value) for key, value in targets.items()}


def is_bookkeeping(key: str) -> bool:
    """Whether a dotted config key says where and how a run is kept rather than what it computes."""
    return any(key == name or key.startswith(name + ".") for name in BOOKKEEPING)


def run_name(config: Mapping[str, Any]) -> str:
    """``<data>-<model>-bs<batch size>-seed<seed>``."""
    return f"{config['data']['name']}-{model_name(config)}-bs{config['batch_size']}-seed{config['seed']}"


def model_name(config: Mapping[str, Any]) -> str:
    """The model's class, in lower case."""
    return config["model"]["_target_"].rsplit(".", 1)[-1].lower()


def interventions(config: Mapping[str, Any]) -> dict[str, Any]:
    """Each intervention of a config by its name, with its strength (1 where it has none); strength 0 is none.

    >>> interventions({"intervention": {"low_prs": {"strength": 5}, "logit_penalty": {"strength": 0}, "mine": None}})
    {'low_prs': 5}
    """
    found = config.get("intervention")
    nodes = found if isinstance(found, Mapping) else {}
    strengths = {str(name): node.get("strength", 1) for name, node in nodes.items() if isinstance(node, Mapping)}
    return {name: number for name, number in strengths.items() if number}


def arm(config: Mapping[str, Any]) -> str:
    """The names of a run's interventions, in the order of the config; ``none`` for a run that is left alone.

    >>> arm({"intervention": {"low_prs": {"strength": 1}, "logit_penalty": {"strength": 0.01}}}), arm({})
    ('low_prs+logit_penalty', 'none')
    """
    return "+".join(interventions(config)) or NO_ARM


def strength(config: Mapping[str, Any]) -> float | str:
    """That of a single intervention, several as one text, in the order of `arm`; 0 without any.

    >>> strength({"intervention": {"low_prs": {"strength": 1.0}, "logit_penalty": {"strength": 0.01}}}), strength({})
    ('1+0.01', 0.0)
    """
    values = list(interventions(config).values())
    return strengths_text(values) if len(values) > 1 else float(values[0]) if values else 0.0


def strengths_text(values: Sequence[float]) -> str:
    """Numbers between plus signs, without one in a number.

    >>> strengths_text([1.0, 1e-05, 2e6])
    '1+1e-05+2e06'
    """
    return "+".join(f"{float(value):g}".replace("e+", "e") for value in values)


def architecture(model: Mapping[str, Any]) -> str:
    """What checkpoints call the network of a config ``model``: the class of one of ours, any other's dotted name.

    >>> architecture({"_target_": "prs_lightning.models.CNN6"}), architecture({"_target_": "my_package.MyNet"})
    ('CNN6', 'my_package.MyNet')
    """
    return str(model["_target_"]).removeprefix("prs_lightning.models.")
