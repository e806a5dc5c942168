"""Loggers: refused before training where that can be known, and never in the way of a run: the record is the run's own.

A logger shows a run to others. What it reports once training has begun is told in one line; the run goes on without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig

from prs_lightning.errors import ConfigError, Interrupted, in_one_line
from prs_lightning.online import check_wandb
from prs_lightning.runs.directory import RunDirectory
from prs_lightning.runs.naming import arm, run_name, strength

WRITING = ("log_metrics", "log_hyperparams", "log_image", "log_graph", "save", "after_save_checkpoint", "finalize")
"""What the Trainer and our callbacks call of a logger."""


def make_logger(name: str, node: DictConfig, config: Mapping[str, Any], run: RunDirectory) -> Logger:
    """A logger that keeps what it writes in the run directory, under the run's name.

    Raises:
        ConfigError: its package is not installed, or it refuses its arguments, or W&B is to be online without a key.
    """
    group = config["sweep"] or run_name(config).rsplit("-bs", 1)[0]
    here = run.path.absolute()
    facts = {
        "name": here.name,
        "run_name": here.name,
        "id": run.wandb_id(),
        "group": group,
        "tracking_uri": f"sqlite:///{here / 'mlflow.db'}",
        "artifact_location": str(here / "mlruns"),
    }
    given = {key: value for key, value in facts.items() if key in node and node[key] is None}
    if "save_dir" in node:
        given["save_dir"] = str(run.path / (node.save_dir or "."))
    try:
        logger = instantiate(node, **given)
    except InstantiationException as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise ConfigError(f"logger={name} needs {name}: pip install {name}, or logger=none") from error
        raise ConfigError(f"logger={name}: {in_one_line(error.__cause__ or error)}") from error
    if isinstance(logger, WandbLogger):
        check_wandb(node)
    return logger


def begin(loggers: Sequence[Logger], config: Mapping[str, Any]) -> None:
    """Let the loggers begin, with the config, ``arm`` and ``strength``; from here on none of them can end the run.

    Raises:
        Interrupted: one cannot, for example because its server cannot be reached or refuses its key.
    """
    for logger in loggers:
        name = type(logger).__name__
        try:
            _ = getattr(logger, "experiment", None)  # made when it is first asked for
            logger.log_hyperparams({**config, "arm": arm(config), "strength": strength(config)})
        except Exception as error:  # of all kinds: it is other people's code
            raise Interrupted(
                f"{name} cannot begin ({in_one_line(error)}): mend that, or train with logger=none"
            ) from error
        _keep_out_of_the_way(logger, name)


def _keep_out_of_the_way(logger: Logger, name: str) -> None:
    """What goes wrong while the logger writes is told once; then it writes no more."""
    failed = False

    def guarded(write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def quietly(*arguments: Any, **keywords: Any) -> Any:
            nonlocal failed
            if failed:
                return None
            try:
                return write(*arguments, **keywords)
            except Exception as error:  # of all kinds: it is other people's code
                failed = True
                print(f"warning: {name} logs no more ({in_one_line(error)}); the run goes on", file=sys.stderr)
                return None

        return quietly

    for method in WRITING:
        if callable(write := getattr(logger, method, None)):
            setattr(logger, method, guarded(write))
