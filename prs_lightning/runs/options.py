"""Every argument of Lightning's Trainer: honoured, or refused in one line before anything trains. No torch here.

What would cut an epoch or a measure, or would be ignored, is refused: its numbers would stand under the names of whole
ones. What cannot be known before the data are there, ``limits.py`` checks when training starts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from prs_lightning.errors import ConfigError, at_least, in_one_line, nearest

Rule = Callable[[Any, Mapping[str, Any]], str | None]
"""Of a value and all arguments: why the value is refused and what to do, or None if it is honoured."""

HONOURED = "honoured"
TARGET = "lightning.pytorch.Trainer"
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
PRECISIONS = (None, 32, "32", "32-true", 64, "64", "64-true", 16, "16", "16-mixed", "bf16", "bf16-mixed")
PROFILERS = (None, "simple", "advanced", "pytorch")
NODES = ("NODE_RANK", "GROUP_RANK", "SLURM_NTASKS", "LSB_JOBID", "RANK")
"""Environment variables of which one says which node this is, wherever there are more than one."""


def _shown(value: object) -> str:
    """A value as YAML writes it."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _same(value: object, other: object) -> bool:
    """Equal and of one type: 1 batch is not the share 1.0, and neither is true."""
    return type(value) is type(other) and value == other


def only(*allowed: object, why: str) -> Rule:
    """One of these values, or the line."""
    return lambda value, _: None if any(_same(value, each) for each in allowed) else why


def elsewhere(key: str) -> Rule:
    """Not given here, but under another key of the config."""
    return only(None, why=f"set {key} instead")


def count(minimum: int, *others: object) -> Rule:
    """An integer of ``minimum`` or more, or one of the ``others``."""
    words = " or ".join([f"an integer of {minimum} or more", *map(_shown, others)])

    def rule(value: Any, _: Mapping[str, Any]) -> str | None:
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
        return None if whole or any(_same(value, other) for other in others) else f"expected {words}"

    return rule


def _devices(value: Any, _: Mapping[str, Any]) -> str | None:
    ids = value if isinstance(value, list) else [value]
    whole = [int(each) for each in ids if re.fullmatch(r"-?\d+", str(each))]
    if value == "auto" or (ids and len(whole) == len(ids) and min(whole) >= (0 if isinstance(value, list) else -1)):
        return None if value not in (0, "0") else "expected 1 or more"
    return "expected a number, auto, -1 for all, or a list of ids such as [0,1]"


def _precision(value: Any, _: Mapping[str, Any]) -> str | None:
    if any(_same(value, known) for known in PRECISIONS):
        return None
    rounded = "rounded weights are another network; " if str(value) in ("bf16-true", "16-true") else ""
    return f"{rounded}expected 32-true, 64-true, bf16-mixed or 16-mixed"


def _max_epochs(value: Any, config: Mapping[str, Any]) -> str | None:
    return None if value == config["epochs"] else f"set epochs instead (epochs={config['epochs']})"


def _min_epochs(value: Any, config: Mapping[str, Any]) -> str | None:
    if isinstance(value, int) and value > config["epochs"]:
        return f"the run has epochs={config['epochs']}"
    return count(0, None)(value, config)


def _max_time(value: Any, config: Mapping[str, Any]) -> str | None:
    try:
        return None if value is None or seconds(value) > 0 else "expected more than no time"
    except (TypeError, ValueError):
        return "expected DD:HH:MM:SS, for example '00:11:30:00', or a mapping such as {hours: 11, minutes: 30}"


def _clip(value: Any, _: Mapping[str, Any]) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return None if value is None or number else "expected a number above 0, or null"


def _clip_algorithm(value: Any, config: Mapping[str, Any]) -> str | None:
    if value not in (None, "norm", "value"):
        return "expected norm or value"
    given = value is None or config["trainer"].get("gradient_clip_val") is not None
    return None if given else "it clips nothing without trainer.gradient_clip_val"


def _benchmark(value: Any, config: Mapping[str, Any]) -> str | None:
    if value is True and config["trainer"].get("deterministic"):
        return "cuDNN would not be deterministic: set trainer.deterministic=false too"
    return only(None, True, False, why="expected true or false")(value, config)


WHOLE_SETS = "every epoch trains on, and every measure is of, the whole set: take data.train_limit or data.test_limit"
NO_VALIDATION = "measures are taken after whole epochs: take trainer.check_val_every_n_epoch"

