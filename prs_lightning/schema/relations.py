"""What values of the config say of each other, and of the data: each is a line that names both. No torch here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any, NamedTuple

from prs_lightning.errors import ConfigError, in_yaml
from prs_lightning.schema.attacks import THREAT, refuse_taken, resolved
from prs_lightning.schema.parts import Robustness
from prs_lightning.schema.targets import AIMS

PAPERS_GRID = [50, 100, 150, 200, 250, 300]
"""The default of ``grid_epochs``: a shorter run has those of them that it reaches."""
OURS = "prs_lightning."


class KnownSet(NamedTuple):
    """What is known of a data set before it is read."""

    train: int
    test: int
    channels: int
    classes: int


KNOWN = {
    "mnist5k": KnownSet(4000, 1000, 1, 10),
    "digits": KnownSet(1400, 397, 1, 10),
    "mnist": KnownSet(60000, 10000, 1, 10),
    "fashion_mnist": KnownSet(60000, 10000, 1, 10),
    "cifar10": KnownSet(50000, 10000, 3, 10),
}


def relations(config: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit together in a composed config whose values are each what they should be."""
    yield from _environment()
    yield from _epochs(config)
    yield from _interventions(config.get("intervention") or {}, config)
    yield from _trainer(config["trainer"], config["epochs"])
    yield from _devices(config)
    data, model = config["data"], config["model"]
    if data["_target_"].startswith(OURS):
        yield from _data(data)
        known = KNOWN.get(data["name"]) if data.get("source") is None else None
        if known and model["_target_"].startswith(OURS):
            yield from _network(model, data, known)
        if known:
            train, test = data.get("train_limit") or known.train, data.get("test_limit") or known.test
            yield from of_samples(config, train=train, test=test)
    for key in ("data", "model"):
        yield from _both(f"{key}.mean", f"{key}.std", config[key])
    yield from _both("callbacks.robustness.mean", "callbacks.robustness.std", robustness_of(config))
    yield from _attacks(config)


def _environment() -> Iterator[str]:
    if given := sorted(name for name in os.environ if name.startswith("PL_TRAINER_")):
        yield (
            f"{given[0]} is set, but the config alone says what is trained: unset it, and set "
            f"{given[0].lower().replace('pl_trainer_', 'trainer.')}"
        )


