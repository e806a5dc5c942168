"""The audit of a network as a page, on the command line.

python -m prs_lightning.audit NETWORK --weights WEIGHTS --data DATA [--against OTHER --against-weights WEIGHTS]
python -m prs_lightning.audit runs/mnist5k-cnn6-bs20-seed0@8

NETWORK is package.module:factory, one of the study's (cnn6), RUN@EPOCH, or a checkpoint of a run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prs_lightning.errors import ConfigError, at_least, printable
from prs_lightning.runs.command import Parser, one_line_errors

if TYPE_CHECKING:
    import torch

    from prs_lightning.audit.battery import Progress

IMAGES, SUBSET, QUERIES = 500, 200, 100
"""Of a page on two cores in minutes: images, how many of the survivors the further attacks meet, queries of Square."""


def run(chosen: argparse.Namespace) -> None:
    """Audit, write the page, and say the verdict."""

    from prs_lightning.audit import audit
    from prs_lightning.audit.loading import load
    from prs_lightning.audit.page import write
    from prs_lightning.bars import quiet_lightning
    from prs_lightning.memory import keep_freed_memory

    for name in ("images", "subset", "steps", "queries", "batch_size"):
        if (value := getattr(chosen, name)) is not None:
            at_least(f"--{name.replace('_', '-')}", value, 1)
    if chosen.against is None and (chosen.against_weights or chosen.against_arguments):
        raise ConfigError("--against is not given: name the other network")
    quiet_lightning()
    keep_freed_memory()
    device = device_of(chosen.device)
    overrides = [*chosen.overrides, *([f"data.root='{chosen.data_root}'"] if chosen.data_root else [])]
    subject, test = load(chosen.network, chosen.weights, chosen.data, arguments=chosen.arguments, overrides=overrides)
    other = None
    if chosen.against is not None:
        data = chosen.data if chosen.against_weights else None
        other, _ = load(
            chosen.against, chosen.against_weights, data, arguments=chosen.against_arguments, overrides=overrides
        )
    images, labels = test.images(chosen.images, device)
    settings = {
        "epsilon": test.epsilon if chosen.epsilon is None else chosen.epsilon,
        "step_size": test.step_size if chosen.step_size is None else chosen.step_size,
        "steps": chosen.steps, "seed": chosen.seed, "subset": chosen.subset, "square_steps": chosen.queries,
        "batch_size": chosen.batch_size,
    }  # fmt: skip
    begun = time.perf_counter()
    with shown(sys.stderr.isatty()) as progress:
        found = audit(
            subject.network.to(device),
            images,
            labels,
            against=other.network.to(device) if other else None,
            progress=progress,
            **settings,
        )
    told = {**subject.provenance(), "data": test.name, "images": len(labels), **settings, "device": str(device)}
    told |= {f"against_{key}": value for key, value in (other.provenance() if other else {}).items()}
    told["seconds"] = round(time.perf_counter() - begun, 1)
    folder = chosen.output or subject.weights.parent
    page, record = write(found, told, folder, chosen.name or f"audit-{subject.weights.stem}")
    for text in str(found).splitlines():
        print(printable(text))
    print(printable(f"page: {page}"))
    print(printable(f"json: {record}"))


def device_of(name: str | None) -> torch.device:
    """The device of that name; None: the accelerator if there is one.

    Raises:
        ConfigError: no such device here.
    """
    import torch

    try:
        if name is None:
            return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"--device {name}: {str(error).splitlines()[0]}") from error


@contextmanager
def shown(bars: bool) -> Iterator[Progress]:
    """What the audit tells its progress to: a bar in a terminal, else a line for each attack, on the standard error."""
    if not bars:

        def line(name: str, done: int, total: int) -> None:
            if not done and not total:
                print(f"  {name} ...", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("audit", total=None)

        def show(name: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name:<28}", completed=done, total=total or None)

        yield show


def parser() -> argparse.ArgumentParser:
    """The arguments of the command line."""
    whole = Parser(
        prog="python -m prs_lightning.audit",
        description="Is this network robust, or can the attack not see? One page (HTML) and JSON, with one verdict.",
    )
    add = whole.add_argument
    add("network", help="package.module:factory, one of the study's as cnn6, RUN@EPOCH, or a checkpoint of a run")
    add("--weights", type=Path, help="its state dict, as torch.save keeps it; not for RUN@EPOCH")
    add("--arguments", nargs="*", default=[], metavar="KEY=VALUE", help="for the factory")
    add("--data", help="the data set, as in train.py data=...; default: that of the run")
    add("--data-root", help="folder of the data set's files")
    add("--overrides", nargs="*", default=[], help="others of train.py about data and model, as data.size=64")
    add("--against", metavar="OTHER", help="another network, whose adversarial images are tried")
    add("--against-weights", type=Path, help="its state dict; not for RUN@EPOCH")
    add("--against-arguments", nargs="*", default=[], metavar="KEY=VALUE", help="for its factory")
    add("--images", type=int, default=IMAGES, help="of the test set, balanced over the classes (%(default)s)")
    add("--subset", type=int, default=SUBSET, help="survivors that the further attacks meet (%(default)s)")
    add("--epsilon", type=float, help="in pixel units of [0, 1]; default: the data set's")
    add("--step-size", type=float, help="likewise")
    add("--steps", type=int, default=20, help="of PGD (%(default)s)")
    add("--queries", type=int, default=QUERIES, help="of Square per sample (%(default)s)")
    add("--seed", type=int, default=0, help="of random starts (%(default)s)")
    add("--batch-size", type=int, default=128, help="images at a time (%(default)s)")
    add("--device", help="cpu, cuda, ...; default: the accelerator if there is one")
    add("--output", type=Path, metavar="FOLDER", help="of the page; default: that of the weights")
    add("--name", help="of the page without its ending; default: audit- and the name of the weights")
    return whole


def main(arguments: Sequence[str] | None = None) -> int | None:
    """The command line of ``prs_lightning.audit``, and its exit code."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # for a network of the user's own
    return one_line_errors(lambda: run(parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
