"""Counting populated regions: against a set of tuples, numpy and torch, against the forward pass, and as a stream.

    python -m benchmarks.regions --data fashion_mnist --root data

Counted are the penultimate pre-activations of networks that were trained for a moment (CNN-6 of 128 units on 12,800
images, VGG-16 of 4,096 units on 25,600) on 60,000 images. They take half an hour on two cores; ``--keep FOLDER``
keeps and finds them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import interleaved_medians, table, write_section
from benchmarks.stream import BATCH, UNITS
from prs_lightning.data import load, to_unit_range
from prs_lightning.memory import keep_freed_memory
from prs_lightning.models import CNN6, VGG16
from prs_lightning.models.base import ImageClassifier
from prs_lightning.regions import RegionSet

COMMAND = "python -m benchmarks.regions"
TRAINED_ON = {CNN6: 12_800, VGG16: 25_600}
STREAM = 10_000_000


def pre_activations(network: ImageClassifier, name: str, root: str, keep: Path | None) -> Tensor:
    """Those (60000, units) of the network, trained for a moment."""
    file = None if keep is None else keep / f"{type(network).__name__}.pt"
    if file is not None and file.exists():
        return torch.load(file, weights_only=True)
    train, _ = load(name, root)
    images, labels = to_unit_range(train.images)[:60_000], train.labels[:60_000]
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=network.hparams["learning_rate"])
    for batch in torch.arange(TRAINED_ON[type(network)]).split(128):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
    print(f"{type(network).__name__}: the last loss is {loss.item():.2f}", flush=True)
    network.eval()
    with torch.no_grad():
        normalised = ((batch - network.mean) / network.std for batch in images.split(200))
        z = torch.cat([network.hidden(network.convolutions(batch)) for batch in normalised])
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(z, file)
    return z


def set_of_tuples(z: Tensor) -> int:
    """As scripts do it; wide patterns in blocks, whose lists of Python objects would not fit into memory at once."""
    rows = len(z) if z.shape[1] <= 128 else 1000
    return len({tuple(row) for block in z.split(rows) for row in (block > 0).tolist()})


def counting(z: Tensor) -> list[list[object]]:
    """One row a way: seconds and how many times as long as ours."""
    units = z.shape[1]
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: len(RegionSet.from_pre_activations(z)),
        "set of tuples": lambda: set_of_tuples(z),
        "np.unique(axis=0)": lambda: len(np.unique((z > 0).numpy(), axis=0)),
        "torch.unique(dim=0)": lambda: len(torch.unique(z > 0, dim=0)),
    }
    counts = {way() for way in ways.values()}
    ways["one look at each number: z.amax()"] = lambda: z.amax()
    if len(counts) > 1:
        raise AssertionError(f"the ways disagree at {units} units: {counts}")
    seconds = interleaved_medians(ways, repeats=9 if units <= 128 else 3)
    (count,) = counts
    ratios = {name: taken / seconds["ours"] for name, taken in seconds.items()}
    return [
        [units, count, name, f"{taken:.4f}", f"{ratios[name]:.{0 if ratios[name] >= 10 else 1}f}x"]
        for name, taken in seconds.items()
    ]


def share_of_forward(network: ImageClassifier, z: Tensor, images: int) -> list[object]:
    """Seconds of keying and counting 60,000 samples beside those of the forward pass, timed on fewer images."""
    inputs = torch.rand(images, 1, 32, 32)
    network.to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        seconds = interleaved_medians(
            {
                "forward": lambda: [network(batch) for batch in inputs.split(100)],
                "count": lambda: len(RegionSet.from_pre_activations(z)),
            },
            repeats=3,
        )
    forward = seconds["forward"] * len(z) / images
    name, share = type(network).__name__, seconds["count"] / forward
    return [name, z.shape[1], f"{forward:.1f}", f"{seconds['count']:.3f}", f"{share:.2%}"]


def streaming() -> str:
    """Table and plot of a stream that is counted in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stream", str(STREAM)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in output.splitlines()]
    longest = float(rows[-1][1])
    bars = [f"{int(n) / 1e6:5.1f} M {'#' * round(50 * float(s) / longest):<50} {float(s):6.1f} s" for n, s, _ in rows]
    return (
        f"{STREAM:,} samples of {UNITS} units, every pattern distinct, in batches of {BATCH:,}, counted after each "
        f"tenth: {longest:.1f} s in all, peak memory of the whole process {rows[-1][2]} MiB (with torch loaded).\n\n"
        "```text\n" + "\n".join(bars) + "\n```"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--root", default="data")
    parser.add_argument("--keep", type=Path, help="folder in which pre-activations are kept and found")
    arguments = parser.parse_args()
    # As train.py does; for all ways alike. Without it the system takes away what a set of tuples held, 2 GB of wide
    # ones, while the next way is timed.
    keep_freed_memory()
    rows, shares = [], []
    torch.manual_seed(0)
    for network, images in ((CNN6(channels=1, mean=[0.3]), 1000), (VGG16(channels=1, learning_rate=1e-4), 200)):
        z = pre_activations(network, arguments.data, arguments.root, arguments.keep)
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
