"""What a result may hang on beside its config: the commit of the code, and the versions of packages."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "torch", "lightning", "torchvision", "torchmetrics", "hydra-core", "adversarial-robustness-toolbox", "wandb",
)  # fmt: skip


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of the packages that a result may hang on."""
    found = {"python": platform.python_version()}
    for package in packages:
        found[package] = "absent"
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def git_commit() -> str | None:
    """The commit of the code, with ``-dirty`` for uncommitted changes; None outside a checkout or without git."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        folder = Path(__file__).parent
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
