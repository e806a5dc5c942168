"""Running a Hydra task so that an error the user can mend is one line, with exit code 1 and the nearest names."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prs_lightning.errors import ConfigError, RunError
from prs_lightning.runs.naming import CONFIG_FOLDER, flatten
from prs_lightning.sweep.processes import die_with_parent

FULL_ERROR = "HYDRA_FULL_ERROR"


def run(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and give it to ``task``.

    With -m the jobs run as ``prs_lightning.sweep`` says. Errors that a user can mend are printed as one line; with
    HYDRA_FULL_ERROR=1 every error shows its traceback.
    """
    die_with_parent()
    only_our_launchers()
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # for a _target_ of the user's own, also where the command is an installed one
    main = hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=config_name)
    if os.environ.get(FULL_ERROR) == "1":
        main(task)()
        return

    def quiet(cfg: DictConfig) -> None:
        # Worded in here, or Hydra would print a line of its own first; the task's processes decide for themselves.
        with _one_line_errors(config_name, hydra_raises=False):
            task(cfg)

    with _one_line_errors(config_name, hydra_raises=True):
        main(quiet)()


def only_our_launchers() -> None:
    """Hide the launchers that other plugins bring.

    Used directly, they would know neither our directories nor what to skip; conf/hydra/launcher has ours. One of the
    same name would count as a schema that ours must obey, and --help copies each of them 80 times.
    """
    Plugins.instance()  # imports the plugins, which then store their configs
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in launchers.keys() - {"basic.yaml"}:
        del launchers[name]


@contextmanager
def _one_line_errors(config_name: str, *, hydra_raises: bool) -> Iterator[None]:
    """Print an error that the user can mend as one line, and leave with exit code 1; one that Hydra raises, too."""
    before = os.environ.get(FULL_ERROR, "0")
    os.environ[FULL_ERROR] = "1" if hydra_raises else "0"
    try:
        yield
    except Exception as error:
        if (line := one_line(error, config_name)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    finally:
        os.environ[FULL_ERROR] = before


def one_line(error: BaseException, config_name: str) -> str | None:
    """What to tell the user, or None if ``error`` is a fault of ours that deserves its traceback."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, ConfigError | RunError):
            return " ".join(str(cause).split())
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, name = cause.missing_cfg_file.rpartition("/")
            options = [option for option in cause.options or [] if option != "base"]
            return f"{group}={name} is unknown{_nearest(name, options)}; there are: {', '.join(options)}"
    text = " ".join(str(error).split())
    if unknown := re.search(r"Could not (?:override|append.*to|delete from config\.) '([^']+)'", text):
        return f"the config has no key {unknown[1]!r}{_nearest(unknown[1], _known_keys(config_name))}"
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} cannot be read: {text}"
    if isinstance(error, InstantiationException) and "unexpected keyword argument" not in text:
        return None
    return text if isinstance(error, CompactHydraException | OmegaConfBaseException) else None


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f": did you mean {' or '.join(near)}?" if near else ""


def _known_keys(config_name: str) -> list[str]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config: Any = OmegaConf.to_container(hydra.compose(config_name), resolve=False)
    leaves = flatten(config)
    nodes = {key.rsplit(".", depth)[0] for key in leaves for depth in range(1, key.count(".") + 1)}
    return sorted(leaves.keys() | nodes)
