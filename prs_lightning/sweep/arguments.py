"""What Hydra takes and nobody reads: each is honoured here, or refused in one line before anything is made."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError, in_yaml
from prs_lightning.runs.naming import CONFIG_FOLDER, PART, flatten
from prs_lightning.signals import is_child
from prs_lightning.sweep import ranges
from prs_lightning.sweep.ranges import RANGE

SWEEPING = ("launcher", "sweeper", "mode")
"""Parts of Hydra's config that only a sweep reads."""
HONOURED = (*SWEEPING, "searchpath", "verbose", "callbacks", "job_logging", "hydra_logging", "help", "hydra_help",
            "job.env_set", "job.env_copy")  # fmt: skip
COMMANDS = ("run", "multirun", "cfg", "info", "shell_completion")
OPTIONS = {
    "config_path": "it would replace all our files: --config-dir DIR adds yours to them",
    "config_name": "put it into DIR/experiment/NAME.yaml, and give --config-dir DIR experiment=NAME",
    "experimental_rerun": "the command of a run, given again, goes on with it",
}
GROUPS = ("model", "data", "intervention", "callbacks", "logger", "trainer", "experiment")
SEVERAL = ("intervention", "callbacks", "logger", "trainer", "experiment")
"""Groups of which several options can be taken, one over the other."""
INSTEAD = {
    "run": "run_dir, or runs and sweep, say where a run is kept",
    "sweep": "runs and sweep say where the runs of a sweep are kept",
    "output_subdir": "the run directory keeps config.yaml",
    "job.chdir": "paths are relative to the folder in which the command was given",
}


class _Once(argparse.Namespace):
    """Options of a command line; one that is given twice is refused."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(before := getattr(self, name, None), str) and before != value:
            raise ConfigError(f"--{name.replace('_', '-')} is given twice, {before} and {value}: expected one")
        super().__setattr__(name, value)


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; --hydra-help lists the options")


def command_line(arguments: Sequence[str], config_name: str) -> list[str]:
    """The arguments as Hydra and the processes that Lightning starts take them: options first, folders absolute.

    Raises:
        ConfigError: an argument that would be ignored.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(arguments, _Once())
    options = {name: value for name, value in vars(args).items() if value and name != "overrides"}
    if "config_dir" in options:
        options["config_dir"] = str(Path(args.config_dir).absolute())
    lines = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in options.items()]
    if not _is_rank():
        _check_options(options, config_name)
        if not options.keys() & {"help", "hydra_help", "info", "shell_completion"}:
            _check_overrides(OverridesParser.create().parse_overrides(args.overrides), options, config_name)
    return [*lines, *args.overrides]


