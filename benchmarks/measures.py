"""What the measures of every epoch that tell robustness from masking add to the time that all measures take.

    python -m benchmarks.measures --data fashion_mnist --root data

``measure_s`` of an epoch with and without `Logits`, `WeightNorms`, `Collapse` and gradient noise, in turns, of networks
that were trained for a moment. Of the 60,000 + 10,000 images of a data set a share is measured, and of the 100 samples
of gradient noise the same share; only the norms do not grow with the images.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch

from benchmarks.harness import table, write_section
from prs_lightning.bars import quiet_lightning
from prs_lightning.callbacks import (
    Collapse,
    CosineSimilarity,
    Logits,
    Regions,
    Robustness,
    Scores,
    Sparsity,
    WeightNorms,
)
from prs_lightning.data import Split, balanced_subset, load, to_unit_range
from prs_lightning.models import CNN6, VGG16, ResNet18
from prs_lightning.models.base import ImageClassifier

COMMAND = "python -m benchmarks.measures"
SHARES = {CNN6: 20, ResNet18: 100, VGG16: 100}
"""One in so many of the images is measured."""
STEPS = 30


def trained(network: ImageClassifier, train: Split) -> ImageClassifier:
    """After a few steps: one that is not trained at all is fooled at once."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for rows in torch.randperm(len(train.labels))[: STEPS * 100].split(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(to_unit_range(train.images[rows])), train.labels[rows]).backward()
        optimizer.step()
    return network.eval()


def measure(network: ImageClassifier, train: Split, test: Split, noise: int | None, added: bool) -> float:
    """Seconds of one measuring pass with its attacks."""
    data: dict[str, Any] = {"train": train, "test": test}
    callbacks = [Scores(**data), Regions(), Sparsity(), CosineSimilarity()]
    callbacks += [Logits(), WeightNorms(), Collapse()] if added else []
    callbacks.append(Robustness(epsilon=0.1, step_size=2 / 255, gradient_noise=noise if added else None))
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, callbacks=callbacks, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, inference_mode=False,
    )  # fmt: skip
    # A loader that a validation loop demands, and nobody measures.
    one = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(to_unit_range(test.images[:1]), test.labels[:1]))
    trainer.validate(network, one, verbose=False)
    return callbacks[0].seconds


class Timed:
    """Adds up the seconds that some methods take, while they are replaced."""

    def __init__(self, *methods: tuple[Any, str]) -> None:
        self.methods, self.seconds = methods, 0.0

    def __enter__(self) -> Timed:
        self.before = [getattr(owner, name) for owner, name in self.methods]
        for (owner, name), method in zip(self.methods, self.before, strict=True):
            setattr(owner, name, self._timed(method))
        return self

    def __exit__(self, *_: object) -> None:
        for (owner, name), method in zip(self.methods, self.before, strict=True):
            setattr(owner, name, method)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                self.seconds += time.perf_counter() - start

        return run


def parts() -> dict[str, Timed]:
    """The additions, by what is timed of them."""
    from prs_lightning.attacks.schedule import _Shard

    return {
        "logits": Timed((Logits, "see_logits"), (Logits, "values")),
        "weight norms": Timed((WeightNorms, "start"), (WeightNorms, "values")),
        "collapse": Timed((Collapse, "see_tap"), (Collapse, "values")),
        "gradient noise": Timed((_Shard, "gradient_noise")),
    }


def compare(network: ImageClassifier, train: Split, test: Split, noise: int, repeats: int) -> dict[str, float]:
    """Median seconds without, with, and in each addition, of passes that take turns."""
    seconds: dict[str, list[float]] = {}
    for turn in range(repeats + 1):
        timed = parts()
        alone = measure(network, train, test, noise, added=False)
        for part in timed.values():
            part.__enter__()
        whole = measure(network, train, test, noise, added=True)
        for part in timed.values():
            part.__exit__()
        if turn:
            found = {"without": alone, "with": whole} | {name: part.seconds for name, part in timed.items()}
            for name, value in found.items():
                seconds.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--root", default="data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", nargs="*", default=["CNN6", "ResNet18", "VGG16"])
    options = parser.parse_args()
    quiet_lightning()
    warnings.filterwarnings("ignore")
    train, test = load(options.data, options.root)
    rows = []
    for make, share in SHARES.items():
        if make.__name__ not in options.networks:
            continue
        network = trained(make(channels=train.images.shape[1]), train)
        subset = partial(lambda split, share: split.select(balanced_subset(split.labels, len(split.labels) // share)))
        few = subset(train, share), subset(test, share)
        found = compare(network, *few, max(1, 100 // share), options.repeats)
        added = sum(found[name] for name in parts())
        whole = (found["with"] - found["weight norms"]) * share + found["weight norms"]
        at_whole = (added - found["weight norms"]) * share + found["weight norms"]
        rows.append([
            make.__name__, f"{len(few[0].labels)} + {len(few[1].labels)}",
            f"{found['without']:.2f} s", f"{found['with']:.2f} s",
            *(f"{found[name]:.3f} s" for name in parts()),
            f"{added / (found['with'] - added):.1%}", f"{at_whole / (whole - at_whole):.1%}",
        ])  # fmt: skip
        print(rows[-1], flush=True)
    header = ["network", "images", "without", "with", *parts(), "added", "added at 60,000 + 10,000"]
    write_section(
        "Measures of every epoch",
        f"{table(header, rows)}\n\nMedians of {options.repeats} measuring passes with PGD-20 and its audit, with and "
        "without in turns. The target is 5%: of what the pass takes without, the sum of the seconds inside the "
        "additions, which a noisy machine disturbs less than the difference of two passes. The last column is the "
        "whole data set: all but the norms grow with it.",
        command=f"{COMMAND} --data {options.data} --root {options.root}",
        packages=("torch", "lightning"),
    )


if __name__ == "__main__":
    main()
