"""A command line of ``python -m``: what is wrong with it, and what its user can mend, is one line with exit code 1."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from hydra.errors import HydraException

from prs_lightning.errors import ConfigError, RunError, in_one_line
from prs_lightning.outputs import refused
from prs_lightning.signals import closing_line


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help shows what there is")


def one_line_errors(task: Callable[[], int | None]) -> int | None:
    """The exit code of a program: that of ``task``, or 1 after one line about an error that a user can mend."""
    try:
        with closing_line():
            code = task()
            sys.stdout.flush()
            if problem := refused():
                raise RunError(f"cannot write to the standard output: {problem.strerror}")
            return code
    except (RunError, ConfigError, HydraException) as error:
        print(f"error: {in_one_line(str(error).partition('Config search path')[0])}", file=sys.stderr)
        return 1
