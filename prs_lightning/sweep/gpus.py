"""Which job may use which GPU, without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from prs_lightning.errors import ConfigError


def visible() -> list[str]:
    """Ids of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all that nvidia-smi lists."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    listed = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(index) for index, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


class GPUs:
    """The GPUs of this machine, each for up to ``jobs_per_gpu`` jobs at a time.

    Args:
        ids: as CUDA_VISIBLE_DEVICES takes them; none for a machine without a GPU, where jobs get nothing and lack
            nothing.
        jobs_per_gpu: how many jobs share one.

    Raises:
        ConfigError: ``jobs_per_gpu`` below 1.
    """

    def __init__(self, ids: Sequence[str], jobs_per_gpu: int = 1) -> None:
        if jobs_per_gpu < 1:
            raise ConfigError(f"hydra.launcher.jobs_per_gpu={jobs_per_gpu} must be 1 or more")
        self.jobs_per_gpu = jobs_per_gpu
        self.load = dict.fromkeys(ids, 0)

    @property
    def slots(self) -> int:
        """How many one-GPU jobs fit at a time."""
        return len(self.load) * self.jobs_per_gpu

    def wanted(self, trainer: dict[str, object]) -> int:
        """How many GPUs a job with this ``trainer`` config needs.

        Raises:
            ConfigError: more than there are.
        """
        if not self.load or trainer.get("accelerator") == "cpu":
            return 0
        devices = trainer.get("devices", 1)
        if isinstance(devices, list):
            devices = len(devices)
        count = len(self.load) if devices in ("auto", -1, "-1") else int(str(devices))
        if count > len(self.load):
            raise ConfigError(
                f"trainer.devices={count}, but the sweep has {len(self.load)} GPUs: {', '.join(self.load)}"
            )
        return count

    def acquire(self, count: int) -> tuple[str, ...] | None:
        """``count`` different GPUs, the least used first; None while there are not enough."""
        free = sorted((gpu for gpu, load in self.load.items() if load < self.jobs_per_gpu), key=self.load.__getitem__)
        if len(free) < count:
            return None
        taken = tuple(free[:count])
        for gpu in taken:
            self.load[gpu] += 1
        return taken

    def release(self, taken: Sequence[str]) -> None:
        """Give back what ``acquire`` gave."""
        for gpu in taken:
            self.load[gpu] -= 1
