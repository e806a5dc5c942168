"""A stream of distinct sign patterns into one set, in a process that loads nothing else: seconds and peak memory.

python -m benchmarks.stream 10000000
"""

from __future__ import annotations

import sys
import time

import torch

from benchmarks.harness import peak_mebibytes
from prs_lightning.regions import RegionSet

UNITS = 512
BATCH = 2_000


def main(samples: int) -> None:
    """Print, ten times on the way: samples, seconds inside the set, peak MiB of this process."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(BATCH, UNITS, generator=generator)
    regions, seconds = RegionSet(), 0.0
    for done in range(BATCH, samples + 1, BATCH):
        # Flipping the signs of random columns makes new patterns at a fraction of the price of new random numbers.
        z = base * (torch.randint(0, 2, (UNITS,), generator=generator) * 2 - 1)
        start = time.perf_counter()
        regions.add(z)
        if done % (samples // 10) == 0:
            count = len(regions)
            if count != done:
                raise AssertionError(f"{done - count} patterns collided")
        seconds += time.perf_counter() - start
        if done % (samples // 10) == 0:
            print(done, f"{seconds:.3f}", peak_mebibytes(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
