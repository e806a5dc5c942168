"""conf/train.yaml and the groups that it takes options of: one check of the whole composed config."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from prs_lightning.errors import nearest
from prs_lightning.schema import interventions, parts
from prs_lightning.schema.attacks import Entry
from prs_lightning.schema.lines import expected, problems
from prs_lightning.schema.relations import relations
from prs_lightning.schema.targets import SHARED, foreign
from prs_lightning.schema.trainer import TARGET, Trainer
from prs_lightning.schema.values import Count, Epochs, Expected, Flag, Keys, Name, Node, Part, Place, Seed, key
from prs_lightning.schema.wandb import Wandb, WandbLogger

RECORDS = "prs_lightning.callbacks.records.Records"
TARGETS: dict[str, type[Part]] = {
    "prs_lightning.models.CNN6": parts.Scaled,
    "prs_lightning.models.VGG16": parts.Scaled,
    "prs_lightning.models.ResNet18": parts.ResNet18,
    "prs_lightning.data.ImageData": parts.ImageData,
    "prs_lightning.callbacks.scores.Scores": parts.Measuring,
    "prs_lightning.callbacks.regions.Regions": parts.Regions,
    "prs_lightning.callbacks.sparsity.Sparsity": parts.Measuring,
    "prs_lightning.callbacks.logits.Logits": parts.Measuring,
    "prs_lightning.callbacks.weight_norms.WeightNorms": parts.WeightNorms,
    "prs_lightning.callbacks.collapse.Collapse": parts.Collapse,
    "prs_lightning.callbacks.local_complexity.LocalComplexity": parts.LocalComplexity,
    "prs_lightning.callbacks.cosine_similarity.CosineSimilarity": parts.CosineSimilarity,
    "prs_lightning.callbacks.robustness.Robustness": parts.Robustness,
    RECORDS: parts.Records,
    "lightning.pytorch.callbacks.RichProgressBar": parts.Progress,
    "lightning.pytorch.loggers.CSVLogger": parts.CsvLogger,
    "lightning.pytorch.loggers.TensorBoardLogger": parts.TensorboardLogger,
    "lightning.pytorch.loggers.MLFlowLogger": parts.MlflowLogger,
    "lightning.pytorch.loggers.WandbLogger": WandbLogger,
    **interventions.TARGETS,
}
"""What conf/ names, and its keys: so that nothing of it needs to be imported to be checked."""
GROUPS = {
    "model": ("prs_lightning.models", "as model=cnn6 has, or model._target_=my_package.MyNet"),
    "data": ("prs_lightning.data", "as in conf/data"),
    "intervention": ("prs_lightning.callbacks", "as in conf/intervention/low_prs.yaml, or null for none"),
    "callbacks": ("prs_lightning.callbacks", "as in conf/callbacks/default.yaml, or null for none"),
    "logger": ("lightning.pytorch.loggers", "as in conf/logger/csv.yaml"),
}
NEEDS = {"TensorBoardLogger": ("tensorboard", "tensorboardX"), "MLFlowLogger": ("mlflow",)}
"""Packages of which a logger of Lightning needs one."""


class Training(Part):
    """The keys of train.py."""

    model: Node = key("the network: an option of the group, or any by `model._target_`")
    data: Node = key("the data set: an option of the group")
    intervention: Annotated[
        dict[str, Any], Expected("none, low_prs and so on, or several, as intervention=[low_prs,logit_penalty]")
    ] = key("what training is interfered with: an option of the group, or several")  # fmt: skip
    callbacks: Annotated[dict[str, Any], Expected("default or none, and callbacks by name")] = key("what is measured")
    logger: Annotated[
        dict[str, Any], Expected("none, csv, mlflow, tensorboard, wandb, or several, as logger=[csv,wandb]")
    ] = key("where else the numbers go: an option of the group, or several")  # fmt: skip
    trainer: Node = key("every argument of Lightning's Trainer")
    batch_size: Count = key("global training batch, divided over the devices")
    seed: Seed = key("of the weights, the order of training, dropout and attacks")
    epochs: Count = key("how often the training set is gone through")
    grid_epochs: Epochs = key("at these epochs weights are kept, and the grid's attacks run")
    grid_attacks: Keys = key("the grid's attacks by name: what differs from `callbacks.robustness`")
    runs: Place = key("folder in which run directories are made")
    sweep: Name | None = key("name of the sweep: its runs are kept together in that folder of `runs`")
    run_dir: Place | None = key("of this run; null: named by data, model, batch size, seed, and a hash of all else")
    retry_failed: Flag = key("sweeps: start runs again that failed")
    dry_run: Flag = key("print what would run, and run nothing")
    print_config: Flag = key("print the composed config before training")
    wandb: Wandb = key("Weights & Biases")


def wrong(config: Mapping[str, Any], helpers: frozenset[str] = frozenset()) -> Iterator[str]:
    """What is wrong with a composed config of train.py, a line per key; relations where all values are right.

    Args:
        config: plain values, interpolations resolved.
        helpers: top-level keys that nothing but interpolations read.
    """
    found = [*_each_value(config, helpers)]
    yield from _not_repeated(found) if found else relations(config)


def _each_value(config: Mapping[str, Any], helpers: frozenset[str]) -> Iterator[str]:
    yield from problems(Training, {key: value for key, value in config.items() if key not in helpers})
    attacks = config.get("grid_attacks")
    if isinstance(attacks, Mapping):
        yield from _entries("grid_attacks", attacks)
    for group in ("data", "model"):
        if isinstance(config.get(group), Mapping):
            yield from _node(group, group, config[group])
    if isinstance(trainer := config.get("trainer"), Mapping):
        yield from _trainer(trainer)
    for group in ("intervention", "callbacks", "logger"):
        if isinstance(nodes := config.get(group), Mapping):
            for name, node in nodes.items():
                if node is not None or group == "logger":
                    yield from _node(group, f"{group}.{name}", node, nodes)
    if isinstance(callbacks := config.get("callbacks"), Mapping):
        yield from _callbacks(callbacks)


def _entries(name: str, attacks: Mapping[str, Any]) -> Iterator[str]:
    for each, entry in attacks.items():
        if entry is None:
            continue
        if not isinstance(entry, Mapping):
            yield expected(f"{name}.{each}", entry, "an entry such as {steps: 50}, or null to leave it out")
        else:
            yield from problems(Entry, entry, f"{name}.{each}.")


def _callbacks(callbacks: Mapping[str, Any]) -> Iterator[str]:
    records = callbacks.get("records")
    if not records:
        yield "callbacks.records=null: nothing would be kept of the run; expected the one of conf/callbacks"
    elif isinstance(records, Mapping) and records.get("_target_") not in (None, RECORDS):
        yield expected("callbacks.records._target_", records["_target_"], f"{RECORDS}, which keeps the run")
    robustness = callbacks.get("robustness")
    if isinstance(robustness, Mapping) and isinstance(attacks := robustness.get("grid_attacks"), Mapping):
        yield from _entries("callbacks.robustness.grid_attacks", attacks)


def _trainer(trainer: Mapping[str, Any]) -> Iterator[str]:
    if trainer.get("_target_") != TARGET:
        yield expected("trainer._target_", trainer.get("_target_"), f"{TARGET}, whose arguments are known")
    yield from problems(Trainer, {key: value for key, value in trainer.items() if key != "_target_"}, "trainer.")


def _node(group: str, name: str, node: Any, beside: Iterable[str] = ()) -> Iterator[str]:
    home, where = GROUPS[group]
    if not isinstance(node, Mapping):
        yield expected(name, node, f"an entry with _target_, {where}")
        return
    if (target := node.get("_target_")) is None:
        own = name.rpartition(".")[2]
        near = nearest(own, [each for each in beside if each != own])
        yield f"{name} has no _target_{near or f': expected one, {where}'}"
    elif not isinstance(target, str):
        yield expected(f"{name}._target_", target, f"a dotted name, {where}")
    elif (part := TARGETS.get(target)) is None:
        yield from foreign(group, name, node)
        if group == "model":
            yield from problems(parts.Network, {key: node[key] for key in SHARED if key in node}, "model.")
        if group == "data" and "name" not in node:
            yield "data.name is needed: runs are named after it"
    elif not target.startswith(home) and part is not parts.Progress:
        yield expected(f"{name}._target_", target, f"one of {home}, or of your own")
    else:
        yield from problems(part, {key: value for key, value in node.items() if key != "_target_"}, f"{name}.")
        needed = NEEDS.get(target.rpartition(".")[2], ())
        if needed and not any(map(importlib.util.find_spec, needed)):
            option = name.partition(".")[2]
            yield f"logger={option} needs {needed[0]}: pip install {needed[0]}, or logger=none"


def _not_repeated(found: list[str]) -> Iterator[str]:
    """Without what is said of a key again where an interpolation hands its value on."""
    told: set[tuple[str, str]] = set()
    for line in found:
        key, _, said = line.partition("=")
        own = key.rpartition(".")[2].replace("max_epochs", "epochs"), said.partition(": expected")[0]
        if own not in told:
            yield line
        told |= {own} if own[1] else set()
