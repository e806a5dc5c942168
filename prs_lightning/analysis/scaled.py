"""The negative control: networks that were left alone with the logits times 1000, measured as they themselves were.

No prediction, region or distance changes by that, only what a gradient sees. Torch is loaded only to measure.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from prs_lightning.analysis import networks
from prs_lightning.analysis.arms import SCALED
from prs_lightning.analysis.measured import IDENTITY
from prs_lightning.analysis.pairing import paired
from prs_lightning.analysis.selection import Network, on_grid
from prs_lightning.errors import ConfigError, RunError, in_one_line
from prs_lightning.measures import DISTANCE, TEMPERATURE
from prs_lightning.runs import RunDirectory, write_text

FACTOR = 1000
OBSERVERS = ("Regions", "Logits", "Scores", "Robustness")
"""The callbacks, by class, whose numbers the arms are compared by."""
GRID_ATTACKS = tuple(name.removeprefix("robust/") for name in (TEMPERATURE, DISTANCE))
TRAINER = {
    "_target_": "lightning.pytorch.Trainer", "accelerator": "auto", "devices": 1, "inference_mode": False,
    "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip
FILE = "scaled.json"


def scaled_rows(
    rows: pd.DataFrame,
    runs: Path,
    folder: Path,
    *,
    grid_epochs: Sequence[int] | None = None,
    data_root: str | Path | None = None,
    force: bool = False,
    progress: Callable[[str], object] = print,
) -> tuple[pd.DataFrame | None, list[str]]:
    """Rows of the control, one for each run of ``none`` that has a twin with an intervention, at its last grid epoch.

    Args:
        rows: ``RunTable.rows``; some with an intervention.
        runs: folder of the runs.
        folder: keeps what was measured, in ``scaled.json``, until a checkpoint, the attacks or their code change.
        data_root: as for the figures of two networks.
        force: measure what is there already.
        progress: is given a line per run.

    Returns:
        Rows as the given ones with arm ``scaled x1000`` (measures that were not taken: NaN), None if there is no
        checkpoint to make one of; and what was not made, and why, a line each.
    """
    ends = _ends(rows, grid_epochs)
    available = networks.available(runs)
    there = [available(run, epoch) for run, epoch in zip(ends["run"], ends["epoch"], strict=True)]
    told = []
    if lacking := len(ends) - sum(there):
        told.append(f"negative control: {lacking} of {len(ends)} runs have no checkpoint of their last grid epoch")
        progress(told[0])
    kept, found, measured_of = {} if force else _kept(folder / FILE), {}, {}
    data: dict[str, Any] = {}
    for place, (index, row) in enumerate(ends[there].iterrows(), start=1):
        name, epoch = str(row["run"]), int(row["epoch"])
        start = time.perf_counter()
        try:
            config = RunDirectory(runs / name).config()
            key = _key(runs, name, epoch, config)
            if values := kept.get(key):
                state = "kept"
            else:
                values = measured(runs, name, epoch, config, data_root=data_root, datas=data)
                state = f"{time.perf_counter() - start:.1f} s"
            found[index], measured_of[key] = values, values
            write_text(folder / FILE, json.dumps(measured_of, indent=2) + "\n")
        except (ConfigError, RunError, RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
            state = f"not made, {in_one_line(error)}"
            told.append(f"negative control: {name}: {in_one_line(error)}")
        progress(f"negative control, {place} of {sum(there)}: {name} at epoch {epoch}, logits x {FACTOR}: {state}")
    if not found:
        return None, told
    table = pd.DataFrame.from_dict(found, orient="index")
    return _as_rows(ends.loc[table.index], table), told


def _ends(rows: pd.DataFrame, grid_epochs: Sequence[int] | None) -> pd.DataFrame:
    """The last grid epoch of each run that was left alone and has a twin that was not."""
    grid = rows[on_grid(rows, grid_epochs)]
    pairs, _ = paired(grid)
    twins = grid[grid["run"].isin([pair.none.name for pair in pairs])]
    return twins.loc[twins.groupby("run")["epoch"].idxmax()].reset_index(drop=True)


def _as_rows(ends: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """What was measured in the columns of the runs; nothing of theirs stands for a measure that was not taken."""
    names = [str(name) for name in ends]
    same = [name for name in names if name in (*IDENTITY, "epoch", "step") or name.startswith("config.")]
    rows = ends[same].assign(run=ends["run"] + f" x{FACTOR}", arm=SCALED, strength=str(FACTOR))
    every = [*dict.fromkeys([*names, *map(str, table)])]
    measures = table.reindex(columns=[name for name in every if name not in same]).astype(float)
    return pd.concat([rows, measures], axis=1)[every].reset_index(drop=True)


def _kept(file: Path) -> dict[str, dict[str, float]]:
    """What was measured before, by what it was measured of."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        found: dict[str, dict[str, float]] = json.loads(file.read_text())
        return {key: {name: float(value) for name, value in each.items()} for key, each in found.items()}
    return {}