def _is_rank() -> bool:
    """Whether Lightning started this process, with the command line of the first and what it adds to it."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _check_options(options: Mapping[str, Any], config_name: str) -> None:
    for name, instead in OPTIONS.items():
        if name in options:
            raise ConfigError(f"--{name.replace('_', '-')} is not for this command: {instead}")
    commands = [f"--{name.replace('_', '-')}" for name in COMMANDS if name in options]
    if len(commands) > 1:
        raise ConfigError(f"{' and '.join(commands)} exclude each other: give one of them")
    for name in ("resolve", "package"):
        if name in options and not options.keys() & {"cfg", "help"}:
            raise ConfigError(f"--{name} is read with --cfg only: add --cfg job")
    if "multirun" in options and config_name != "train":
        raise ConfigError(f"--multirun is for training: give the command of {config_name} once for each folder")


def _check_overrides(overrides: Sequence[Override], options: Mapping[str, Any], config_name: str) -> None:
    lines: dict[str, str] = {}
    for override in overrides:
        line, key = str(override.input_line), override.get_key_element().lstrip("+")
        if lines.setdefault(key, line) != line:
            both = f"{key} is given twice, {lines[key]} and {line}: only the last would count"
            raise ConfigError(f"{both}; give one, or with -m all values with commas between them")
    searched = [*filter(None, [options.get("config_dir")])]
    modes = [str(override.value()).upper() for override in overrides if override.key_or_group == "hydra.mode"]
    sweeping = "multirun" in options or "MULTIRUN" in modes
    if "multirun" in options and "RUN" in modes:
        raise ConfigError("-m and hydra.mode=RUN contradict each other: leave one out")
    for override in overrides:
        line, key = str(override.input_line), override.key_or_group
        check_option(override)
        _check_hydras_value(override)
        if key == "hydra.searchpath":
            searched += [str(path) for path in override.value() or ()]  # type: ignore[union-attr]
        if "cfg" in options:
            continue
        if _is_hydras(key, ("",)) and not _is_hydras(key, HONOURED):
            raise ConfigError(f"{line}: {_instead(key)}")
        if _is_hydras(key, SWEEPING) and not sweeping:
            raise ConfigError(f"{line} is for sweeps, and this is a single run: add -m, or leave it out")
        if not sweeping and (override.is_sweep_override() or RANGE.fullmatch(line.partition("=")[2])):
            raise ConfigError(f"{line} is a sweep: add -m, or write a list in [ ], or a text in two pairs of quotes")
    if sweeping and config_name != "train":
        raise ConfigError(
            f"hydra.mode=MULTIRUN is for training: give the command of {config_name} once for each folder"
        )
    _check_folders(searched)


def check_option(override: Override) -> None:
    """Refuse what is no option of a group: Hydra would fail, or take one twice, or none beside another."""
    group, line = override.key_or_group, str(override.input_line)
    if override.is_delete() or not (group in GROUPS or group.startswith("hydra/")):
        return
    value = override.value()
    if isinstance(value, Glob):
        return
    for each in value.list if isinstance(value, ChoiceSweep) else [value]:
        if each is None and group == "experiment":
            continue
        names = each if isinstance(each, list) else [each]
        names = [name.text if isinstance(name, QuotedString) else name for name in names]
        if not names or not all(isinstance(name, str) and name for name in names):
            there = sorted(file.stem for file in (CONFIG_FOLDER / group).glob("*.yaml") if file.stem != PART)
            null = ", or null" if group == "experiment" else ""
            known = f"; there are: {', '.join(there)}" if there else ""
            raise ConfigError(f"{line}: expected an option by its name{null}{known}")
        if len(names) > 1 and (group not in SEVERAL or len({*names}) < len(names) or "none" in names):
            one = "one option; with -m, several with commas between them"
            raise ConfigError(
                f"{line}: expected {'different options, and none only alone' if group in SEVERAL else one}"
            )
    if group == "hydra/job_logging" and value == "default":
        raise ConfigError(f"{line} writes train.log where the command is given: take hydra/job_logging=stdout")


def _check_hydras_value(override: Override) -> None:
    """Refuse values of Hydra's own config at which it would fail in words of its own."""
    key, line = override.key_or_group, str(override.input_line)
    if override.is_delete() or override.is_sweep_override():
        return
    value: Any = override.value()
    texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
    if key == "hydra" or (key in ("hydra.launcher", "hydra.sweeper") and not isinstance(value, dict)):
        raise ConfigError(f"{line}: expected one of its keys, as in hydra.launcher.jobs=2")
    if key in ("hydra.launcher._target_", "hydra.sweeper._target_"):
        raise ConfigError(f"{line}: choose one by its name, as in hydra/launcher=slurm")
    if key == "hydra.verbose" and not (isinstance(value, bool | str | QuotedString) or texts):
        raise ConfigError(f"{line}: expected true, false, or the names of loggers, as [lightning]")
    if key == "hydra.searchpath" and not (texts or value is None):
        raise ConfigError(f"{line}: expected a list of folders, as [file://mine]")
    if key.startswith("hydra.callbacks.") and key.count(".") == 2 and not isinstance(value, dict):
        raise ConfigError(f"{line}: expected an entry with _target_")


def _is_hydras(key: str, parts: Iterable[str]) -> bool:
    """Whether a key or group lies in one of the ``parts`` of Hydra's config; '' is all of it."""
    inside = key.replace("/", ".").removeprefix("hydra.")
    return key.startswith(("hydra.", "hydra/")) and any(
        not part or inside == part or inside.startswith(part + ".") for part in parts
    )


def _instead(key: str) -> str:
    found = (text for part, text in INSTEAD.items() if _is_hydras(key, (part,)))
    return f"nothing reads {key}: {next(found, 'leave it out')}"


def _check_folders(paths: Iterable[str]) -> None:
    """Refuse folders of configs that are not there, or whose files ours of the same name would hide."""
    for path in paths:
        folder = Path(path.removeprefix("file://"))
        if path.startswith("pkg://") or (folder.exists() and folder.samefile(CONFIG_FOLDER)):
            continue
        if not folder.is_dir():
            raise ConfigError(f"{path} is no folder: expected one with configs in groups, as DIR/data/mine.yaml")
        for ours in sorted(CONFIG_FOLDER.rglob("*.yaml")):
            if (hidden := folder / ours.relative_to(CONFIG_FOLDER)).exists():
                raise ConfigError(f"{hidden} would be ignored, for there is one of that name already: rename it")


