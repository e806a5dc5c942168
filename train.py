"""Train a network, measure it every epoch, and keep the record in a run directory.

    python train.py model=cnn6 data=cifar10 batch_size=128 seed=0

Heavy packages are imported inside the functions, so that --help and --cfg answer at once.
"""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import nullcontext
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError, at_least
from prs_lightning.memory import keep_freed_memory
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.directory import is_global_zero
from prs_lightning.runs.naming import place, run_name
from prs_lightning.sweep import cli
from prs_lightning.sweep.processes import decide


def train(cfg: DictConfig) -> None:
    """Compose, seed, instantiate, fit."""
    if cfg.print_config:
        print(OmegaConf.to_yaml(cfg, resolve=True))
    at_least("epochs", cfg.epochs, 1)
    at_least("seed", cfg.seed, 0)
    path, config = place(cfg, HydraConfig.get().runtime.choices)
    run = RunDirectory(path)
    run.check(config)
    if cfg.dry_run:
        print(f"{decide(run, retry_failed=True)}: {run.path}")
        return
    if run.status == "finished":
        print(f"{run.path} is finished: nothing to train")
    else:
        fit(cfg, config, run)
    show(run)


def fit(cfg: DictConfig, config: dict[str, Any], run: RunDirectory) -> None:
    """Train in ``run``, from its last checkpoint if it has one."""
    from hydra.utils import instantiate
    from lightning.pytorch import seed_everything

    from prs_lightning.models import check_network, network_of
    from prs_lightning.runs.checkpoints import AtomicCheckpointIO, checkpoint_to_resume

    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips and notices
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # Lightning 2.6 on torch 2.14
    seed_everything(cfg.seed, verbose=False)
    data, network = instantiate(cfg.data), network_of(config["model"])
    group = cfg.sweep or run_name(config).rsplit("-bs", 1)[0]
    names = {"save_dir": str(run.path), "name": run.path.name, "id": run.wandb_id(), "group": group}
    trainer = instantiate(
        cfg.trainer,
        default_root_dir=str(run.path),
        plugins=[AtomicCheckpointIO(config["model"])],
        callbacks=[instantiate(callback) for callback in cfg.callbacks.values() if callback],
        logger=instantiate(cfg.logger, **names) if cfg.logger else False,
    )
    if cfg.batch_size % trainer.world_size:
        raise ConfigError(f"batch_size={cfg.batch_size} must be a multiple of the {trainer.world_size} devices")
    if trainer.is_global_zero:  # before the run directory is made: what cannot work must leave no trace
        data.prepare_data()
        check_network(network, data.some_images(), classes=data.classes, data=data.data_name)
    try:
        with run.recording(config, seed=cfg.seed) if trainer.is_global_zero else nullcontext():
            for each in trainer.loggers:
                each.log_hyperparams(config)
            trainer.fit(network, data, ckpt_path=checkpoint_to_resume(run), weights_only=True)
    finally:
        if "wandb" in sys.modules:  # or the next job of this process would go on in this run
            sys.modules["wandb"].finish()


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
