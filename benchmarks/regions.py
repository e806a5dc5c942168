"""Counting populated regions: against a set of tuples, numpy and torch, against the forward pass, and as a stream.

    python -m benchmarks.regions --data fashion_mnist --root data

Features are the pre-activations of trained networks on 60,000 images: CNN-6 (128 units, trained on 12,800 images),
and one hidden layer of 4,096 units (trained on 60,000). They take some minutes; ``--keep FOLDER`` reuses them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import interleaved_medians, table, write_section
from prs_lightning.data import load, to_unit_range
from prs_lightning.models import CNN6, VGG16
from prs_lightning.regions import RegionSet

COMMAND = "python -m benchmarks.regions"
STREAM = 10_000_000
STREAM_UNITS = 512


def pre_activations(units: int, name: str, root: str, keep: Path | None) -> Tensor:
    """Features (60000, units) of a network trained for a moment."""
    file = None if keep is None else keep / f"features{units}.pt"
    if file is not None and file.exists():
        return torch.load(file, weights_only=True)
    train, _ = load(name, root)
    images, labels = to_unit_range(train.images)[:60_000], train.labels[:60_000]
    torch.manual_seed(0)
    if units == 128:
        network: nn.Module = CNN6(channels=images.shape[1], mean=[0.3])
        features: Callable[[Tensor], Tensor] = network.features  # type: ignore[assignment]
        seen = 12_800
    else:
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), units))
        network, features, seen = nn.Sequential(hidden, nn.ReLU(), nn.Linear(units, 10)), hidden, len(images)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for start in range(0, seen, 128):
        optimizer.zero_grad()
        batch = slice(start, start + 128)
        nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        z = torch.cat([features(batch) for batch in images.split(200)])
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(z, file)
    return z


def set_of_tuples(z: Tensor) -> int:
    """As scripts do it; in blocks, so that the lists of Python objects do not fill the memory."""
    return len({tuple(row) for block in z.split(1000) for row in (block > 0).tolist()})


def counting(z: Tensor) -> list[list[object]]:
    """One row a way: seconds and how many times as long as ours."""
    units = z.shape[1]
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: len(RegionSet.from_features(z)),
        "set of tuples": lambda: set_of_tuples(z),
        "np.unique(axis=0)": lambda: len(np.unique((z > 0).numpy(), axis=0)),
        "torch.unique(dim=0)": lambda: len(torch.unique(z > 0, dim=0)),
    }
    counts = {way() for way in ways.values()}
    if len(counts) > 1:
        raise AssertionError(f"the ways disagree at {units} units: {counts}")
    seconds = interleaved_medians(ways, repeats=5 if units <= 128 else 1)
    (count,) = counts
    return [
        [units, count, name, f"{taken:.4f}", "" if name == "ours" else f"{taken / seconds['ours']:.0f}x"]
        for name, taken in seconds.items()
    ]


def share_of_forward(network: nn.Module, z: Tensor, images: int) -> list[object]:
    """Seconds of keying and counting 60,000 samples beside those of the forward pass, timed on fewer images."""
    inputs = torch.rand(images, 3, 32, 32)
    network.eval()
    with torch.no_grad():
        seconds = interleaved_medians(
            {
                "forward": lambda: [network(batch) for batch in inputs.split(100)],
                "count": lambda: len(RegionSet.from_features(z)),
            },
            repeats=3,
        )
    forward = seconds["forward"] * len(z) / images
    name, share = type(network).__name__, seconds["count"] / forward
    return [name, z.shape[1], f"{forward:.1f}", f"{seconds['count']:.3f}", f"{share:.2%}"]


def stream(samples: int) -> None:
    """Print, ten times on the way, samples, seconds inside the set and peak MiB of this process."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(10_000, STREAM_UNITS, generator=generator)
    regions, seconds = RegionSet(), 0.0
    for done in range(10_000, samples + 1, 10_000):
        # Flipping the signs of random columns makes new patterns at a fraction of the price of new random numbers.
        z = base * (torch.randint(0, 2, (STREAM_UNITS,), generator=generator) * 2 - 1)
        start = time.perf_counter()
        regions.add(z)
        if done % (samples // 10) == 0:
            count = len(regions)
            assert count == done, f"{done - count} patterns collided"
        seconds += time.perf_counter() - start
        if done % (samples // 10) == 0:
            print(done, f"{seconds:.3f}", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)


def streaming() -> str:
    """Table and plot of a stream that is counted in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.regions", "--stream", str(STREAM)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in output.splitlines()]
    longest = float(rows[-1][1])
    bars = [f"{int(n) / 1e6:5.1f} M {'#' * round(50 * float(s) / longest):<50} {float(s):6.1f} s" for n, s, _ in rows]
    return (
        f"{STREAM:,} samples of {STREAM_UNITS} units, every pattern distinct, in batches of 10,000, counted after each "
        f"tenth: {longest:.1f} s in all, peak memory of the whole process {rows[-1][2]} MiB (with torch loaded).\n\n"
        "```text\n" + "\n".join(bars) + "\n```"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--root", default="data")
    parser.add_argument("--keep", type=Path, help="folder in which features are kept and found")
    parser.add_argument("--stream", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stream:
        stream(arguments.stream)
        return
    rows, shares = [], []
    for units, network, images in ((128, CNN6(channels=3), 1000), (4096, VGG16(channels=3), 200)):
        z = pre_activations(units, arguments.data, arguments.root, arguments.keep)
        rows += counting(z)
        shares.append(share_of_forward(network, z, images))
    body = [
        "Populated regions of 60,000 samples, from pre-activations to the count; medians of interleaved runs.",
        table(["units", "regions", "way", "seconds", "times ours"], rows),
        "Keying and counting 60,000 samples beside the forward pass of such a network (timed on fewer images).",
        table(["network", "units", "forward s", "count s", "share"], shares),
        streaming(),
    ]
    write_section("Populated regions", "\n\n".join(body), command=COMMAND, packages=("torch", "numpy"))


if __name__ == "__main__":
    main()