def robustness_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry of our attacks after each epoch; empty where there is none."""
    node = (config.get("callbacks") or {}).get("robustness") or {}
    return node if str(node.get("_target_")).startswith(OURS) else {}


def _epochs(config: Mapping[str, Any]) -> Iterator[str]:
    last, robustness = config["epochs"], robustness_of(config)
    lists = {"grid_epochs": config["grid_epochs"]}
    lists |= {f"callbacks.robustness.{key}": robustness.get(key) for key in ("epochs", "grid_epochs")}
    lists["callbacks.records.grid_epochs"] = config["callbacks"]["records"].get("grid_epochs")
    told = set()
    for key, epochs in lists.items():
        beyond = [epoch for epoch in epochs or () if epoch > last]
        if beyond and epochs != PAPERS_GRID and str(epochs) not in told:
            told.add(str(epochs))
            yield f"{key}={in_yaml(epochs)}: epoch {beyond[0]} is never reached: the run has epochs={last}"
    if (every := config["trainer"]["check_val_every_n_epoch"]) > last:
        yield f"trainer.check_val_every_n_epoch={every}: nothing would be measured: the run has epochs={last}"


def _interventions(nodes: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    acting = {name: node for name, node in nodes.items() if node and node.get("strength")}
    for name, node in acting.items():
        warmup = node.get("warmup")
        if isinstance(warmup, int) and warmup >= config["epochs"]:
            what = f"it would only look on: the run has epochs={config['epochs']}"
            yield f"intervention.{name}.warmup={warmup}: {what}"
    aimed = {name: AIMS[name] for name in acting if name in AIMS}
    if len({*aimed.values()}) > 1:
        yield f"intervention=[{','.join(aimed)}]: they contradict each other: expected few regions, or many"
    attack = acting.get("adversarial", {})
    if attack.get("norm", "linf") == "linf" and (radius := attack.get("strength", 0) * attack.get("epsilon", 0)) > 1:
        what = f"a radius of {radius:g}: expected 1 at most, for pixels lie in [0, 1]"
        yield f"intervention.adversarial.strength={attack['strength']:g} gives {what}"
    strength = acting.get("width", {}).get("strength")
    if strength and (width := config["model"].get("width")) != strength:
        yield f"intervention.width.strength={strength}, but model.width={in_yaml(width)}: expected the same"


def _trainer(trainer: Mapping[str, Any], epochs: int) -> Iterator[str]:
    if trainer["max_epochs"] != epochs:
        yield f"trainer.max_epochs={trainer['max_epochs']}: set epochs instead (epochs={epochs})"
    if (trainer["min_epochs"] or 0) > epochs:
        yield f"trainer.min_epochs={trainer['min_epochs']}: the run has epochs={epochs}"
    if trainer["gradient_clip_algorithm"] and trainer["gradient_clip_val"] is None:
        given = f"trainer.gradient_clip_algorithm={trainer['gradient_clip_algorithm']}"
        yield f"{given}: it clips nothing without trainer.gradient_clip_val"
    if trainer["benchmark"] and trainer["deterministic"]:
        yield "trainer.benchmark=true: cuDNN would not be deterministic: set trainer.deterministic=false too"
    devices = trainer["devices"]
    if trainer["accelerator"] == "cpu" and (isinstance(devices, list) or devices in (-1, "-1")):
        yield f"trainer.devices={in_yaml(devices)}: expected a number with trainer.accelerator=cpu, or auto"


def processes(trainer: Mapping[str, Any]) -> int | None:
    """How many processes train; None where the machine says it."""
    devices = trainer["devices"]
    if devices in ("auto", -1, "-1"):
        return None
    return (len(devices) if isinstance(devices, list) else int(devices)) * trainer["num_nodes"]


def _devices(config: Mapping[str, Any]) -> Iterator[str]:
    count, size = processes(config["trainer"]), config["batch_size"]
    if count and size % count:
        yield f"batch_size={size} must be a multiple of the {count} devices"
    if config["data"].get("batch_size", size) != size:
        yield f"data.batch_size={config['data']['batch_size']}: set batch_size instead (batch_size={size})"


def _both(first: str, second: str, node: Mapping[str, Any]) -> Iterator[str]:
    values = [node.get(key.rpartition(".")[2]) for key in (first, second)]
    if (values[0] is None) != (values[1] is None):
        yield f"{first}={in_yaml(values[0])}, {second}={in_yaml(values[1])}: expected both, or neither"


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    name, source, channels, classes = (data.get(key) for key in ("name", "source", "channels", "classes"))
    if source is None and name not in KNOWN:
        yield f"data.name={in_yaml(name)} is unknown: expected one of {', '.join(KNOWN)}, or a data.source"
        return
    if source in ("folder", "npz") and not data.get("root"):
        yield f"data.root is not given: expected one, as in data.root=pets{'.npz' if source == 'npz' else ''}"
    elif not data.get("root", "data"):
        yield "data.root=null: expected the folder of the data sets' files, as in data.root=data"
    if source == "torchvision" and not data.get("dataset"):
        yield "data.dataset is not given: expected one, as in data.dataset=CIFAR100"
    if source != "torchvision" and (given := [key for key in ("dataset", "arguments") if data.get(key)]):
        yield f"data.{given[0]} is for data=torchvision: leave it out"
    if source in ("torchvision", "folder") and channels not in (None, 1, 3):
        yield f"data.channels={channels}: images of {source} can have 1 or 3"
    yield from _per_channel("data", data, channels)
    known = KNOWN.get(name) if source is None and name else None
    if known and channels not in (None, known.channels):
        yield f"data.channels={channels}, but {name} has {known.channels}"
    if known and classes is not None and classes < known.classes:
        yield f"data.classes={classes}, but {name} has labels up to {known.classes - 1}"
    for key in ("train", "test"):
        limit = data.get(f"{key}_limit")
        if known and limit and limit > getattr(known, key):
            yield f"data.{key}_limit={limit} exceeds the {getattr(known, key)} samples there are"
        if (least := classes or (known.classes if known else None)) and limit and limit < least:
            yield f"data.{key}_limit={limit} is less than the {least} classes, of which each needs a sample"


def _per_channel(name: str, node: Mapping[str, Any], channels: int | None) -> Iterator[str]:
    lengths = {key: len(node[key]) for key in ("mean", "std") if node.get(key)}
    if len({*lengths.values()}) > 1 or (channels and lengths and not {*lengths.values()} <= {1, channels}):
        given = ", ".join(f"{name}.{key}={in_yaml(node[key])}" for key in lengths)
        yield f"{given}: expected a number for each of the {channels or 'same'} channels"


def _network(model: Mapping[str, Any], data: Mapping[str, Any], known: KnownSet) -> Iterator[str]:
    channels, classes = model.get("channels", 3), model.get("classes", 10)
    if channels not in (None, known.channels):
        yield f"model.channels={channels}, but {data['name']} has {known.channels}"
    else:
        yield from _per_channel("model", model, known.channels)
    if classes is not None and classes < known.classes:
        yield f"model.classes={classes}, but {data['name']} has labels up to {known.classes - 1}"


def of_samples(config: Mapping[str, Any], *, train: int, test: int) -> Iterator[str]:
    """What does not fit the numbers of training and test samples; a record's config will do."""
    limit = robustness_of(config).get("limit")
    if limit and limit > test:
        yield f"callbacks.robustness.limit={limit} exceeds the {test} test samples there are"
    trainer, size, count = config["trainer"], config["batch_size"], processes(config["trainer"])
    if not count or size < count:
        return
    usable = train - train % size % count
    if not usable:
        yield f"data.train_limit={train}: expected a sample for each of the {count} devices"
        return
    if (usable % size or size) == count:  # a last batch of one sample each may join the one before it
        return
    epoch = ceil(ceil(usable / size) / trainer.get("accumulate_grad_batches", 1))
    steps = {key: trainer.get(key) or 0 for key in ("max_steps", "min_steps")}
    yield from within_an_epoch(steps, epoch=epoch, epochs=config["epochs"])


