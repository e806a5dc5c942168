"""What became of the runs of a folder: ``python -m prs_lightning.runs status FOLDER`` and ``sync FOLDER``.

A sweep notes the names of its runs in ``sweep.json``, so that the status can tell what was never started.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, Status, find_runs, write_text
from prs_lightning.runs.locks import held

ORDER = (Status.RUNNING, Status.FAILED, Status.INTERRUPTED, Status.LEFT, Status.FINISHED)
SWEEP_FILE = "sweep.json"
SWEEP_LOCK = ".sweep.lock"


def note_runs(runs: Iterable[RunDirectory]) -> None:
    """Add the runs to ``sweep.json`` of their folders."""
    folders: dict[Path, list[str]] = {}
    for run in runs:
        folders.setdefault(run.path.parent, []).append(run.path.name)
    for folder, names in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / SWEEP_LOCK, wait=True):  # two sweeps of one folder may start at once
            all_names = list(dict.fromkeys([*noted_runs(folder), *names]))
            write_text(folder / SWEEP_FILE, json.dumps({"runs": all_names}, indent=2) + "\n")


def noted_runs(folder: Path) -> list[str]:
    """Names of the runs that sweeps in ``folder`` were to make."""
    file = folder / SWEEP_FILE
    return json.loads(file.read_text())["runs"] if file.exists() else []


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


def offline_folders(folder: Path) -> list[Path]:
    """The offline W&B folders of the finished runs under ``folder``, in the order in which they were written."""
    runs = [run for run in find_runs(folder) if run.status == Status.FINISHED]
    return [path for run in runs for path in sorted(run.path.glob("wandb/offline-run-*"))]


def sync(folder: Path) -> int:
    """Upload what W&B kept offline of the finished runs; a resumed run's parts arrive in order as one W&B run.

    Returns:
        The exit code of ``wandb sync``; 0 if there is nothing to upload.
    """
    if not (folders := offline_folders(folder)):
        print(f"{folder} holds no finished run with offline W&B data")
        return 0
    # wandb itself passes over what was uploaded before.
    return subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, folders)], check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int | None:
    """The command line of ``prs_lightning.runs``, and its exit code."""
    parser = argparse.ArgumentParser(prog="python -m prs_lightning.runs")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, task, text in (
        ("status", show_status, "what is done, running, failed and left, with reasons"),
        ("sync", sync, "upload the finished runs that W&B kept offline"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", type=Path)
        command.set_defaults(task=task)
    chosen = parser.parse_args(arguments)
    try:
        return chosen.task(chosen.folder)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
