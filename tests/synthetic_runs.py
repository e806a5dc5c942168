"""Writes run directories with planted effects, in the format of a real run: the oracle data of the analysis' tests.

python -m tests.synthetic_runs FOLDER          # 180 runs of 300 epochs: the paper's grid in size and shape
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from prs_lightning.runs import RunDirectory, write_text

TARGETS = {"cnn6": "CNN6", "vgg16": "VGG16", "resnet18": "ResNet18"}
EPSILON = {"mnist": 0.3, "mnist5k": 0.3, "fashion_mnist": 0.1, "cifar10": 8 / 255}
GRID = (50, 100, 150, 200, 250, 300)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def config(model: str, data: str, batch_size: int, seed: int, epochs: int, grid: Sequence[int]) -> dict[str, Any]:
    """A composed config like the one that train.py keeps."""
    return {
        "model": {"_target_": f"prs_lightning.models.{TARGETS[model]}", "learning_rate": 1e-3, "seed": seed},
        "data": {
            "_target_": "prs_lightning.data.ImageData", "name": data, "channels": 3 if data == "cifar10" else 1,
            "classes": 10, "epsilon": EPSILON[data], "step_size": 2 / 255, "batch_size": batch_size, "seed": seed,
            "root": "data", "train_limit": None, "test_limit": None, "mean": [0.13], "std": [0.31],
        },
        "callbacks": {"robustness": {"_target_": "callbacks.robustness.Robustness", "steps": 20}},
        "batch_size": batch_size, "seed": seed, "epochs": epochs, "grid_epochs": list(grid), "runs": "runs",
    }  # fmt: skip


def measures(
    rng: np.random.Generator,
    epochs: int,
    *,
    run_level: float,
    within: float,
    between: float,
    after_audit: float,
    run_noise: float,
    noise: float,
) -> dict[str, np.ndarray]:
    """Columns of metrics.csv of one run; RA = 0.45 + between * (run's mean PRS - 0.5) + within * (PRS - that mean).

    The PRS ratio falls with epochs around ``run_level``. The intercept of the run has deviation ``run_noise``,
    each epoch ``noise``.
    """
    time = np.linspace(0, 1, epochs) if epochs > 1 else np.zeros(1)
    prs = np.clip(run_level - 0.24 * (time - 0.5) + 0.02 * rng.standard_normal(epochs), 0.002, 1)

    def outcome(level: float, slope_within: float, slope_between: float, spread: float = 1.0) -> np.ndarray:
        mean = prs.mean()
        intercept = level + spread * run_noise * rng.standard_normal() + slope_between * (mean - 0.5)
        return np.clip(intercept + slope_within * (prs - mean) + spread * noise * rng.standard_normal(epochs), 0, 1)

    accuracy = np.clip(0.99 - 0.05 * np.exp(-8 * time) + 0.002 * rng.standard_normal(epochs), 0, 1)
    robust = outcome(0.45, within, between)
    audited = np.minimum(outcome(0.25, within * after_audit, between * after_audit), robust)
    dead = np.clip(np.round(110 * (1 - prs) + 4 * rng.standard_normal(epochs)), 0, 128)
    rivals = rival_measures(rng.spawn(1)[0], prs, audited, dead)  # which takes nothing from the numbers above
    return {
        "train/loss": np.exp(-6 * time), "train/accuracy": np.clip(accuracy + 0.008, 0, 1),
        "test/loss": 0.1 + 0.3 * time, "test/accuracy": accuracy,
        "prs/ratio": prs, "prs/count": np.round(prs * 60_000), "prs/dead_units": dead,
        "prs/inclusion_ratio": outcome(0.5, -0.6, -0.6), "weights/cosine_similarity": outcome(0.5, -0.4, -0.4) - 0.5,
        "features/sparsity": outcome(0.7, -0.2, -0.2, 0.5),
        "robust/pgd20": robust, "robust/pgd20_audited": audited, "robust/masking_gap": robust - audited,
        "robust/dlr": (robust + audited) / 2,
        "robust/zero_gradient": np.clip(0.8 * (1 - prs) ** 2 + 0.02 * rng.standard_normal(epochs), 0, 1),
        "time/train_s": np.full(epochs, 20.0), "time/measure_s": np.full(epochs, 15.0),
    } | rivals  # fmt: skip


def rival_measures(
    rng: np.random.Generator, prs: np.ndarray, audited: np.ndarray, dead: np.ndarray
) -> dict[str, np.ndarray]:
    """What else may explain robustness, over the epochs of one run.

    The logit gap grows as the PRS ratio falls, and what hangs on it with it; RA at any temperature and the distance
    follow the audited RA. `write_grid` leaves those of the grid's epochs out elsewhere.
    """

    def noise(size: float) -> np.ndarray:
        return size * rng.standard_normal(len(prs))

    gap = np.exp(4 - 3 * prs + rng.normal(0, 0.2) + noise(0.05))
    return {
        "prs/live_units": 128 - dead, "logits/gap": gap, "logits/loss_underflow": np.clip(gap / 60 + noise(0.01), 0, 1),
        "weights/log_norm": 2 + np.log10(gap) + rng.normal(0, 0.2) + noise(0.02),
        "features/local_complexity": np.exp(2 + 1.5 * prs + rng.normal(0, 0.2) + noise(0.05)),
        "collapse/nc1": np.exp(-2 + 2 * prs + rng.normal(0, 0.2) + noise(0.05)),
        "collapse/nc2": np.clip(0.1 + 0.2 * prs + rng.normal(0, 0.02) + noise(0.01), 0, None),
        "robust/gradient_noise": np.clip(0.6 * (1 - prs) + noise(0.02), 0, 1),
        "robust/temperature": np.clip(audited + 0.02 + noise(0.01), 0, 1),
        "robust/distance": np.clip(0.02 + 0.1 * audited + noise(0.002), 0, None),
    }  # fmt: skip


AT_THE_GRID = ("features/local_complexity", "robust/temperature", "robust/distance")
"""Measured at the grid's epochs alone."""


def write_run(
    folder: str | Path,
    columns: dict[str, np.ndarray],
    *,
    model: str = "cnn6",
    data: str = "mnist",
    batch_size: int = 128,
    seed: int = 0,
    grid: Sequence[int] = GRID,
    status: str = "finished",
    reason: str | None = None,
    epochs: int | None = None,
    interventions: Mapping[str, float] | None = None,
) -> RunDirectory:
    """One run directory that holds ``columns``, an array per measure with a value per epoch (NaN: not taken).

    ``interventions`` are names with strengths.
    """
    length = len(next(iter(columns.values())))
    done = "".join(f"-{name}-{strength:g}" for name, strength in (interventions or {}).items())
    run = RunDirectory(Path(folder) / f"{data}-{model}-bs{batch_size}-seed{seed}{done}")
    kept = config(model, data, batch_size, seed, epochs or length, grid)
    if interventions:
        kept["intervention"] = {name: {"strength": strength} for name, strength in interventions.items()}
    write_text(run.config_file, yaml.safe_dump(kept, sort_keys=False))
    values = {name: [f"{v:.7g}" if v == v else "" for v in column.tolist()] for name, column in columns.items()}
    rows = [
        {"epoch": e + 1, "step": (e + 1) * 10} | {name: column[e] for name, column in values.items()}
        for e in range(length)
    ]
    run.write_rows(rows)
    run.update_record(
        status=status, reason=reason, seed=seed, git_commit=COMMIT, wandb_id=uuid.uuid4().hex[:12],
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T01:00:00+00:00", versions={"python": "3.11.2", "torch": "2.14.0", "lightning": "2.6.6"},
    )  # fmt: skip
    return run


def write_grid(
    folder: str | Path,
    *,
    models: Sequence[str] = ("cnn6",),
    data: Sequence[str] = ("mnist",),
    batch_sizes: Sequence[int] = (64, 128, 512, 2048),
    seeds: Iterable[int] = range(5),
    epochs: int = 300,
    grid: Sequence[int] = GRID,
    within: float = -0.8,
    between: float = -0.8,
    after_audit: float = 0.0,
    run_noise: float = 0.05,
    noise: float = 0.02,
    collapsed: Iterable[int] = (),
    interventions: Mapping[str, float] | None = None,
    seed: int = 0,
) -> list[RunDirectory]:
    """Run directories of the whole product; larger batches have larger PRS ratios, as in the paper.

    Args:
        within, between: slopes of RA on the PRS ratio within a run and between the means of runs.
        after_audit: what part of both slopes is left in the audited RA.
        collapsed: positions, in order of writing, of runs whose test accuracy stays at 0.1.
        seed: of the random numbers.
    """
    rng, made = np.random.default_rng(seed), []
    for position, (model, name, batch, run_seed) in enumerate(product(models, data, batch_sizes, seeds)):
        level = np.interp(batch_sizes.index(batch), [0, max(len(batch_sizes) - 1, 1)], [0.25, 0.75])
        columns = measures(
            rng, epochs, run_level=level + 0.05 * rng.standard_normal(), within=within, between=between,
            after_audit=after_audit, run_noise=run_noise, noise=noise,
        )  # fmt: skip
        off = ~np.isin(np.arange(1, epochs + 1), grid)
        columns |= {name: np.where(off, np.nan, columns[name]) for name in AT_THE_GRID}
        if position in set(collapsed):
            columns["test/accuracy"] = np.full(epochs, 0.1)
        identity = {"model": model, "data": name, "batch_size": batch, "seed": run_seed}
        made.append(write_run(folder, columns, **identity, grid=grid, interventions=interventions))
    return made


ARMS: tuple[dict[str, float], ...] = (
    {"low_prs": 1.0}, {"low_prs": 5.0}, {"high_prs": 1.0}, {"adversarial": 1.0},
    {"low_prs": 1.0, "logit_penalty": 0.01},
)  # fmt: skip
"""A small experiment: two doses, the opposite, the positive control, and one that holds the logits."""


def write_arms(folder: str | Path, arms: Iterable[Mapping[str, float]] = ARMS, **arguments: Any) -> list[RunDirectory]:
    """A grid of runs for each of ``arms``, which names interventions with strengths; the more, the fewer regions."""
    made = []
    for place, interventions in enumerate(arms, start=1):
        made += write_grid(folder, interventions=interventions, **{"seed": 100 + place, **arguments})
    return made


def write_rows(folder: str | Path, rows: pd.DataFrame) -> list[RunDirectory]:
    """A run directory of each run of a table with ``arm`` and ``strength``, its epochs those of the grid."""
    made = []
    for _, run in rows.groupby("run", sort=False):
        first, epochs = run.iloc[0], run["epoch"].to_numpy()
        columns = {name: np.full(epochs.max(), np.nan) for name in rows if "/" in name}
        for name, column in columns.items():
            column[epochs - 1] = run[name]
        names = [] if first["arm"] == "none" else first["arm"].split("+")
        identity = {name: first[name] for name in ("model", "data")} | {
            name: int(first[name]) for name in ("batch_size", "seed")
        }
        strengths = map(float, str(first["strength"]).split("+"))
        done = dict(zip(names, strengths, strict=False))
        made.append(write_run(folder, columns, **identity, grid=epochs.tolist(), interventions=done))
    return made


def write_paper_grid(folder: str | Path, **arguments: Any) -> list[RunDirectory]:
    """180 runs of 300 epochs, 1,080 candidate models."""
    return write_grid(folder, models=tuple(TARGETS), data=("mnist", "fashion_mnist", "cifar10"), **arguments)


if __name__ == "__main__":
    print(f"{len(write_paper_grid(sys.argv[1], collapsed=(61, 75, 140)))} runs in {sys.argv[1]}")