def _key(runs: Path, run: str, epoch: int, config: Mapping[str, Any]) -> str:
    """Changes with the checkpoint, what the network was measured with, and the code that measures."""
    path = networks.checkpoint_path(runs, run, epoch)
    assert path is not None
    status = path.stat()
    what = [run, epoch, status.st_size, status.st_mtime_ns, FACTOR, config.get("callbacks"), config.get("data")]
    return hashlib.sha256(json.dumps(what, default=str).encode() + _code()).hexdigest()[:16]


@cache
def _code() -> bytes:
    """What measures: the source of this, of attacks and of regions."""
    room = Path(__file__).parent.parent
    rooms = (file for name in ("attacks", "regions") for file in sorted((room / name).glob("*.py")))
    return b"".join(file.read_bytes() for file in (Path(__file__), *rooms))


def measured(
    runs: Path,
    run: str,
    epoch: int,
    config: Mapping[str, Any],
    *,
    factor: float = FACTOR,
    data_root: str | Path | None = None,
    datas: dict[str, Any] | None = None,
) -> dict[str, float]:
    """The measures of a run's network at ``epoch`` with its logits times ``factor``, by the callbacks of its config.

    Args:
        datas: gets the data, and gives those that an earlier call has read.

    Raises:
        RunError, ConfigError: a checkpoint that cannot be used, a network whose final layer is not found, or data that
            are not there.
    """
    from omegaconf import OmegaConf

    from prs_lightning.regions.units import scaled
    from prs_lightning.runs import importing, options
    from prs_lightning.runs.data_files import refuse_other_files

    node = dict(config["data"]) | ({"root": str(data_root)} if data_root else {})
    same = json.dumps({name: value for name, value in node.items() if name not in ("seed", "batch_size")}, default=str)
    datas = {} if datas is None else datas
    if same not in datas:
        refuse_other_files(RunDirectory(runs / run).record(), node)
        datas[same] = options.made("data", node)
        datas[same].prepare_data()
    network = networks.loaded(runs, Network(run, epoch, "", float("nan"), float("nan")), config)
    many = scaled(network, factor, images=datas[same].some_images())
    many.loaded_epoch = epoch - 1  # type: ignore[assignment]
    composed = OmegaConf.create({"trainer": TRAINER, "callbacks": _callbacks(config.get("callbacks") or {}, epoch)})
    importing.quiet_lightning()
    found = importing.measured(composed, many, datas[same], runs / run)  # type: ignore[arg-type]
    return {name: float(value) for name, value in found.items() if not name.startswith(("time/", "train/"))}


def _callbacks(callbacks: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """Those of a run that take what arms are compared by, at one epoch, with their own attacks."""
    wanted = {
        name: dict(node)
        for name, node in callbacks.items()
        if isinstance(node, Mapping) and str(node.get("_target_")).rpartition(".")[2] in OBSERVERS
    }
    for node in wanted.values():
        if node["_target_"].endswith(".Robustness"):
            given = node.get("grid_attacks") or ()
            names = [name for name in GRID_ATTACKS if name in given]
            grid = {name: given[name] for name in names} if isinstance(given, Mapping) else names
            node |= {"grid_epochs": [epoch], "grid_attacks": grid, "gradient_noise": None}
    return wanted
