"""Every argument of Lightning's Trainer: which values are honoured, and why all others are refused.

What would cut an epoch or a measure, or would be ignored, is refused: its numbers would stand under the names of whole
ones. A test compares names, defaults and types with the signature of the Lightning that is installed.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from prs_lightning.schema.values import Count, Flag, Natural, Part, Positive, Rule, is_duration, key, only

TARGET = "lightning.pytorch.Trainer"
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
PRECISIONS = (None, 32, "32", "32-true", 64, "64", "64-true", 16, "16", "16-mixed", "bf16", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
WHOLE_SETS = "every epoch trains on, and every measure is of, the whole set: take data.train_limit or data.test_limit"
NO_VALIDATION = "measures are taken after whole epochs: take trainer.check_val_every_n_epoch"
ROUNDED = "rounded weights (bf16-true, 16-true) are another network"
Whole = Annotated[Any, only(None, 1.0, why=WHOLE_SETS)]


def is_devices(value: Any) -> bool:
    """Whether it is a number of devices, ``auto``, -1 for all, or a list of ids."""
    ids = value if isinstance(value, list) else [value]
    whole = [int(each) for each in ids if not isinstance(each, bool) and re.fullmatch(r"-?\d{1,5}", str(each))]
    if isinstance(value, list):
        return len(ids) == len(whole) == len({*whole}) > 0 and min(whole) >= 0
    return value == "auto" or (len(whole) == 1 and (whole[0] == -1 or whole[0] >= 1))


DEVICES = "a number of 1 or more, auto, -1 for all, or a list of ids such as [0,1]"
DURATION = "more than no time, as DD:HH:MM:SS, for example '00:11:30:00', {hours: 11, minutes: 30}, or null"


class Trainer(Part):
    """The arguments in Lightning's order."""

    accelerator: Annotated[Any, only(*ACCELERATORS)] = key("what trains: a kind of device")
    strategy: Annotated[Any, only(*STRATEGIES, why="the measures of others are not known to be right")] = key(
        "how several processes train one network: one process, or ddp with more"
    )
    devices: Annotated[Any, Rule(is_devices, DEVICES)] = key("how many devices of a node, or which")
    num_nodes: Count = key("machines; start it on each")
    precision: Annotated[
        Any, only(*PRECISIONS, words="32-true, 64-true, bf16-mixed or 16-mixed", why=ROUNDED)
    ] = key("of training; every measure is taken in float32")  # fmt: skip
    logger: Annotated[Any, only(None, why="set logger=csv, or several, logger=[csv,wandb], instead")] = key("not here")
    callbacks: Annotated[Any, only(None, why="set callbacks.<name> instead")] = key("not here")
    fast_dev_run: Annotated[
        Any, only(False, why=f"it would measure a few batches as if they were all; {WHOLE_SETS}, with epochs=1")
    ] = key("refused")  # fmt: skip
    max_epochs: Count = key("set `epochs` instead")
    min_epochs: Natural | None = key("before which no early stop ends a run")
    max_steps: Annotated[Any, Rule(lambda value: value == -1 or _whole(value, 1), "an integer of 1 or more, or -1")] = (
        key("optimizer steps, at the end of an epoch; -1: epochs alone decide")
    )
    min_steps: Natural | None = key("before which no early stop ends a run")
    max_time: Annotated[Any, Rule(is_duration, DURATION)] = key(
        "of each session; then the run is interrupted, and goes on when called again"
    )
    limit_train_batches: Whole = key("refused")
    limit_val_batches: Whole = key("refused")
    limit_test_batches: Whole = key("refused")
    limit_predict_batches: Whole = key("refused")
    overfit_batches: Annotated[Any, only(0.0, 0, words="0", why=WHOLE_SETS)] = key("refused")
    val_check_interval: Annotated[Any, only(None, 1.0, why=NO_VALIDATION)] = key("refused")
    check_val_every_n_epoch: Count = key("measure every n-th epoch")
    num_sanity_val_steps: Annotated[Any, only(0, why="only a network that was trained is measured")] = key("refused")
    log_every_n_steps: Natural = key("how often loggers are given what is logged at each step")
    enable_checkpointing: Annotated[Any, only(None, True, why="a run goes on from its checkpoints")] = key("refused")
    enable_progress_bar: Flag | None = key("false: no bar, as callbacks.progress=null")
    enable_model_summary: Flag | None = key("print the layers before training")
    accumulate_grad_batches: Count = key("batches per optimizer step")
    gradient_clip_val: Positive | None = key("where gradients are clipped")
    gradient_clip_algorithm: Annotated[Any, only(None, "norm", "value")] = key("how gradients are clipped")
    deterministic: Annotated[Any, only(None, True, False, "warn")] = key("algorithms that give the same result again")
    benchmark: Flag | None = key("let cuDNN choose its algorithms; needs trainer.deterministic=false")
    inference_mode: Annotated[Any, only(False, why="the attacks need gradients")] = key("refused")
    use_distributed_sampler: Annotated[
        Any, only(True, why="the samples of each process are chosen by the data")
    ] = key("refused")  # fmt: skip
    profiler: Annotated[Any, only(None, "simple", "advanced", "pytorch")] = key(
        "the report is kept in the run directory"
    )
    detect_anomaly: Flag = key("stop where a gradient becomes nan")
    barebones: Annotated[Any, only(False, why="it would log and keep nothing")] = key("refused")
    plugins: Annotated[Any, only(None, why="precision, checkpoints and processes are set up by the run")] = key(
        "refused"
    )
    sync_batchnorm: Flag = key("batch norm over all GPUs")
    reload_dataloaders_every_n_epochs: Natural = key("make the loaders again")
    default_root_dir: Annotated[Any, only(None, why="set run_dir, or runs, instead")] = key("not here")
    enable_autolog_hparams: Flag = key("log what the network was built with")
    model_registry: Annotated[Any, only(None, why="no model is uploaded")] = key("refused")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31
