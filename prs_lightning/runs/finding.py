"""Finding the runs of a folder: also behind links, each once, and of a run and its copies one. Needs no torch.

A run's identity is the ``wandb_id`` of its run.json, made once, which a copied folder keeps.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prs_lightning.errors import RunError, in_one_line
from prs_lightning.runs.directory import SWEEP_LOCK, RunDirectory, Status
from prs_lightning.runs.locking import held
from prs_lightning.runs.reading import mapping_of
from prs_lightning.runs.rows import epochs_in, metrics_text
from prs_lightning.runs.writing import set_aside, sweep_parts, write_text

SWEEP_FILE = "sweep.json"
OTHERS = ("checkpoints", "wandb")
"""Folders in which no runs lie, but many files."""


@dataclass(frozen=True)
class Found:
    """The runs of a folder.

    Attributes:
        runs: each once, sorted by path.
        copies: those that are not among them, as a copy of theirs is.
        sweeps: the folders that hold a ``sweep.json``.
        messages: what was not followed or not counted, a line each.
    """

    runs: tuple[RunDirectory, ...]
    copies: tuple[RunDirectory, ...]
    sweeps: tuple[Path, ...]
    messages: tuple[str, ...]


def find_runs(folder: str | Path) -> list[RunDirectory]:
    """Every run under ``folder`` once, sorted by path."""
    return list(survey(folder).runs)


def survey(folder: str | Path) -> Found:
    """Look through ``folder``: links to folders are followed, and what they lead to is found once.

    A run directory holds ``run.json``; one that holds ``metrics.csv`` and lies in no other run has lost it.

    Raises:
        RunError: there is no such folder.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):  # which no name makes raise
        raise RunError(f"{folder} is no folder: expected one that holds runs, such as runs/sweep")
    told: list[str] = []
    paths, sweeps = [], []
    for path, names in _folders(folder, told):
        if {"run.json", "metrics.csv"} & names:
            paths.append(path)
        if SWEEP_FILE in names:
            sweeps.append(path)
    runs, copies = _counted_once(folder, [RunDirectory(path) for path in sorted(paths)], told)
    return Found(tuple(runs), tuple(copies), tuple(sorted(sweeps)), tuple(told))


def _folders(folder: Path, told: list[str]) -> Iterator[tuple[Path, set[str]]]:
    """Every folder below ``folder`` once, with the names in it; what is reached without a link goes first.

    Of what lies in a run only the runs are given, not loggers' folders, which may hold a ``metrics.csv`` too.
    """
    seen: set[tuple[int, int]] = set()
    starts = [(folder, False)]
    for start, linked in starts:  # links that are found are added
        below = [(start, False)]
        if linked and (start.parent.resolve().is_relative_to(real := start.resolve())):
            if _place(real) not in seen:
                told.append(f"{start.relative_to(folder)} links to a folder that it lies in: not followed")
            continue
        while below:
            here, inside = below.pop()
            try:
                if (place := _place(here)) in seen:
                    continue
                seen.add(place)
                entries = sorted(os.scandir(here), key=lambda entry: entry.name)
            except OSError as error:
                told.append(f"{here.relative_to(folder)} cannot be read ({error.strerror}): runs in it are not counted")
                continue
            names = {entry.name for entry in entries}
            is_run = "run.json" in names or ("metrics.csv" in names and not inside)
            yield here, names if is_run or not inside else names - {"metrics.csv"}
            for entry in entries:
                if entry.name in OTHERS:
                    continue
                if not entry.is_symlink():
                    if entry.is_dir():
                        below.append((here / entry.name, inside or is_run))
                elif _is_folder(entry):
                    starts.append((here / entry.name, True))
                elif not (inside or is_run or os.path.exists(entry.path)):
                    told.append(f"{(here / entry.name).relative_to(folder)} is a link that leads nowhere")


