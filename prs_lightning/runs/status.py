"""``python -m prs_lightning.runs status FOLDER`` and ``sync FOLDER``."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, find_runs
from prs_lightning.sweep.plan import SWEEP_FILE, noted_jobs

LEFT = "left"
ORDER = ("running", "failed", "interrupted", LEFT, "finished")


def status_of(folder: Path) -> list[tuple[str, str, str]]:
    """(status, name, reason) of every run under ``folder``, and of those that a sweep there noted but never started.

    Raises:
        RunError: there is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder: expected one that holds runs, such as runs/sweep")
    found = {run.path: run for run in find_runs(folder)}
    for file in folder.rglob(SWEEP_FILE):
        for name in noted_jobs(file.parent):
            found.setdefault(file.parent / name, RunDirectory(file.parent / name))
    lines = [(run.status or LEFT, str(path.relative_to(folder)), _reason(run)) for path, run in sorted(found.items())]
    return sorted(lines, key=lambda line: ORDER.index(line[0]))


def _reason(run: RunDirectory) -> str:
    status, record = run.status, run.record()
    if status == "interrupted" and not record.get("reason"):
        return f"its process {record.get('pid')} is gone without a word; the same command goes on"
    if status == "running":
        return f"process {record.get('pid')} on {record.get('host')}, epoch {len(run.rows()) + 1}"
    return str(record.get("reason") or "") if status else "not started"


def show_status(folder: Path) -> None:
    """Print a table of the runs that are not finished, and the counts of all."""
    lines = status_of(folder)
    console = Console()
    if any(status != "finished" for status, _, _ in lines):
        table = Table("status", "run", "reason")
        for line in lines:
            if line[0] != "finished":
                table.add_row(*(Text(cell, overflow="fold") for cell in line))
        console.print(table)
    counts = Counter(status for status, _, _ in lines)
    console.print(", ".join(f"{counts[name]} {name}" for name in ("finished", *ORDER[:-1])), soft_wrap=True)


def offline_folders(folder: Path) -> list[Path]:
    """The offline W&B folders of the finished runs under ``folder``, in the order in which they were written."""
    runs = [run for run in find_runs(folder) if run.status == "finished"]
    return [path for run in runs for path in sorted(run.path.glob("wandb/offline-run-*"))]


def sync(folder: Path) -> int:
    """Upload what W&B kept offline of the finished runs; a resumed run's parts arrive in order as one W&B run.

    Returns:
        The exit code of ``wandb sync``; 0 if there is nothing to upload.
    """
    folders = offline_folders(folder)
    if not folders:
        print(f"{folder} holds no finished run with offline W&B data")
        return 0
    # wandb itself passes over what was uploaded before.
    return subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, folders)], check=False).returncode


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of ``prs_lightning.runs``."""
    parser = argparse.ArgumentParser(prog="python -m prs_lightning.runs")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "status": "what is done, running, failed and left, with reasons",
        "sync": "upload the finished runs that W&B kept offline",
    }.items():
        commands.add_parser(name, help=text).add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "status":
            show_status(chosen.folder)
        else:
            sys.exit(sync(chosen.folder))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
