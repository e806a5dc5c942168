"""One schema for the config: types, ranges, choices and relations, checked once before anything is made.

It needs neither torch nor, before it checks something, pydantic: what only answers --help must not wait for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

CONFIG_FOLDER = Path(__file__).parents[1] / "conf"


def check_training(config: Mapping[str, Any], helpers: Collection[str] = ()) -> None:
    """Refuse a composed config of train.py that cannot work.

    Args:
        config: plain values, interpolations resolved.
        helpers: top-level keys that nothing but interpolations read.

    Raises:
        ConfigError: one line, at most three problems, each with its key, its value, what was expected and what to do.
    """
    from prs_lightning.schema import lines, training

    lines.refuse(training.wrong(config, frozenset(helpers)))


def check_samples(config: Mapping[str, Any], *, train: int, test: int) -> None:
    """Refuse what does not fit the numbers of samples, once they are known of data that had to be read first.

    Raises:
        ConfigError: as `check_training`.
    """
    from prs_lightning.schema import lines, relations

    lines.refuse(relations.of_samples(config, train=train, test=test))


def check_analysis(config: Mapping[str, Any], helpers: Collection[str] = ()) -> None:
    """Refuse a composed config of analyze.py that cannot work.

    Raises:
        ConfigError: as `check_training`.
    """
    from prs_lightning.schema import analysis, lines

    lines.refuse(analysis.wrong(config, frozenset(helpers)))


def check_launcher(launcher: Mapping[str, Any], sweeper: Mapping[str, Any] | None = None) -> None:
    """Refuse a launcher, or parameters or arms of the sweeper, that cannot work.

    Raises:
        ConfigError: as `check_training`.
    """
    from prs_lightning.schema import launching, lines

    lines.refuse([*launching.launcher(launcher), *launching.sweeper(sweeper or {})])
