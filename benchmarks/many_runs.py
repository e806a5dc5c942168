"""What reads a folder of 2,000 runs of 300 epochs: seconds and memory of the commands, beside an older checkout's.

git worktree add /tmp/before COMMIT && python -m benchmarks.many_runs --before /tmp/before
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import table, write_section

HERE = Path(__file__).parent.parent
PACKAGES = ("pandas", "pyarrow", "numpy", "scipy")
WORKING = ("analyze.py", "figures=none", "wandb.mode=disabled")
WRITTEN = ("statistics.csv", "claims.csv", "runs.csv", "table.csv")


def measured(checkout: Path, *command: str) -> tuple[float, float, float]:
    """Seconds of the clock, seconds of the processor and peak MiB of a Python command of a checkout."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    process = subprocess.Popen([sys.executable, *command], cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, (checkout, command)
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Write the section of docs/benchmarks.md."""
    from tests.synthetic_runs import write_grid

    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    checkouts = {"now": HERE} | ({"before": chosen.before.absolute()} if chosen.before else {})
    with tempfile.TemporaryDirectory() as name:
        runs, folder = Path(name, "runs"), Path(name)
        made = write_grid(runs, models=("cnn6", "resnet18"), data=("mnist", "cifar10"), seeds=range(125))
        assert len(made) == 2000
        lines: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for _ in range(chosen.repeats):
            for when, checkout in checkouts.items():
                for command in (("-m", "prs_lightning.runs", "status", str(runs)), (*WORKING, f"runs={runs}")):
                    output = [f"output={folder / when}"] if command[0] == "analyze.py" else []
                    shown = "status" if command[0] == "-m" else "analyze.py figures=none"
                    lines.setdefault((shown, when), []).append(measured(checkout, *command, *output))
        if chosen.before:
            for file in WRITTEN:
                assert (folder / "now" / file).read_bytes() == (folder / "before" / file).read_bytes(), file
    medians = {key: tuple(map(statistics.median, zip(*taken, strict=True))) for key, taken in lines.items()}
    cells = [
        (f"`{command}`", when, f"{clock:.1f}", f"{processor:.1f}", f"{peak:.0f}")
        for (command, when), (clock, processor, peak) in sorted(medians.items(), key=lambda item: item[0], reverse=True)
    ]
    text = table(("command", "code", "seconds", "of the processor", "peak memory, MiB"), cells)
    told = ""
    if chosen.before:
        commit = ["git", "-C", str(chosen.before), "rev-parse", "--short", "HEAD"]
        before = subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()
        old, new = (medians["analyze.py figures=none", when] for when in ("before", "now"))
        told = (
            f"\n\nBefore is {before}; `analyze.py` takes {new[0] / old[0]:.2f} of its time and "
            f"{new[1] / old[1]:.2f} of its processor time. Both write {', '.join(WRITTEN)} to the same bytes."
        )
    write_section(
        "Analysis of 2,000 runs",
        "Whole commands, with imports, on 2,000 run directories of 300 epochs; medians of "
        f"{chosen.repeats} interleaved turns.\n\n{text}{told}",
        command="python -m benchmarks.many_runs --before CHECKOUT", packages=PACKAGES,
    )  # fmt: skip


if __name__ == "__main__":
    main()
