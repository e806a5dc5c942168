"""Timing two or more ways side by side, and keeping the tables of docs/benchmarks.md."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
TITLE = "# Benchmarks\n\nEvery section is written by the command it names (`make bench` runs them all).\n"


def interleaved_medians(
    ways: dict[str, Callable[[], object]], repeats: int = 5, *, warm_ups: int = 1
) -> dict[str, float]:
    """Median seconds of each way, taken in turns so that a noisy machine disturbs all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + warm_ups):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn >= warm_ups:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def machine(packages: Sequence[str] = ("torch",), device: torch.device | None = None) -> str:
    """Processor, threads, the GPU if ``device`` is one, and versions, in one line."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    import torch  # not above: some steps are measured without it

    threads = f"{torch.get_num_threads()} threads"
    card = "no GPU" if device is None or device.type == "cpu" else torch.cuda.get_device_name(device)
    return f"{model}, {threads}, {card}, Python {platform.python_version()}, {versions}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def peak_mebibytes() -> int:
    """Peak resident memory of this process (Linux); ``getrusage`` would count that of the process that started it."""
    peak = next(line for line in _lines("/proc/self/status") if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1024


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_section(
    name: str, body: str, *, command: str, packages: Sequence[str] = ("torch",), device: torch.device | None = None
) -> None:
    """Print the section and put it into docs/benchmarks.md in place of its last version."""
    text = f"## {name}\n\n`{command}`, {date.today()}. {machine(packages, device)}.\n\n{body}\n"
    print(text)
    page = PAGE.read_text() if PAGE.exists() else TITLE
    head, *sections = page.split("\n## ")
    kept = {section.splitlines()[0]: "## " + section.strip() + "\n" for section in sections}
    kept[name] = text
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(head.strip() + "\n\n" + "\n".join(kept[key] for key in sorted(kept)))