def within_an_epoch(steps: Mapping[str, int], *, epoch: int, epochs: int) -> Iterator[str]:
    """Numbers of optimizer steps that lie within an epoch, or beyond the last one.

    Args:
        steps: by the Trainer's argument; 0 or less: none.
        epoch: steps of an epoch.
        epochs: of the run.
    """
    every = epoch * epochs
    for name, count in steps.items():
        if 0 < count < every and count % epoch:
            below = count - count % epoch
            near = " or ".join(str(whole) for whole in (below, below + epoch) if whole)
            yield (
                f"trainer.{name}={count} ends within an epoch, which has {epoch} steps: nothing could be measured "
                f"there; set it to {near}"
            )
    if (least := steps.get("min_steps", 0)) > every:
        yield f"trainer.min_steps={least}, but the run's {epochs} epochs are {every} steps"


def _attacks(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the grid's attacks beside the epoch's own."""
    robustness = robustness_of(config)
    if not robustness:
        return
    threat = {key: robustness.get(key, Robustness.model_fields[key].default) for key in THREAT}
    try:
        grid = resolved(robustness.get("grid_attacks") or {}, threat)
        refuse_taken(grid, threat["steps"])
    except ConfigError as error:
        yield str(error)
        return
    for name, attack in grid.items():
        if attack["restarts"] > 1 and not attack["random_start"]:
            again = f"grid_attacks.{name}: restarts={attack['restarts']}"
            yield f"{again} without random_start would repeat the same attack"
