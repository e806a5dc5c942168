"""Running a Hydra task so that an error the user can mend is one line, with exit code 1 and the nearest names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prs_lightning.errors import DISK, ConfigError, DiskError, RunError, in_one_line, nearest
from prs_lightning.runs.naming import CONFIG_FOLDER, PART, flatten
from prs_lightning.signals import closing_line, interrupted
from prs_lightning.sweep import arguments
from prs_lightning.sweep.processes import FULL_ERROR, full_error

MENDABLE = re.compile(
    "unexpected keyword argument|missing .* argument|Error locating target|Cannot instantiate config of"
)
"""What instantiating says when the config is wrong, and not the class."""


def run(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and give it to ``task``.

    With -m the jobs run as ``prs_lightning.sweep`` says. Errors that a user can mend are printed as one line; with
    HYDRA_FULL_ERROR=1 every error shows its traceback.
    """
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # for a _target_ of the user's own, also where the command is an installed one
    main = hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=config_name)

    def checked(cfg: DictConfig) -> None:
        arguments.check(cfg, HydraConfig.get())
        task(cfg)

    def quiet(cfg: DictConfig) -> None:
        # Worded in here, or Hydra would print a line of its own first; the task's processes decide for themselves.
        with _one_line_errors(config_name, hydra_raises=False):
            checked(cfg)

    full = os.environ.get(FULL_ERROR) == "1"
    with closing_line(), nullcontext() if full else _one_line_errors(config_name, hydra_raises=True):
        sys.argv[1:] = arguments.command_line(sys.argv[1:], config_name)
        if "--hydra-help" not in sys.argv:  # it is about Hydra as it comes
            only_our_plugins()
        main(checked if full else quiet)()


def only_our_plugins() -> None:
    """Hide the launchers and sweepers that Hydra and other plugins bring.

    Used directly, they would know neither our directories nor what to skip; conf/hydra has ours. One of the same name
    would count as a schema that ours must obey, and --help copies each of them 80 times.
    """
    Plugins.instance()  # imports the plugins, which then store their configs
    for kind in ("launcher", "sweeper"):
        ConfigStore.instance().repo["hydra"][kind].clear()


@contextmanager
def _one_line_errors(config_name: str, *, hydra_raises: bool) -> Iterator[None]:
    """Print an error that the user can mend as one line, and leave with exit code 1; one that Hydra raises, too."""
    try:
        with full_error("1" if hydra_raises else "0"):
            yield
    except Exception as error:
        if (end := interrupted()) is not None:
            raise end from None
        if (line := one_line(error, config_name)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def one_line(error: BaseException, config_name: str) -> str | None:
    """What to tell the user, or None if ``error`` is a fault of ours that deserves its traceback."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, ConfigError | RunError):
            return in_one_line(cause)
        if isinstance(cause, OSError) and cause.errno in DISK:
            return in_one_line(DiskError(cause.filename or "what was to be written", cause))
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, name = cause.missing_cfg_file.rpartition("/")
            there = cause.options or [file.stem for file in sorted((CONFIG_FOLDER / group).glob("*.yaml"))]
            there = [option for option in there if option != PART]
            return f"{group}={name} is unknown{nearest(name, there)}; there are: {', '.join(there)}"
    text = in_one_line(error)
    if unknown := re.search(r"Could not (?:override|append.*to|delete from config\.) '([^']+)'", text):
        known = _known_keys(config_name)
        if unknown[1] in known:
            return f"{unknown[1]} cannot be changed or deleted: it is null, or what it lies in is"
        return f"the config has no key {unknown[1]!r}{nearest(unknown[1], known)}"
    if merged := re.search(r"Error merging override (.*)", text):
        return f"{merged[1]}: expected what can take the place of what is there: a list, a mapping, or a single value"
    if "Config group override must be a string or a list" in text:  # in a file of the user's
        return f"a list of defaults names something that is no option of a group: {text}"
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} cannot be read: {text}"
    if isinstance(error, InstantiationException) and not MENDABLE.search(text):
        return None
    return _in_words(text) if isinstance(error, CompactHydraException | OmegaConfBaseException) else None


def _in_words(text: str) -> str:
    """An error of Hydra or OmegaConf with the key that it is about in front.

    >>> _in_words("Missing mandatory value full_key: data.name object_type=dict")
    'data.name: Missing mandatory value'
    """
    key = re.search(r" full_key: (\S+)", text)
    text = re.sub(
        r" full_key: \S+| object_type=\S+|, set env var HYDRA_FULL_ERROR=1 to see chained exception\.?", "", text
    )
    return f"{key[1]}: {text}" if key else text


def _known_keys(config_name: str) -> list[str]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config: Any = OmegaConf.to_container(hydra.compose(config_name), resolve=False)
    leaves = flatten(config)
    nodes = {key.rsplit(".", depth)[0] for key in leaves for depth in range(1, key.count(".") + 1)}
    return sorted(leaves.keys() | nodes)
