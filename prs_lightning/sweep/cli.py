"""Running a Hydra task so that an error the user can mend is one line, with exit code 1 and the nearest names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from prs_lightning.errors import printable
from prs_lightning.runs.naming import CONFIG_FOLDER
from prs_lightning.runs.wording import one_line
from prs_lightning.signals import closing_line, interrupted
from prs_lightning.sweep import arguments
from prs_lightning.sweep.processes import FULL_ERROR, full_error


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
        print(f"error: {printable(line)}", file=sys.stderr)
        sys.exit(1)
