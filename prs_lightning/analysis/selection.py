"""The candidate models: an epoch grid, a threshold on test accuracy, and the pair of networks A and B."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prs_lightning.analysis.arms import left_alone
from prs_lightning.analysis.statistics import Array
from prs_lightning.errors import ConfigError
from prs_lightning.measures import LOGIT_GAP, PRS_RATIO, TEST_ACCURACY
from prs_lightning.runs.naming import is_bookkeeping


@dataclass(frozen=True)
class Selection:
    """The models that the figures and statistics are made of.

    Attributes:
        models: the rows that were kept, one per model: a run at an epoch of the grid.
        counts: a row per step: ``step``, ``models`` and ``runs`` that are left after it; the last three are candidates,
            measured and kept.
        collapsed: a row per run that lost models to the threshold: ``run``, ``lost`` and ``candidates`` (models),
            ``lowest`` and ``threshold`` (test accuracy).
        thresholds: data set -> the threshold that was applied.
        grids: data set -> the epochs of its grid.
    """

    models: pd.DataFrame
    counts: pd.DataFrame
    collapsed: pd.DataFrame
    thresholds: dict[str, float]
    grids: dict[str, tuple[int, ...]]


def select(
    rows: pd.DataFrame, grid_epochs: Sequence[int] | None = None, thresholds: Mapping[str, float] | None = None
) -> Selection:
    """Keep the rows at the grid's epochs whose test accuracy reaches the threshold of their data set.

    Runs with an intervention are no candidates: of these the causal section tells.

    Args:
        rows: ``RunTable.rows``.
        grid_epochs: epochs, counted from 1; None takes each run's own ``grid_epochs``, the epochs whose weights it
            kept; a finished run that is shorter than its grid is represented by its last epoch.
        thresholds: data set -> least test accuracy in [0, 1]; ``default`` stands for the others (0 without it).

    Raises:
        ConfigError: an epoch below 1 or a threshold outside [0, 1].
    """
    thresholds = thresholds or {}
    if bad := {name: limit for name, limit in thresholds.items() if not 0 <= limit <= 1}:
        raise ConfigError(f"thresholds={bad}: expected test accuracies in [0, 1]")
    if grid_epochs is not None and any(epoch < 1 for epoch in grid_epochs):
        raise ConfigError(f"grid_epochs={list(grid_epochs)}: epochs are counted from 1")
    read, rows = rows, left_alone(rows)
    names = sorted(rows["data"].unique())
    limits = {name: float(thresholds.get(name, thresholds.get("default", 0.0))) for name in names}
    if TEST_ACCURACY not in rows:
        rows = rows.assign(**{TEST_ACCURACY: np.nan})
    candidates = rows[on_grid(rows, grid_epochs)]
    measured = candidates[candidates[TEST_ACCURACY].notna()]
    threshold = measured["data"].map(limits).astype(float)
    lost = measured[TEST_ACCURACY] < threshold
    models = measured[~lost].reset_index(drop=True)
    steps = {
        "rows read, one per run and epoch": read,
        **({"of runs without an intervention": rows} if len(rows) < len(read) else {}),
        "at an epoch of the grid: the candidate models": candidates,
        "with a test accuracy": measured,
        "that reach the threshold on test accuracy": models,
    }
    counts = [{"step": step, "models": len(left), "runs": left["run"].nunique()} for step, left in steps.items()]
    collapsed = measured.assign(lost=lost, threshold=threshold).groupby("run").agg(
        lost=("lost", "sum"), candidates=("lost", "size"), lowest=(TEST_ACCURACY, "min"),
        threshold=("threshold", "first"),
    )  # fmt: skip
    return Selection(
        models=models,
        counts=pd.DataFrame(counts),
        collapsed=collapsed[collapsed["lost"] > 0].reset_index(),
        thresholds=limits,
        grids={name: tuple(sorted({*candidates.loc[candidates["data"] == name, "epoch"].tolist()})) for name in names},
    )


def on_grid(rows: pd.DataFrame, grid_epochs: Sequence[int] | None) -> pd.Series:
    """Whether each row is at an epoch of the grid, as of `select`."""
    if grid_epochs is not None:
        return rows["epoch"].isin(list(grid_epochs))
    own = rows.get("config.grid_epochs", pd.Series(None, rows.index)).astype(object)
    on = pd.Series(False, rows.index)
    for text in own.dropna().unique():
        with suppress(ValueError, SyntaxError, TypeError):  # it is no list, as in a foreign config
            on |= (own == text) & rows["epoch"].isin(ast.literal_eval(text))
    short = (rows["status"] == "finished") & ~on.groupby(rows["run"]).transform("any")
    return on | (short & (rows["epoch"] == rows.groupby("run")["epoch"].transform("max")))


def varying_settings(models: pd.DataFrame) -> list[str]:
    """Panels whose runs differ in more than batch size and seed, a line each: they mix what is not alike."""
    keys = [name.removeprefix("config.") for name in models.columns if name.startswith("config.")]
    keys = [key for key in keys if key.rsplit(".", 1)[-1] not in ("seed", "batch_size") and not is_bookkeeping(key)]
    told = []
    for (model, data), group in models.groupby(["model", "data"], sort=True):
        if varying := [key for key in keys if group[f"config.{key}"].astype(object).nunique(dropna=False) > 1]:
            told.append(f"{model} on {data}: the runs differ in {', '.join(varying)}; their panels mix them")
    return told


@dataclass(frozen=True)
class Network:
    """A model that a figure is made from: a run (path relative to the folder of runs) at an epoch."""

    run: str
    epoch: int
    model: str
    prs_ratio: float
    test_accuracy: float

    def __str__(self) -> str:
        return f"{self.run} at epoch {self.epoch}"


Pair = tuple[Network, Network]
"""Network A (the larger PRS ratio) and network B (the smaller one), of one architecture and data set."""


def choose_pair(
    models: pd.DataFrame, tolerance: float = 0.02, available: Callable[[str, int], bool] = lambda run, epoch: True
) -> tuple[Pair | None, str]:
    """The two models of the same architecture and data set, at similar test accuracy, whose PRS ratios differ most.

    Args:
        models: ``Selection.models``.
        tolerance: how far their test accuracies may lie apart; if no two lie so near, the nearest are taken.
        available: whether the checkpoint of (run, epoch) is there.

    Returns:
        The pair, or None, and why.
    """
    if len(models) < 2:
        return None, f"{len(models)} model{'s' * (len(models) != 1)} passed the selection"
    if PRS_RATIO not in models or models[PRS_RATIO].notna().sum() < 2:
        return None, f"fewer than two models have a {PRS_RATIO}"
    known = models[models[PRS_RATIO].notna() & models[TEST_ACCURACY].notna()]
    there = known[[available(run, epoch) for run, epoch in zip(known["run"], known["epoch"], strict=True)]]
    if len(there) < 2:
        return None, f"{len(there)} of {len(known)} models have a checkpoint: the figures of two networks need two"
    nearest = min((apart[gap > 0].min(initial=np.inf) for *_, gap, apart in _differences(there)), default=np.inf)
    if np.isinf(nearest):
        return None, "no two models of one architecture and data set differ in PRS ratio"
    # Without models as near as wanted, the nearest ones there are: the figures then say how far apart they lie.
    pair, largest = _farthest(there, max(tolerance, nearest))
    within = f"models within {tolerance} of test accuracy"
    if nearest > tolerance:
        within = f"the models nearest in test accuracy ({nearest:.3f} apart, as none are within {tolerance})"
    return pair, f"the largest difference in PRS ratio ({largest:.3g}) among {within}"


def matched_pair(models: pd.DataFrame, tolerance: float = 0.02, gap_tolerance: float = 0.1) -> tuple[Pair | None, str]:
    """As `choose_pair`, among models that are alike in logit gap as well, with or without checkpoints.

    Args:
        models: ``Selection.models``.
        tolerance: how far their test accuracies may lie apart.
        gap_tolerance: how far their logit gaps may, as a share of the larger one.

    Returns:
        The pair, or None where no two models are as near in both, and why.
    """
    needed = [PRS_RATIO, TEST_ACCURACY, LOGIT_GAP]
    if missing := [name for name in needed if name not in models or models[name].isna().all()]:
        return None, f"{missing[0]} was not measured"
    pair, largest = _farthest(models.dropna(subset=needed), tolerance, gap_tolerance)
    within = f"within {tolerance} of test accuracy and {gap_tolerance:.0%} of logit gap"
    if pair is None:
        return None, f"no two models of one architecture and data set that differ in PRS ratio lie {within}"
    return pair, f"the largest difference in PRS ratio ({largest:.3g}) among models {within}"


def _farthest(models: pd.DataFrame, tolerance: float, gap_tolerance: float | None = None) -> tuple[Pair | None, float]:
    """The two models, near enough, whose PRS ratios differ most, and by how much."""
    largest, best = 0.0, None  # of equals the first
    for some, panel, difference, apart in _differences(models):
        far = apart > tolerance
        if gap_tolerance is not None:
            one, other = some[LOGIT_GAP].to_numpy(float)[:, None], panel[LOGIT_GAP].to_numpy(float)
            far |= np.abs(one - other) > gap_tolerance * np.maximum(one, other)
        difference[far] = -np.inf
        row, column = np.unravel_index(difference.argmax(), difference.shape)
        if difference[row, column] > largest:
            largest, best = float(difference[row, column]), (some.iloc[row], panel.iloc[column])
    return (None if best is None else (_network(best[0]), _network(best[1]))), largest


def _differences(models: pd.DataFrame, at_once: int = 200) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, Array, Array]]:
    """For some models after the others, and all of their panel: the differences in PRS ratio and in test accuracy.

    Panels are sorted, so that among equals the first of the first architecture and data set is taken. All pairs of
    12,000 models at once would not fit the memory.
    """
    for _, panel in models.groupby(["data", "model"], sort=True, observed=True):
        prs, accuracy = (panel[name].to_numpy(float) for name in (PRS_RATIO, TEST_ACCURACY))
        for start in range(0, len(panel), at_once):
            part = slice(start, start + at_once)
            yield panel.iloc[part], panel, prs[part, None] - prs, np.abs(accuracy[part, None] - accuracy)


def _network(row: pd.Series) -> Network:
    prs_ratio, test_accuracy = (float(row.get(name, np.nan)) for name in (PRS_RATIO, TEST_ACCURACY))
    return Network(str(row["run"]), int(row["epoch"]), str(row["model"]), prs_ratio, test_accuracy)


def named_pair(rows: pd.DataFrame, a: str, b: str) -> Pair:
    """The pair that the user names, each as ``RUN@EPOCH`` with the path of the run relative to the folder of runs.

    Raises:
        ConfigError: no such run or epoch, or two architectures or data sets.
    """
    first, second = _named(rows, "pair.a", a), _named(rows, "pair.b", b)
    for key in ("data", "model"):
        if first[key] != second[key]:
            raise ConfigError(f"pair.a is of {key} {first[key]} and pair.b of {second[key]}: expected the same")
    return _network(first), _network(second)


def _named(rows: pd.DataFrame, key: str, text: str) -> pd.Series:
    run, _, epoch = text.rpartition("@")
    if not epoch.isdigit() or not run:
        raise ConfigError(
            f"{key}={text}: expected RUN@EPOCH, for example {rows['run'].iloc[0]}@{rows['epoch'].iloc[-1]}"
        )
    found = rows[(rows["run"] == run) & (rows["epoch"] == int(epoch))]
    if found.empty:
        known = rows.loc[rows["run"] == run, "epoch"]
        there = f"{run} has epochs {known.min()} to {known.max()}" if len(known) else f"no run is called {run}"
        raise ConfigError(f"{key}={text} was not found: {there}")
    return found.iloc[0]
