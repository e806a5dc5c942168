"""The analysis of the paper's whole grid, on synthetic run directories: seconds and memory of each step.

python -m benchmarks.analysis
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.harness import interleaved_medians, peak_mebibytes, table, write_section
from prs_lightning.analysis.resampling import partial_correlations, rank_covariances, resampled_slopes

SCATTER = ("2b", "4", "4b", "5", "7b", "8", "10", "12", "14", "15")
PACKAGES = ("pandas", "scipy", "matplotlib")


def grid(folder: Path) -> None:
    """180 runs of 300 epochs, read, tested and drawn; prints a row per step. Runs in a process of its own."""
    from prs_lightning.analysis import figures, panels
    from prs_lightning.analysis.claims import scoreboard
    from prs_lightning.analysis.selection import select
    from prs_lightning.analysis.table import read_runs, save

    def step(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        print(f"{name}\t{now - last:.1f}\t{peak_mebibytes()}")
        last = now

    last = time.perf_counter()
    read = read_runs(folder)
    step("read 180 run directories, 54,000 rows")
    save(read, folder / "report")
    step("save Parquet and CSV")
    models = select(read.rows, thresholds={"default": 0.5}).models
    statistics = panels.panel_statistics(models)
    scoreboard(statistics, read.rows)
    step(f"statistics of {len(statistics.table)} panels, 2,000 bootstrap draws each, and claims")
    made = figures.make_all(read.rows, models, folder=folder / "figures", only=SCATTER, progress=lambda line: None)
    assert not any(figure.error for figure in made), [figure.error for figure in made]
    step(f"{len(made)} scatter and curve figures, as PNG, PDF and CSV")


def main() -> None:
    """Write the section of docs/benchmarks.md."""
    from tests.synthetic_runs import write_paper_grid

    with tempfile.TemporaryDirectory() as name:
        write_paper_grid(name, collapsed=(61, 75, 140))
        start = time.perf_counter()
        command = [sys.executable, "-c", f"from benchmarks.analysis import grid, Path; grid(Path({name!r}))"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        whole = time.perf_counter() - start
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    steps = table(
        ("step", "seconds", "peak memory of the process, MiB"),
        [*rows, ("**whole, with imports** (target: 60 s, 1024 MiB)", f"**{whole:.1f}**", f"**{rows[-1][2]}**")],
    )
    seconds = bootstraps()
    loop, ours = seconds["scipy on resampled rows, in a loop"], seconds["weights, all draws at once"]
    ways = table(
        ("cluster bootstrap of slope and Spearman, 120 models of 20 runs, 200 draws", "seconds"),
        [(way, f"{taken:.4f}") for way, taken in seconds.items()],
    )
    write_section(
        "Analysis of the paper's grid",
        f"{steps}\n\n{ways}\n\nRatio: {loop / ours:.0f}. Both ways give the same draws.",
        command="python -m benchmarks.analysis", packages=PACKAGES,
    )  # fmt: skip


def bootstraps(draws: int = 200) -> dict[str, float]:
    """Seconds of the bootstrap by weights and of the plain loop over resampled rows."""
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(20), 6)
    x, y = rng.normal(size=120) + runs, rng.normal(size=120) + runs
    members = [np.flatnonzero(runs == run) for run in range(20)]
    counts = rng.multinomial(20, np.full(20, 1 / 20), size=draws)

    def loop() -> list[tuple[float, float]]:
        taken = []
        for count in counts:
            rows = np.concatenate([members[run] for run in range(20) for _ in range(count[run])])
            taken.append((stats.linregress(x[rows], y[rows]).slope, stats.spearmanr(x[rows], y[rows])[0]))
        return taken

    def weights() -> object:
        drawn = counts.astype(float)
        return resampled_slopes(x, y, runs, drawn), partial_correlations(rank_covariances([x, y], runs, drawn))

    return interleaved_medians({"scipy on resampled rows, in a loop": loop, "weights, all draws at once": weights})


if __name__ == "__main__":
    main()
