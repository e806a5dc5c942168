"""The sweeper of ``train.py -m``: what is given and what experiments bring along, as jobs for a launcher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError, RunError
from prs_lightning.runs.naming import PART
from prs_lightning.schema import check_launcher
from prs_lightning.sweep import ranges
from prs_lightning.sweep.arguments import check_option
from prs_lightning.sweep.launcher import SweepLauncher
from prs_lightning.sweep.processes import Job


class RangeSweeper(Sweeper):
    """Takes lists, ranges such as ``seed=0..4`` and globs, and gives all jobs to the launcher at once.

    The command line wins over ``params``, overrides that an experiment brings along: ``{"seed": "0..4"}``, and over
    ``arms``, one more axis, each of whose values is several overrides. Of several
    experiments each is a sweep as if it were alone, with its own ``params`` and launcher. All are planned before the
    first one starts; then one follows the other.
    """

    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction

    def __init__(self, params: dict[str, str] | None = None, arms: list[dict[str, Any]] | None = None) -> None:
        """Both are read from the config of each experiment."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        jobs: dict[Path, Job] = {}
        planned = []
        for config, overrides, arms in self.experiments(arguments):
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=self.hydra_context, task_function=self.task_function, config=config
            )
            if not isinstance(launcher, SweepLauncher):
                raise ConfigError(
                    "hydra/launcher must be one of ours: another knows neither what to skip nor where to go"
                )
            planned.append((launcher, launcher.jobs(ranges.jobs(overrides, self.options, arms), jobs)))
        problems = []
        for launcher, its_jobs in planned:
            try:
                launcher.start(its_jobs)
            except RunError as problem:
                problems.append(str(problem))
        if problems:
            raise RunError("; ".join(problems))

    def experiments(
        self, arguments: Sequence[str]
    ) -> Iterator[tuple[DictConfig, list[Override], list[tuple[str, ...]]]]:
        """The config of each experiment that is asked for, its overrides, its own and those of the command line, and
        the overrides of each of its arms."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parser.parse_overrides([*arguments])
        swept = [each for each in given if each.key_or_group == "experiment" and each.is_sweep_override()]
        others = [each for each in given if each not in swept]
        for choice in [[line] for each in swept for line in ranges.chosen(each, self.options)] or [[]]:
            config = self.config
            if choice:
                single = [str(each.input_line) for each in others if not each.is_sweep_override()]
                config = self.hydra_context.config_loader.load_sweep_config(self.config, [*single, *choice])
            wanted: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
            sweeper: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
            check_launcher(wanted, sweeper)
            params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
            own = parser.parse_overrides([*params, *choice])
            arms = ranges.arms(sweeper["arms"], [each.get_key_element().lstrip("+") for each in others])
            of_arms = [parser.parse_overrides([*arm]) for arm in arms]
            for each in chain(own, *of_arms):
                check_option(each)
            yield config, [*own, *others], [tuple(ranges.only(each, self.options) for each in arm) for arm in of_arms]

    def options(self, group: str) -> list[str]:
        """The options of a group, the user's own among them."""
        loader, given = self.hydra_context.config_loader, [*self.config.hydra.overrides.hydra]
        return [each for each in loader.get_group_options(group, overrides=given) if each != PART]
