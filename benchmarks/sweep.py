"""What the sweep's launcher adds to its jobs, its memory over 180 jobs, and how long the command line takes to start.

    python -m benchmarks.sweep

The jobs are those of tests/sleepy_train.py, which compose the config and keep a run directory but import no torch:
what is measured is the launcher, whatever a job does. "By hand" is the same jobs as single runs, one after another.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import interleaved_medians, table, write_section

PROJECT = Path(__file__).parent.parent
SLEEPY = PROJECT / "tests" / "sleepy_train.py"
COMMON = ("data=mnist5k", "logger=none", "callbacks=none", "epochs=1")
JOBS, LONG = 4, 180


def run(*line: str) -> None:
    """Run Python on ``line`` and insist that it ends well."""
    subprocess.run([sys.executable, *line], check=True, cwd=PROJECT, stdout=subprocess.DEVNULL)


def launched(folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """The two ways: one sweep of ``JOBS`` jobs, and the same jobs by hand. Each call uses a new folder."""
    turn = itertools.count()

    def by_sweep() -> None:
        run(str(SLEEPY), "-m", f"runs={folder}/sweep{next(turn)}", *COMMON, f"seed=0..{JOBS - 1}")

    def by_hand() -> None:
        place = f"runs={folder}/hand{next(turn)}"
        for seed in range(JOBS):
            run(str(SLEEPY), place, *COMMON, f"seed={seed}")

    return by_sweep, by_hand


def resident_kilobytes(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def memory(folder: Path) -> dict[int, float]:
    """MB that the sweep's own process holds after so many of ``LONG`` jobs."""
    line = [sys.executable, str(SLEEPY), "-m", f"runs={folder}/long", *COMMON, f"seed=0..{LONG - 1}"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "SLEEPY_SECONDS": "0"}
    sweep = subprocess.Popen(line, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
    assert sweep.stdout is not None
    held: dict[int, float] = {}
    for done in (line for line in sweep.stdout if line.startswith("finished:")):
        count = int(done.rsplit("(", 1)[1].split()[0])
        if count in (1, 10, 90, LONG - 1):
            held[count] = resident_kilobytes(sweep.pid) / 1000
    assert sweep.wait() == 0
    return held


def main() -> None:
    """Measure, print, and keep the section of docs/benchmarks.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        by_sweep, by_hand = launched(folder)
        starts = {
            "`train.py --help`": lambda: run("train.py", "--help"),
            "`train.py --cfg job`": lambda: run("train.py", "--cfg", "job"),
            "`train.py -m experiment=paper_grid dry_run=true`": lambda: run(
                "train.py", "-m", "experiment=paper_grid", "dry_run=true", f"runs={folder}/none"
            ),
        }
        ways = interleaved_medians({"sweep": by_sweep, "hand": by_hand}, repeats=3)
        started = interleaved_medians(starts, repeats=3)
        held = memory(folder)
    added = (ways["sweep"] - ways["hand"]) / JOBS
    text = table(
        (f"{JOBS} jobs, one at a time", "s", "s a job", "ratio"),
        [
            ("by hand", f"{ways['hand']:.2f}", f"{ways['hand'] / JOBS:.2f}", "1.00"),
            (
                "by the sweep",
                f"{ways['sweep']:.2f}",
                f"{ways['sweep'] / JOBS:.2f}",
                f"{ways['sweep'] / ways['hand']:.2f}",
            ),
        ],
    )
    text += f"\n\nThe launcher adds {added:.2f} s a job, its own start included (target: 3 s at most).\n\n"
    first = held[min(held)]
    text += table(
        (f"jobs done, of {LONG}", "MB of the sweep's process", "ratio"),
        [(count, f"{size:.1f}", f"{size / first:.3f}") for count, size in held.items()],
    )
    text += "\n\n" + table(
        ("start-up", "s", "target"),
        [(name, f"{started[name]:.2f}", goal) for name, goal in zip(starts, ("2", "4", "none"), strict=True)],
    )
    write_section("Sweep", text, command="python -m benchmarks.sweep", packages=("hydra-core",))


if __name__ == "__main__":
    main()
