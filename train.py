"""Train a network, measure it every epoch, and keep the record in a run directory.

    python train.py model=cnn6 data=cifar10 batch_size=128 seed=0

Heavy packages are imported inside the functions, so that --help and --cfg answer at once.
"""

from __future__ import annotations

from prs_lightning.signals import is_global_zero, stand

if __name__ == "__main__":
    stand()  # before the imports below, which take their time

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError
from prs_lightning.memory import keep_freed_memory
from prs_lightning.runs import RunDirectory, options
from prs_lightning.runs.data_files import files_digest
from prs_lightning.runs.mending import mend_record, restore_rows
from prs_lightning.runs.naming import place
from prs_lightning.schema import check_samples, check_training
from prs_lightning.sweep import arguments, cli
from prs_lightning.sweep.processes import decide

if TYPE_CHECKING:  # torch
    from lightning.pytorch import Trainer


def train(cfg: DictConfig) -> None:
    """Compose, seed, instantiate, fit."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    check_training(plain, arguments.helpers(cfg))
    if cfg.print_config:
        print(OmegaConf.to_yaml(cfg, resolve=True))
    path, config = place(cfg, HydraConfig.get())
    run = RunDirectory(path)
    if not cfg.dry_run:
        mend_record(run, config)
    run.check(config)
    if cfg.dry_run:
        print(f"{decide(run, retry_failed=True)}: {run.path}")
        return
    if run.status == "finished":
        restore_rows(run, config)
        print(f"{run.path} is finished: nothing to train")
    else:
        fit(cfg, config, run)
    show(run)


def fit(cfg: DictConfig, config: dict[str, Any], run: RunDirectory) -> None:
    """Train in ``run``, from its last checkpoint if it has one."""
    from lightning.pytorch import seed_everything

    from prs_lightning import online
    from prs_lightning.bars import quiet_lightning
    from prs_lightning.models import check_network, network_of
    from prs_lightning.runs import loggers
    from prs_lightning.runs.checkpoints import checkpoint_to_resume
    from prs_lightning.runs.limits import early_stop, known_monitor
    from prs_lightning.runs.ranks import one_end
    from prs_lightning.shortage import naming_the_batch
    from prs_lightning.signals import interruptible

    keep_freed_memory()
    quiet_lightning()
    data = options.made("data", cfg.data, name=config["data"]["name"])
    facts = data.found(files=files_digest(config["data"]), before=run.record().get("data"))
    check_samples(config, train=facts["train"], test=facts["test"])
    data.check_test_limit((config["callbacks"].get("robustness") or {}).get("limit"))
    seed_everything(cfg.seed, verbose=False)
    model = config["model"] | data.for_network(config["model"])
    network = network_of(model)
    trainer = make_trainer(cfg, config, run, model)
    if cfg.batch_size % trainer.world_size:
        raise ConfigError(f"batch_size={cfg.batch_size} must be a multiple of the {trainer.world_size} devices")
    # Before the run directory is made: what cannot work must leave no trace.
    check_network(network, data.some_images(), classes=facts["classes"], data=data.data_name)
    try:
        with (
            interruptible(),
            run.recording(config, seed=cfg.seed, data=facts) if trainer.is_global_zero else nullcontext(),
        ):
            with one_end(trainer, run), known_monitor(), naming_the_batch("training", "batch_size", cfg.batch_size):
                loggers.begin(trainer.loggers, config)
                trainer.fit(network, data, ckpt_path=checkpoint_to_resume(run), weights_only=True)
                reason = early_stop(trainer, epochs=cfg.trainer.max_epochs, steps=cfg.trainer.max_steps)
            if reason and trainer.is_global_zero:
                run.update_record(reason=reason)
    finally:
        online.end()


def make_trainer(cfg: DictConfig, config: dict[str, Any], run: RunDirectory, model: dict[str, Any]) -> Trainer:
    """Lightning's Trainer with the run's callbacks, loggers and checkpoints.

    Args:
        model: how the network was built, which checkpoints keep.

    Raises:
        ConfigError: what Lightning or this machine cannot do, in words that name the argument.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import ProgressBar, RichModelSummary

    from prs_lightning.runs.checkpoints import AtomicCheckpointIO
    from prs_lightning.runs.limits import Limits, check_stopping
    from prs_lightning.runs.loggers import make_logger
    from prs_lightning.runs.ranks import OneEnd, watch_ranks

    made = options.made
    chosen: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    callbacks = [
        OneEnd(),
        Limits(chosen["max_time"]),
        *(made(f"intervention.{key}", each) for key, each in cfg.intervention.items() if each),
        *(made(f"callbacks.{key}", each) for key, each in cfg.callbacks.items() if each),
    ]
    check_stopping(callbacks, chosen["check_val_every_n_epoch"])
    if (bar := chosen["enable_progress_bar"]) is None:  # Lightning would show one where callbacks.progress=null
        bar = any(isinstance(each, ProgressBar) for each in callbacks)
    callbacks = [each for each in callbacks if bar or not isinstance(each, ProgressBar)]
    if chosen["enable_model_summary"]:
        callbacks.append(RichModelSummary())  # Lightning's other one only logs
    try:
        trainer = instantiate(
            cfg.trainer,
            default_root_dir=str(run.path),
            plugins=[AtomicCheckpointIO(model, run)],
            callbacks=callbacks,
            logger=[make_logger(name, each, config, run) for name, each in cfg.logger.items()] or False,
            enable_progress_bar=bar,
            max_time=None,  # ``Limits`` has it
        )
    except InstantiationException as error:
        raise ConfigError(options.refusal(error, chosen)) from error
    watch_ranks(trainer, run)
    if chosen["profiler"]:  # into the run directory: Lightning would only log it
        trainer.profiler.dirpath, trainer.profiler.filename = str(run.path / "profile"), "report"
    options.check_machine(chosen, device_type=trainer.strategy.root_device.type, world_size=trainer.world_size)
    return trainer


def show(run: RunDirectory) -> None:
    """Print the measures of the last epoch and where the run is."""
    from rich.console import Console
    from rich.table import Table

    if not (is_global_zero() and (rows := run.rows())):
        return
    table = Table("measure", "value", title=f"epoch {rows[-1]['epoch']}")
    for name, value in rows[-1].items():
        if value and "/" in name:
            table.add_row(name, f"{float(value):.6g}")
    console = Console()
    console.print(table)
    console.print(f"run: {run.path}", soft_wrap=True)


def main() -> None:
    """The command line of this file, and of ``prs-train``."""
    cli.run(train, "train")


if __name__ == "__main__":
    main()
