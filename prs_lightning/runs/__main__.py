"""What became of the runs of a folder, on the command line.

python -m prs_lightning.runs status FOLDER    what is done, running, failed and left, with reasons
python -m prs_lightning.runs sync FOLDER      upload the finished runs that W&B kept offline
python -m prs_lightning.runs import WEIGHTS --network package.module:factory --data cifar10 --epoch 300 --into FOLDER
                                              a network trained elsewhere becomes a run, with all measures
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prs_lightning.errors import RunError, in_one_line, printable
from prs_lightning.runs import RunDirectory, Status
from prs_lightning.runs.command import Parser, one_line_errors
from prs_lightning.runs.finding import noted_runs, rows_text, survey
from prs_lightning.runs.rows import epochs_in

ORDER = (Status.UNREADABLE, Status.RUNNING, Status.FAILED, Status.INTERRUPTED, Status.LEFT, Status.FINISHED)
AT_ONCE = 500
"""How many folders one command of W&B is given."""


def status_of(folder: Path) -> tuple[list[tuple[Status, str, str]], list[str]]:
    """(status, name, reason) of every run under ``folder``, and of those that a sweep there noted but never started;
    and what else is to be told, a line each.

    Raises:
        RunError: there is no such folder.
    """
    found = survey(folder)
    runs, messages = {run.path: run for run in found.runs}, [*found.messages]
    copies = {run.path for run in found.copies}
    for sweep in found.sweeps:
        try:
            noted = [sweep / name for name in noted_runs(sweep)]
        except RunError as error:
            messages.append(in_one_line(error))
            continue
        # The note of a folder that was copied says nothing new.
        if not copies.intersection(noted) or runs.keys() & {*noted}:
            runs |= {path: RunDirectory(path) for path in noted if path not in runs.keys() | copies}
    lines = []
    for path, run in sorted(runs.items()):
        status, why = _state(run)
        lines.append((status, str(path.relative_to(folder)), why))
    return sorted(lines, key=lambda line: ORDER.index(line[0])), messages


def _state(run: RunDirectory) -> tuple[Status, str]:
    """What a run is, and why."""
    try:
        record, status = run.record(), run.status
    except RunError as error:
        return Status.UNREADABLE, in_one_line(str(error).replace(f"{run.path}/", ""))
    if status is None:
        there = os.path.lexists(run.metrics_file)
        return (Status.UNREADABLE, "run.json is missing") if there else (Status.LEFT, "not started")
    if status == Status.RUNNING:
        epoch = epochs_in(rows_text(run)) + 1
        return status, f"process {record.get('pid')} on {record.get('host')}, epoch {epoch}"
    why = record.get("reason") or ""
    if status == Status.INTERRUPTED and not why:
        why = f"its process {record.get('pid')} is gone without a word; the same command goes on"
    return status, in_one_line(why)


def show_status(folder: Path) -> None:
    """Print a table of the runs that are not finished, the counts of all, and what is to be told of the folder."""
    lines, messages = status_of(folder)
    console = Console()
    table = Table("status", "run", "reason")
    for line in lines:
        if line[0] != Status.FINISHED:
            table.add_row(*(Text(printable(cell), overflow="fold") for cell in line))
    if table.rows:
        console.print(table)
    counts = Counter(status for status, _, _ in lines)
    shown = [Status.FINISHED, *ORDER[:-1]]
    shown = [name for name in shown if counts[name] or name != Status.UNREADABLE]
    console.print(", ".join(f"{counts[name]} {name}" for name in shown), soft_wrap=True)
    for message in messages:
        console.print(Text(printable(message)), soft_wrap=True)


def sync(folder: Path) -> int:
    """Upload what W&B kept offline of the finished runs, and give the exit code; 0 if there is nothing to upload.

    Raises:
        RunError: there is no such folder, or no W&B.
    """
    found = survey(folder)
    messages, finished = [*found.messages], []
    for run in found.runs:
        status, why = _state(run)
        finished += [run.path] if status == Status.FINISHED else []
        messages += [f"{run.path.relative_to(folder)}: {why}"] if status == Status.UNREADABLE else []
    for message in messages:
        print(printable(message), flush=True)
    folders = [str(part) for path in finished for part in sorted(path.absolute().glob("wandb/offline-run-*"))]
    if not folders:
        print(printable(f"{folder} holds no finished run with offline W&B data"))
        return 0
    if importlib.util.find_spec("wandb") is None:
        raise RunError("wandb is not installed, which uploads runs: pip install wandb")
    # wandb itself passes over what was uploaded before. A command line does not take any number of words.
    parts = [folders[start : start + AT_ONCE] for start in range(0, len(folders), AT_ONCE)]
    codes = [subprocess.run([sys.executable, "-m", "wandb", "sync", *part], check=False).returncode for part in parts]
    code = next((code for code in codes if code), 0)
    return 128 - code if code < 0 else code  # killed by a signal


def import_run(chosen: argparse.Namespace) -> None:
    """Measure a network that was trained elsewhere, and say where its run directory is."""
    from prs_lightning.runs.importing import import_network  # torch

    given = {"mean": chosen.mean, "std": chosen.std}
    overrides = [f"model.{key}=[{','.join(map(str, values))}]" for key, values in given.items() if values]
    overrides += [f"data.root='{chosen.data_root}'"] if chosen.data_root else []
    limits = {"train_limit": chosen.train_limit, "test_limit": chosen.test_limit}
    overrides += [f"data.{key}={value}" for key, value in limits.items() if value is not None]
    names = ("weights", "network", "data", "epoch", "into", "name", "batch_size", "seed", "arguments")
    run = import_network(**{name: getattr(chosen, name) for name in names}, overrides=[*overrides, *chosen.overrides])
    (row,) = run.rows()
    normalised = {key: run.config()["model"][key] or run.record()["data"][key] for key in ("mean", "std")}
    for name, value in row.items():
        if "/" in name:
            print(f"{name:<28} {float(value):.6g}")
    told = ", ".join(f"{key}={value}" for key, value in normalised.items())
    print(f"normalised with {told}: is test/accuracy what you know of this network?")
    print(printable(f"run: {run.path}"))


def parser() -> argparse.ArgumentParser:
    """The arguments of the command line."""
    whole = Parser(prog="python -m prs_lightning.runs")
    commands = whole.add_subparsers(dest="command", required=True)
    for name, task, text in (
        ("status", show_status, "what is done, running, failed and left, with reasons"),
        ("sync", sync, "upload the finished runs that W&B kept offline"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", type=Path)
        command.set_defaults(task=lambda chosen, task=task: task(chosen.folder))
    command = commands.add_parser("import", help="a network trained elsewhere becomes a run, with all measures")
    command.set_defaults(task=import_run)
    add = command.add_argument
    add("weights", type=Path, help="its state dict, as torch.save keeps it")
    add("--network", required=True, help="package.module:factory, a class or function that makes it")
    add("--arguments", nargs="*", default=[], metavar="KEY=VALUE", help="for the factory")
    add("--data", required=True, help="the data set, as in train.py data=...")
    add("--epoch", type=int, required=True, help="how many epochs it was trained for")
    add("--into", type=Path, required=True, help="folder of runs")
    add("--name", help="of the run directory; default: from data, network and file")
    add("--batch-size", type=int, help="that it was trained with, if known")
    add("--seed", type=int, help="that it was trained with, if known")
    add("--mean", type=float, nargs="+", help="per channel, that it normalises with; default: the data set's")
    add("--std", type=float, nargs="+", help="per channel; for a network that takes images in [0, 1]: --mean 0 --std 1")
    add("--data-root", help="folder of the data set's files")
    add("--train-limit", type=int, help="class-balanced subset, to try")
    add("--test-limit", type=int, help="class-balanced subset, to try")
    add("--overrides", nargs="*", default=[], help="any others of train.py, for example trainer.accelerator=cpu")
    return whole


def main(arguments: Sequence[str] | None = None) -> int | None:
    """The command line of ``prs_lightning.runs``, and its exit code."""

    def task() -> int | None:
        chosen = parser().parse_args(arguments)
        return chosen.task(chosen)

    return one_line_errors(task)


if __name__ == "__main__":
    sys.exit(main())