def command_of_a_job(config: DictConfig) -> list[str]:
    """What Python is to start for each job of a sweep: this script or module, and all that is not a job's own."""
    module = sys.modules["__main__"].__spec__
    started = ["-m", module.name] if module else [str(Path(sys.argv[0]).resolve())]
    path = GlobalHydra.instance().config_loader().get_search_path().get_path()
    folders = [f"--config-dir={each.path.removeprefix('file://')}" for each in path if each.provider == "command-line"]
    keys = {line: line.lstrip("+~").split("=")[0] for line in config.hydra.overrides.hydra}
    return [*started, *folders, *(line for line, key in keys.items() if not _is_hydras(key, SWEEPING))]


@cache
def _primary(config_name: str) -> tuple[dict[str, Any], set[str]]:
    """conf/<config_name>.yaml as plain values, and the groups of which it takes an option."""
    values: Any = OmegaConf.to_container(OmegaConf.load(CONFIG_FOLDER / f"{config_name}.yaml"))
    chosen = [entry for entry in values.pop("defaults") if isinstance(entry, dict)]
    return values, {group for entry in chosen for group, option in entry.items() if option and " " not in group}


def check(cfg: DictConfig, hydra: HydraConf) -> None:
    """Refuse a composed config with what nobody reads or without what is read, whoever set it.

    Args:
        cfg: the config, without interpolations resolved.
        hydra: Hydra's part of it.

    Raises:
        ConfigError: names the key.
    """
    if _is_rank():
        return
    primary, groups = _primary(hydra.job.config_name)
    _check_hydra(hydra, primary["hydra"])
    known = primary.keys() - {"hydra"} | groups
    # Before interpolations are resolved, which would fail in words of their own.
    if missing := sorted(known - cfg.keys()):
        raise ConfigError(f"{missing[0]} is needed: set it rather than delete it")
    for name in sorted(groups | {key for key in known if isinstance(primary.get(key), dict)}):
        if not OmegaConf.is_missing(cfg, name) and not OmegaConf.is_dict(cfg[name]):
            what = "an option of the group" if name in groups else "a mapping"
            raise ConfigError(f"{name}={in_yaml(cfg[name])}: expected {what} with keys of its own, as in conf/")


def helpers(cfg: DictConfig) -> set[str]:
    """The keys that interpolations read, of which some are there for nothing else: ``+depth=2 ++model.stem=${depth}``.

    Args:
        cfg: without interpolations resolved.
    """
    text = OmegaConf.to_yaml(cfg)
    known = {*_primary("train")[0], *_primary("train")[1], *_primary("analyze")[0]}
    return {key for key in map(str, cfg) if key not in known and re.search(rf"\$\{{[^}}]*\b{re.escape(key)}\b", text)}


def _check_hydra(hydra: HydraConf, fixed: Mapping[str, Any]) -> None:
    plain: Any = OmegaConf.to_container(hydra, resolve=False)
    values = flatten(plain)
    for key, value in flatten(fixed).items():
        if values.get(key) != value:
            raise ConfigError(f"hydra.{key}={values.get(key)}: {_instead(f'hydra.{key}')}")
    for group, choice in plain["runtime"]["choices"].items():
        if choice == PART:
            options = GlobalHydra.instance().config_loader().get_group_options(group)
            there = ", ".join(option for option in options if option != PART)
            raise ConfigError(f"{group}={PART} is a part of the others; there are: {there}")
    params, arms = (plain["sweeper"].get(name) for name in ("params", "arms"))
    if hydra.mode == RunMode.RUN and (params or arms) and not is_child():  # a job of a sweep has what it was given
        given = {line.lstrip("+").split("=")[0] for line in plain["overrides"]["task"]}
        swept = [*dict.fromkeys(chain(params or (), *(arms or ())))]
        others = ranges.arms(arms, given)
        of_arms = [line.split("=")[0] for arm in others if () not in others for line in arm]  # one that is given whole
        left = dict.fromkeys([*(key for key in params or () if key.lstrip("+") not in given), *of_arms])
        if left:
            raise ConfigError(
                f"experiment={plain['runtime']['choices'].get('experiment')} is a sweep of {', '.join(swept)}: "
                f"add -m, or for one run of it give {', '.join(left)}, too"
            )
