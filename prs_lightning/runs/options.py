"""What only this machine, Lightning, or a class of the user's can refuse, as one line. No torch here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from prs_lightning.errors import ConfigError, RunError, in_one_line, in_yaml

NODES = ("NODE_RANK", "GROUP_RANK", "SLURM_NTASKS", "LSB_JOBID", "RANK")
"""Environment variables of which one says which node this is, wherever there are more than one."""


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


def made(name: str, node: Any, /, **given: Any) -> Any:
    """What Hydra makes of an entry with ``_target_``; what its constructor raises is one line.

    Args:
        name: its dotted key.
        node: the entry.
        given: more arguments.

    Raises:
        ConfigError: names the key, and the error; HYDRA_FULL_ERROR=1 shows where it was raised.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(node, **given)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError | RunError):
            raise cause from error
        raise ConfigError(f"{name}: {type(cause).__name__}: {in_one_line(cause)}") from error


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
    return f"{', '.join(f'trainer.{name}={in_yaml(trainer[name])}' for name in given)}: {text}"
