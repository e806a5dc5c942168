"""Which job may use which GPU, without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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

    Attributes:
        slots: how many one-GPU jobs fit at a time.

    Raises:
        ConfigError: ``jobs_per_gpu`` below 1.
    """

    def __init__(self, ids: Sequence[str], jobs_per_gpu: int = 1) -> None:
        if jobs_per_gpu < 1:
            raise ConfigError(f"hydra.launcher.jobs_per_gpu={jobs_per_gpu} must be 1 or more")
        self.free = Counter(dict.fromkeys(ids, jobs_per_gpu))
        self.slots = self.free.total()
        self.turn, self.changed = threading.Lock(), threading.Condition()

    def wanted(self, trainer: dict[str, object]) -> int:
        """How many GPUs a job with this ``trainer`` config needs.

        Raises:
            ConfigError: more than there are.
        """
        if not self.free or trainer.get("accelerator") == "cpu":
            return 0
        devices = trainer.get("devices", 1)
        if isinstance(devices, list):
            devices = len(devices)
        count = len(self.free) if devices in ("auto", -1, "-1") else int(str(devices))
        if count > len(self.free):
            raise ConfigError(
                f"trainer.devices={count}, but the sweep has {len(self.free)} GPUs: {', '.join(self.free)}"
            )
        return count

    @contextmanager
    def lent(self, count: int) -> Iterator[tuple[str, ...]]:
        """Wait for ``count`` different GPUs, the least used first, and have them until the end of the block.

        They are taken all at once, and who came first waits first: a job of two would otherwise wait for ever beside
        another such job, or behind jobs of one.
        """
        with self.turn, self.changed:
            self.changed.wait_for(lambda: len(self._available()) >= count)
            taken = self._available()[:count]
            self.free.subtract(taken)
        try:
            yield taken
        finally:
            with self.changed:
                self.free.update(taken)
                self.changed.notify()

    def _available(self) -> tuple[str, ...]:
        return tuple(gpu for gpu, slots in self.free.most_common() if slots > 0)