TRAINER: dict[str, str | Rule] = {
    "accelerator": HONOURED,
    "strategy": only(*STRATEGIES, why=f"its measures are not known to be right; there are: {', '.join(STRATEGIES)}"),
    "devices": _devices,
    "num_nodes": count(1),
    "precision": _precision,
    "logger": elsewhere("logger=csv, or several: logger=[csv,wandb],"),
    "callbacks": elsewhere("callbacks.<name>"),
    "fast_dev_run": only(False, why=f"it would measure a few batches as if they were all; {WHOLE_SETS}, with epochs=1"),
    "max_epochs": _max_epochs,
    "min_epochs": _min_epochs,
    "max_steps": count(1, -1),
    "min_steps": count(0, None),
    "max_time": _max_time,
    "limit_train_batches": only(None, 1.0, why=WHOLE_SETS),
    "limit_val_batches": only(None, 1.0, why=WHOLE_SETS),
    "limit_test_batches": only(None, 1.0, why=WHOLE_SETS),
    "limit_predict_batches": only(None, 1.0, why=WHOLE_SETS),
    "overfit_batches": only(0, 0.0, why=WHOLE_SETS),
    "val_check_interval": only(None, 1.0, why=NO_VALIDATION),
    "check_val_every_n_epoch": count(1),
    "num_sanity_val_steps": only(0, why="only a network that was trained is measured; expected 0"),
    "log_every_n_steps": count(0),
    "enable_checkpointing": only(None, True, why="a run goes on from its checkpoints: expected true"),
    "enable_progress_bar": only(None, True, False, why="expected true or false"),
    "enable_model_summary": only(None, True, False, why="expected true or false"),
    "accumulate_grad_batches": count(1),
    "gradient_clip_val": _clip,
    "gradient_clip_algorithm": _clip_algorithm,
    "deterministic": only(None, True, False, "warn", why="expected true, false or warn"),
    "benchmark": _benchmark,
    "inference_mode": only(False, why="the attacks need gradients"),
    "use_distributed_sampler": only(True, why="the samples of each process are chosen by the data: expected true"),
    "profiler": only(*PROFILERS, why="expected simple, advanced or pytorch"),
    "detect_anomaly": only(True, False, why="expected true or false"),
    "barebones": only(False, why="it would log and keep nothing"),
    "plugins": only(None, why="precision, checkpoints and processes are set up by the run"),
    "sync_batchnorm": only(True, False, why="expected true or false"),
    "reload_dataloaders_every_n_epochs": count(0),
    "default_root_dir": elsewhere("run_dir, or runs"),
    "enable_autolog_hparams": only(True, False, why="expected true or false"),
    "model_registry": only(None, why="no model is uploaded"),
}


def check(config: Mapping[str, Any]) -> None:
    """Refuse what of a composed config, as plain values, Lightning's Trainer could not honour.

    Raises:
        ConfigError: names the argument, its value, and what to do.
    """
    at_least("epochs", config["epochs"], 1)
    at_least("seed", config["seed"], 0)
    at_least("batch_size", config["batch_size"], 1)
    if not (config.get("callbacks") or {}).get("records"):
        raise ConfigError(
            "callbacks.records=null: nothing would be kept of the run; expected the one of conf/callbacks"
        )
    trainer = config["trainer"]
    if trainer.get("_target_") != TARGET:
        raise ConfigError(f"trainer._target_={trainer.get('_target_')}: expected {TARGET}, whose arguments are known")
    for name, value in trainer.items():
        rule = HONOURED if name == "_target_" else TRAINER.get(name)
        if rule is None:
            near = nearest(f"trainer.{name}", [f"trainer.{each}" for each in TRAINER])
            raise ConfigError(f"Lightning's Trainer has no {name!r}{near}")
        if callable(rule) and (why := rule(value, config)):
            raise ConfigError(f"trainer.{name}={_shown(value)}: {why}")
    if given := sorted(name for name in os.environ if name.startswith("PL_TRAINER_")):
        raise ConfigError(
            f"{given[0]} is set, but the config alone says what is trained: unset it, and set "
            f"{given[0].lower().replace('pl_trainer_', 'trainer.')}"
        )


def check_machine(trainer: Mapping[str, Any], *, device_type: str, world_size: int) -> None:
    """Refuse what this machine would silently do otherwise, or wait for ever for.

    Args:
        trainer: the Trainer's arguments.
        device_type: on which it trains, for example ``cpu``.
        world_size: number of processes.
    """
    if device_type == "cpu" and str(trainer["precision"]) in ("16", "16-mixed"):
        raise ConfigError(f"trainer.precision={trainer['precision']} needs a GPU: on a CPU take bf16-mixed")
    if device_type == "cpu" and trainer["sync_batchnorm"] and world_size > 1:
        raise ConfigError("trainer.sync_batchnorm=true needs GPUs: torch cannot do it on a CPU")
    if trainer["num_nodes"] > 1 and not any(name in os.environ for name in NODES):
        raise ConfigError(
            f"trainer.num_nodes={trainer['num_nodes']}, but nothing says which of them this is: start it "
            "with srun, hydra/launcher=slurm or torchrun, or set NODE_RANK and MASTER_ADDR on each"
        )


def refusal(error: BaseException, trainer: Mapping[str, Any]) -> str:
    """Lightning's own refusal as one line that names the argument.

    Args:
        error: what the Trainer's constructor raised, or what ``instantiate`` made of it.
        trainer: its arguments.

    >>> refusal(ValueError("Precision 17 is invalid."), {"precision": 17, "devices": 1})
    'trainer.precision=17: Precision 17 is invalid.'
    """
    text = in_one_line(error.__cause__ or error)
    words = set(re.findall(r"\w+", text.lower()))
    said = [name for name in trainer if name in words]
    meant = said or [
        name for name, value in trainer.items() if value not in (None, False, 1, -1) and str(value) in words
    ]
    given = meant or [name for name in ("accelerator", "devices", "strategy", "precision") if name in trainer]
    return f"{', '.join(f'trainer.{name}={_shown(trainer[name])}' for name in given)}: {text}"


def seconds(duration: str | Mapping[str, float]) -> float:
    """Of a duration as Lightning takes it.

    >>> seconds("00:01:00:05"), seconds({"minutes": 2})
    (3605.0, 120.0)

    Raises:
        ValueError, TypeError: it is none.
    """
    from datetime import timedelta

    if isinstance(duration, Mapping):
        return timedelta(**duration).total_seconds()
    if not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", duration):
        raise ValueError(duration)
    days, hours, minutes, rest = map(int, duration.split(":"))
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=rest).total_seconds()