def _place(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _counted_once(
    folder: Path, runs: Sequence[RunDirectory], told: list[str]
) -> tuple[list[RunDirectory], list[RunDirectory]]:
    """The runs and their copies apart. Of one identity that with most rows counts, finished before others, then the
    one of the shortest path."""
    alike: dict[str, list[RunDirectory]] = defaultdict(list)
    for run, identity in zip(runs, _identities(runs), strict=True):
        alike[identity].append(run)
    counted, copies = [], []
    by_parent: dict[Path, list[str]] = defaultdict(list)
    for group in alike.values():
        first, *others = sorted(group, key=_precedence) if len(group) > 1 else group
        counted.append(first)
        copies += others
        for copy in others:
            name, original = copy.path.relative_to(folder), first.path.relative_to(folder)
            here, there = rows_text(copy), rows_text(first)
            if here == there:
                by_parent[name.parent].append(f"{name.name} (of {original})")
            elif (more := epochs_in(there)) > (fewer := epochs_in(here)):
                told.append(f"{name} is a copy of {original}, which was trained on: its {more} rows count, not {fewer}")
            else:
                told.append(f"{name} and {original} are copies of one run with other rows: {original} counts")
    for parent, names in by_parent.items():
        where, number = folder.name if parent == Path() else parent, len(names)
        some = f"{number} copies of runs, counted" if number > 1 else "a copy of a run, counted"
        rest = f" and {number - 4} more" if number > 4 else ""
        told.append(f"{where} holds {some} once: {', '.join(names[:4])}{rest}")
    return sorted(counted, key=lambda run: run.path), copies


def _precedence(run: RunDirectory) -> tuple[int, bool, int, str]:
    try:
        finished = run.status == Status.FINISHED
    except RunError:
        finished = False
    return -epochs_in(rows_text(run)), not finished, len(run.path.parts), str(run.path)


def _identities(runs: Sequence[RunDirectory]) -> Iterator[str]:
    """What a run and its copies share; where run.json does not say it, config and rows do, if they are the same."""
    known = [_identity(run) for run in runs]
    by_content: dict[str, str] = {}
    if None in known:
        by_content = {_content(run): each for run, each in zip(runs, known, strict=True) if each is not None}
    for run, identity in zip(runs, known, strict=True):
        if identity is None:
            content = _content(run)
            identity = by_content.get(content, content)
        yield identity


def _identity(run: RunDirectory) -> str | None:
    with suppress(RunError):
        return run.identity
    return None


def _content(run: RunDirectory) -> str:
    """A digest of config and rows; of a run without rows its path."""
    if not epochs_in(text := rows_text(run)):
        return str(run.path)
    with suppress(OSError):
        return hashlib.sha256(run.config_file.read_bytes() + text.encode()).hexdigest()
    return str(run.path)


def rows_text(run: RunDirectory) -> str:
    """The rows that count, as text: the copy, else what ``metrics.csv`` holds; empty if neither can be read."""
    return run.copy_of_rows() or metrics_text(run.metrics_file) or ""


def noted_runs(folder: Path) -> list[str]:
    """Names of the runs that sweeps in ``folder`` were to make.

    Raises:
        RunError: ``sweep.json`` is damaged.
    """
    file = folder / SWEEP_FILE
    if not (noted := mapping_of(file, json.loads)):
        return []
    names = noted.get("runs")
    if not isinstance(names, list) or not all(map(_is_a_name, names)):
        raise RunError(f"{file} holds no list of names under runs: the next sweep there writes it anew")
    return names


def _is_a_name(name: object) -> bool:
    """Whether it can be the name of a directory, and of nothing outside its folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", os.sep, "\0"} & {*name}


def note_runs(runs: Iterable[RunDirectory]) -> list[str]:
    """Add the runs that a sweep is to make to ``sweep.json`` of their folders.

    One that is damaged is kept under another name, and written anew with the runs that are there. Gives what is to be
    told of that, a line each.
    """
    told = []
    by_folder: dict[Path, list[str]] = defaultdict(list)
    for run in runs:
        by_folder[run.path.parent].append(run.path.name)
    for folder, names in by_folder.items():
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / SWEEP_FILE
        with held(folder / SWEEP_LOCK, wait=True):  # two sweeps of one folder may start at once
            sweep_parts(folder, r"sweep\.json")
            try:
                before = noted_runs(folder)
            except RunError as error:
                before = [run.path.name for run in find_runs(folder) if run.path.parent == folder]
                told.append(f"{in_one_line(error)}; written anew, what was there is {set_aside(file)}")
            write_text(file, json.dumps({"runs": list(dict.fromkeys([*before, *names]))}, indent=2) + "\n")
    return told
