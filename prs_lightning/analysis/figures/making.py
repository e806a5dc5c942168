"""All figures in the paper's order: made, saved as PNG, PDF and CSV, and kept until what they show changes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prs_lightning.analysis import relations
from prs_lightning.analysis.figures.registry import FIGURES, NUMBERS, Entry, Figure, Sizes
from prs_lightning.analysis.figures.style import paper_style
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.runs import write_atomically, write_text

if TYPE_CHECKING:  # torch is loaded only when a figure needs it
    from prs_lightning.analysis.networks import NetworkPair

FORMATS = ("png", "pdf", "csv")


@dataclass(frozen=True)
class Made:
    """A figure on the disk, or the reason why there is none.

    Attributes:
        png, pdf, csv: its files; None where ``error`` is set.
        error: one line.
        kept: it was there already, made from the same data by the same code.
        seconds: that it took.
    """

    number: str
    title: str
    caption: str
    png: Path | None
    pdf: Path | None
    csv: Path | None
    error: str | None
    kept: bool
    seconds: float


def make_all(
    rows: pd.DataFrame,
    models: pd.DataFrame,
    networks: Callable[[], NetworkPair] | None = None,
    *,
    folder: Path,
    key: str | None = None,
    why: str | None = None,
    force: bool = False,
    only: Sequence[str] | None = None,
    sizes: Sizes | Mapping[str, int] | None = None,
    progress: Callable[[str], object] = print,
) -> list[Made]:
    """Make every figure that is not there yet, each in turn; one that fails does not stop the others.

    Args:
        rows: ``RunTable.rows``, one per run and epoch.
        models: ``Selection.models``.
        networks: gives the pair of networks; called once, and only if one of their figures must be made.
        folder: gets ``fig-<number>.png``, ``.pdf``, ``.csv`` and ``.json`` (caption, and what it was made from).
        key: changes whenever the networks do.
        why: there are no networks.
        force: make them all anew.
        only: numbers of the figures to make; None for all.
        sizes: of the networks' figures. What is not given is the paper's with an accelerator, and without one that of
            ``Sizes.for_cpu()``.
        progress: is given one line per figure, and one at the start of each that takes long.

    Raises:
        ConfigError: a number in ``only`` that is no figure.
    """
    if unknown := sorted(set(only or ()) - set(NUMBERS)):
        raise ConfigError(f"figures={unknown}: expected some of {', '.join(NUMBERS)}")
    loaded = _Once(networks, why)
    code = _digest_of_code()
    keys = {
        "rows": code + _digest_of_frame(rows),
        "models": code + _digest_of_frame(models),
        "networks": code + hashlib.sha256(repr((key, sizes)).encode()).hexdigest(),
    }
    frames = {"rows": rows, "models": models}
    made = []
    for entry in FIGURES:
        if only is not None and entry.number not in only:
            continue
        done = _make(entry, keys[entry.needs], folder, force, frames, loaded, sizes, progress)
        state = f"not made, {done.error}" if done.error else "kept" if done.kept else f"{done.seconds:.1f} s"
        progress(f"figure {done.number}: {done.title}: {state}")
        made.append(done)
    return made


class _Once:
    """Loads the networks at the first call; a failure is told to every figure that asks."""

    def __init__(self, load: Callable[[], NetworkPair] | None, why: str | None) -> None:
        self.load, self.why = load, why
        self.pair: NetworkPair | None = None

    def __call__(self) -> NetworkPair:
        if self.pair is None:
            if self.load is None or self.why is not None:
                raise RunError(self.why or "no pair of networks")
            try:
                self.pair = _on_accelerator(self.load())
            except Exception as error:
                self.why = _one_line(error)
                raise
        return self.pair


def _on_accelerator(pair: NetworkPair) -> NetworkPair:
    import torch

    # current_accelerator() names what torch was built for, whether it is there or not.
    if torch.accelerator.is_available() and (device := torch.accelerator.current_accelerator()) is not None:
        for named in pair.both:
            named.network.to(device)
    return pair


def _make(
    entry: Entry,
    key: str,
    folder: Path,
    force: bool,
    frames: dict[str, pd.DataFrame],
    networks: _Once,
    sizes: Sizes | Mapping[str, int] | None,
    progress: Callable[[str], object],
) -> Made:
    files = {suffix: folder / f"fig-{entry.number}.{suffix}" for suffix in (*FORMATS, "json")}
    outputs = {suffix: files[suffix] for suffix in FORMATS}
    start = time.perf_counter()
    made_without_pair = entry.needs == "networks" and networks.load is None
    if not force and not made_without_pair and (told := _finished(files, key)):
        return Made(entry.number, told["title"], told["caption"], **outputs, error=None, kept=True, seconds=0.0)
    for file in files.values():  # what is there shows other data: it must not be taken for this figure
        file.unlink(missing_ok=True)
    try:
        if entry.needs == "networks":
            pair = networks()  # before the module, which loads torch: there may be none
            progress(f"figure {entry.number}: {entry.title} ...")
            figure = _function(entry)(pair, sizes=_complete(sizes))
        else:
            figure = _function(entry)(frames[entry.needs])
        _save(figure, files, key)
    except Exception as error:  # whatever went wrong is in the report, beside the other figures
        seconds = time.perf_counter() - start
        return Made(entry.number, entry.title, "", None, None, None, _one_line(error), False, seconds)
    seconds = time.perf_counter() - start
    return Made(entry.number, figure.title, figure.caption, **outputs, error=None, kept=False, seconds=seconds)


def _complete(sizes: Sizes | Mapping[str, int] | None) -> Sizes:
    if isinstance(sizes, Sizes):
        return sizes
    import torch

    return replace(Sizes() if torch.accelerator.is_available() else Sizes.for_cpu(), **(sizes or {}))


def _function(entry: Entry) -> Callable[..., Figure]:
    function: Callable[..., Figure] = getattr(import_module(entry.module), entry.function)
    return function


def _finished(files: dict[str, Path], key: str) -> dict[str, Any] | None:
    """The title and caption of a figure that was made from ``key`` before, if all of its files are there."""
    try:
        told: dict[str, Any] = json.loads(files["json"].read_text())
    except (OSError, ValueError):
        return None
    whole = all(file.exists() for file in files.values()) and {"key", "title", "caption"} <= told.keys()
    return told if whole and told["key"] == key else None


def _save(figure: Figure, files: dict[str, Path], key: str) -> None:
    FigureCanvasAgg(figure.figure)
    with paper_style():
        # Laid out once instead of at each draw: that is most of the time of a figure of many panels.
        figure.figure.draw_without_rendering()
        figure.figure.set_layout_engine("none")
        for suffix in ("png", "pdf"):
            # No date: the same numbers give the same file.
            stamp: dict[str, None] = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
            write_atomically(files[suffix], partial(figure.figure.savefig, format=suffix, metadata=stamp))
    write_text(files["csv"], figure.numbers.to_csv(index=False))
    # Last: a figure counts as finished once this is there.
    told = {"number": figure.number, "title": figure.title, "caption": figure.caption, "key": key}
    write_text(files["json"], json.dumps(told, indent=2) + "\n")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ConfigError | RunError) else f"{type(error).__name__}: {text}"


def _digest_of_frame(frame: pd.DataFrame) -> str:
    digest = hashlib.sha256(repr(list(frame.columns)).encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _digest_of_code() -> str:
    """Of the figures' own source, their relations and matplotlib: figures made by other code are made again."""
    digest = hashlib.sha256(mpl.__version__.encode())
    for file in (*sorted(Path(__file__).parent.glob("*.py")), Path(relations.__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()
