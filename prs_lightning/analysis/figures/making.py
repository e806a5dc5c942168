"""All figures in the paper's order: made, saved as PNG, PDF and CSV, and kept until what they show changes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prs_lightning.analysis import contrasts, pairing, relations
from prs_lightning.analysis.figures.registry import FIGURES, Entry, Figure, Sizes, refuse_unknown
from prs_lightning.analysis.figures.style import PAGE, paper_style
from prs_lightning.analysis.written import write_csv
from prs_lightning.errors import ConfigError, RunError, in_one_line
from prs_lightning.runs import write_atomically, write_text

if TYPE_CHECKING:  # torch is loaded only when a figure needs it
    from prs_lightning.analysis.networks import NetworkPair


@dataclass(frozen=True)
class Made:
    """A figure on the disk, or the reason why there is none.

    Attributes:
        png, pdf, csv: its files; None where ``error`` is set.
        inches: its width. Shown at this share of ``style.PAGE``, the letters of all figures have one size.
        error: one line.
        kept: it was there already, made from the same data by the same code.
        seconds: that it took.
    """

    number: str
    title: str
    caption: str = ""
    png: Path | None = None
    pdf: Path | None = None
    csv: Path | None = None
    inches: float = PAGE
    error: str | None = None
    kept: bool = False
    seconds: float = 0.0


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
    arms: pd.DataFrame | None = None,
    sizes: Mapping[str, int] | None = None,
    progress: Callable[[str], object] = print,
) -> list[Made]:
    """Make every figure that is not there yet, each in turn; one that fails does not stop the others.

    Args:
        rows: ``RunTable.rows``, one per run and epoch, of runs without an intervention.
        models: ``Selection.models``.
        networks: gives the pair of networks; called once, and only if one of their figures must be made.
        folder: gets ``fig-<number>.png``, ``.pdf``, ``.csv`` and ``.json`` (caption, and what it was made from).
        key: changes whenever the networks do.
        why: there are no networks.
        force: make them all anew.
        only: numbers of the figures to make; None for all.
        arms: rows at grid epochs, those with interventions among them; None: there are none, nor figures of them.
        sizes: of the networks' figures; what is not given is that of ``Sizes.on_this_machine``.
        progress: is given one line per figure, and one at the start of each that takes long.

    Raises:
        ConfigError: a number in ``only`` that is no figure.
    """
    refuse_unknown(only or ())
    tables = {"rows": rows, "models": models} | ({} if arms is None else {"arms": arms})
    keys = _keys(tables, repr((key, sizes)))

    @cache
    def pair() -> NetworkPair | str:
        """The networks on the accelerator, or why there are none."""
        try:
            return _on_accelerator(networks()) if networks else why or "no pair of networks"
        except Exception as error:
            return _one_line(error)

    def draw(entry: Entry) -> Figure:
        if entry.needs != "networks":
            return entry.load()(tables[entry.needs])
        loaded = pair()  # before the module, which loads torch: there may be none
        if isinstance(loaded, str):
            raise RunError(loaded)
        progress(f"figure {entry.number}: {entry.title} ...")
        return entry.load()(loaded, sizes=Sizes.on_this_machine(**sizes or {}))

    made = []
    for entry in FIGURES:
        if entry.needs not in keys or (only is not None and entry.number not in only):
            continue
        keep = not force and (entry.needs != "networks" or networks is not None)
        done = _make(entry, keys[entry.needs], folder, draw, keep=keep)
        state = f"not made, {done.error}" if done.error else "kept" if done.kept else f"{done.seconds:.1f} s"
        progress(f"figure {done.number}: {done.title}: {state}")
        made.append(done)
    return made


def _on_accelerator(pair: NetworkPair) -> NetworkPair:
    import torch

    if (device := torch.accelerator.current_accelerator(check_available=True)) is not None:
        for named in pair.both:
            named.network.to(device)
    return pair


def _make(entry: Entry, key: str, folder: Path, draw: Callable[[Entry], Figure], *, keep: bool) -> Made:
    files = {suffix: folder / f"fig-{entry.number}.{suffix}" for suffix in ("png", "pdf", "csv", "json")}
    shown: dict[str, Any] = {suffix: file for suffix, file in files.items() if suffix != "json"}
    if keep and (told := _finished(files, key)):
        return Made(entry.number, told["title"], told["caption"], **shown, inches=told["inches"], kept=True)
    for file in files.values():  # what is there shows other data: it must not be taken for this figure
        file.unlink(missing_ok=True)
    start = time.perf_counter()
    try:
        figure = draw(entry)
        _save(figure, files, key)
    except Exception as error:  # whatever went wrong is in the report, beside the other figures
        return Made(entry.number, entry.title, error=_one_line(error))
    inches, seconds = figure.figure.get_figwidth(), time.perf_counter() - start
    return Made(entry.number, figure.title, figure.caption, **shown, inches=inches, seconds=seconds)


def _finished(files: dict[str, Path], key: str) -> dict[str, Any] | None:
    """The title and caption of a figure that was made from ``key`` before, if all of its files are there."""
    try:
        told: dict[str, Any] = json.loads(files["json"].read_text())
    except (OSError, ValueError):
        return None
    return told if told.get("key") == key and all(file.exists() for file in files.values()) else None


def _save(figure: Figure, files: dict[str, Path], key: str) -> None:
    FigureCanvasAgg(figure.figure)
    with paper_style():
        # Laid out once instead of at each draw: that is most of the time of a figure of many panels.
        figure.figure.draw_without_rendering()
        figure.figure.set_layout_engine("none")
        for suffix, stamp in (("png", "Software"), ("pdf", "CreationDate")):  # the same numbers give the same file
            write_atomically(files[suffix], partial(figure.figure.savefig, format=suffix, metadata={stamp: None}))
    write_csv(files["csv"], figure.numbers)
    # Last: a figure counts as finished once this is there.
    told: dict[str, Any] = {"number": figure.number, "title": figure.title, "caption": figure.caption, "key": key}
    told |= {"inches": figure.figure.get_figwidth()}
    write_text(files["json"], json.dumps(told, indent=2) + "\n")


def _one_line(error: BaseException) -> str:
    text = in_one_line(error) or "no message"
    return text if isinstance(error, ConfigError | RunError) else f"{type(error).__name__}: {text}"


def _keys(tables: Mapping[str, pd.DataFrame], networks: str) -> dict[str, str]:
    """What a figure is made from, by what it needs: digests of the data, of the figures' source and of matplotlib."""
    beside = [Path(str(module.__file__)) for module in (contrasts, pairing, relations)]
    sources = (*sorted(Path(__file__).parent.glob("*.py")), *beside)
    code = [mpl.__version__.encode(), *(file.read_bytes() for file in sources)]
    data = {"networks": [networks.encode()]}
    for name, frame in tables.items():
        hashes = pd.util.hash_pandas_object(frame, index=False).to_numpy()
        data[name] = [repr(list(frame.columns)).encode(), hashes.tobytes()]
    return {name: hashlib.sha256(b"".join(code + parts)).hexdigest() for name, parts in data.items()}
