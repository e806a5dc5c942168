"""What became of the runs of a folder, on the command line.

python -m prs_lightning.runs status FOLDER    what is done, running, failed and left, with reasons
python -m prs_lightning.runs sync FOLDER      upload the finished runs that W&B kept offline
python -m prs_lightning.runs import WEIGHTS --network package.module:factory --data cifar10 --epoch 300 --into FOLDER
                                              a network trained elsewhere becomes a run, with all measures
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prs_lightning.errors import ConfigError, RunError
from prs_lightning.outputs import refused
from prs_lightning.runs import RunDirectory, Status, find_runs
from prs_lightning.runs.directory import SWEEP_FILE, noted_runs
from prs_lightning.signals import closing_line

ORDER = (Status.RUNNING, Status.FAILED, Status.INTERRUPTED, Status.LEFT, Status.FINISHED)


def status_of(folder: Path) -> list[tuple[Status, str, str]]:
    """(status, name, reason) of every run under ``folder``, and of those that a sweep there noted but never started.

    Raises:
        RunError: there is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder: expected one that holds runs, such as runs/sweep")
    noted = [RunDirectory(file.parent / name) for file in folder.rglob(SWEEP_FILE) for name in noted_runs(file.parent)]
    runs = {run.path: run for run in [*noted, *find_runs(folder)]}
    lines = []
    for path, run in sorted(runs.items()):
        record, status = run.record(), run.status or Status.LEFT
        why = "not started" if status == Status.LEFT else record.get("reason") or ""
        if status == Status.RUNNING:
            why = f"process {record.get('pid')} on {record.get('host')}, epoch {len(run.rows()) + 1}"
        elif status == Status.INTERRUPTED and not why:
            why = f"its process {record.get('pid')} is gone without a word; the same command goes on"
        lines.append((status, str(path.relative_to(folder)), why))
    return sorted(lines, key=lambda line: ORDER.index(line[0]))


def show_status(folder: Path) -> None:
    """Print a table of the runs that are not finished, and the counts of all."""
    lines = status_of(folder)
    console = Console()
    table = Table("status", "run", "reason")
    for line in lines:
        if line[0] != Status.FINISHED:
            table.add_row(*(Text(cell, overflow="fold") for cell in line))
    if table.rows:
        console.print(table)
    counts = Counter(status for status, _, _ in lines)
    console.print(", ".join(f"{counts[name]} {name}" for name in (Status.FINISHED, *ORDER[:-1])), soft_wrap=True)


def sync(folder: Path) -> int:
    """Upload what W&B kept offline of the finished runs, and give the exit code; 0 if there is nothing to upload."""
    runs = [run.path for run in find_runs(folder) if run.status == Status.FINISHED]
    folders = [str(part) for run in runs for part in sorted(run.glob("wandb/offline-run-*"))]  # as they were written
    if not folders:
        print(f"{folder} holds no finished run with offline W&B data")
        return 0
    # wandb itself passes over what was uploaded before.
    code = subprocess.run([sys.executable, "-m", "wandb", "sync", *folders], check=False).returncode
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
    print(f"run: {run.path}")


def parser() -> argparse.ArgumentParser:
    """The arguments of the command line."""
    whole = argparse.ArgumentParser(prog="python -m prs_lightning.runs")
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
    chosen = parser().parse_args(arguments)
    try:
        with closing_line():
            code = chosen.task(chosen)
            sys.stdout.flush()
            if problem := refused():
                raise RunError(f"cannot write to the standard output: {problem.strerror}")
            return code
    except (RunError, ConfigError, HydraException) as error:
        print(f"error: {' '.join(str(error).partition('Config search path')[0].split())}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
