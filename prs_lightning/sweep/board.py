"""What the terminal shows of a sweep: a live table, a line per event, and at the end what failed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prs_lightning.runs import Status
from prs_lightning.sweep.plan import Job
from prs_lightning.sweep.processes import LOG_FILE, log_tail


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds.

    >>> clock(3723.4), clock(None)
    ('1:02:03', '?')
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def estimated_seconds(elapsed: float, epochs_done: int, epochs_left: int) -> float | None:
    """Time left if the epochs to come take as long as those of this sweep so far; None before the first."""
    return elapsed * epochs_left / epochs_done if epochs_done > 0 else None


class Board:
    """Follows the jobs of a sweep through their run directories.

    Args:
        jobs: the jobs that are to run.
        outcomes: of the jobs that need no run, by reason.
        running: gives the jobs that run now, with the seconds since they started.
    """

    def __init__(
        self, jobs: Sequence[Job], outcomes: Iterable[Status], running: Callable[[], list[tuple[Job, float]]]
    ) -> None:
        self.jobs, self.running = jobs, running
        self.outcomes = Counter(outcomes)
        self.total = len(jobs) + self.outcomes.total()
        self.started = time.monotonic()
        self.at_start = {job.name: job.epochs_done for job in jobs}
        self.open = {job.name: job for job in jobs}
        self.epochs_of_ended = 0
        self.failures: list[tuple[Job, str]] = []
        self.console = Console()
        self.counting = threading.Lock()
        self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=1, transient=True)

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line above the live table."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def ended(self, job: Job, outcome: Status, seconds: float) -> None:
        """Count a job that ended, and show why it failed."""
        with self.counting:  # jobs end in threads of their own
            self.outcomes[outcome] += 1
            del self.open[job.name]
            self.epochs_of_ended += max(0, job.epochs_done - self.at_start[job.name])
            style = {Status.FINISHED: "green", Status.FAILED: "bold red"}.get(outcome, "yellow")
            self.say(f"{outcome}: {job.name} after {clock(seconds)} ({self.outcomes.total()} of {self.total})", style)
            if outcome == Status.FAILED:
                why = str(job.run.record().get("reason"))
                self.failures.append((job, why))
                self.say(f"  {why}; the end of {job.run.path / LOG_FILE}:", "red")
                for line in log_tail(job.run):
                    self.say(f"  | {line}", "dim")

    def seconds_left(self) -> float | None:
        """Estimate from the epochs that this sweep has trained so far."""
        running = {job.name: job.epochs_done for job, _ in self.running()}
        done = self.epochs_of_ended + sum(count - self.at_start[name] for name, count in running.items())
        left = sum(job.epochs - running.get(name, self.at_start[name]) for name, job in list(self.open.items()))
        return estimated_seconds(time.monotonic() - self.started, done, left)

    def render(self) -> RenderableType:
        """The live table: what runs, and how much is done, failed and left."""
        running = self.running()
        table = Table("running", "epoch", "time")
        for job, seconds in running:
            table.add_row(job.name, f"{job.epochs_done}/{job.epochs}", clock(seconds))
        return Group(table, Text(self.summary(len(running))))

    def summary(self, running: int = 0) -> str:
        """Counts in one line."""
        parts = [f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items())]
        left = len(self.open) - running
        parts += [f"{running} running"] * bool(running) + [f"{left} left"] * bool(left)
        end = f", about {clock(self.seconds_left())} to go" if self.open else ""
        return f"{self.total} runs: {', '.join(parts)}{end}"

    def close(self) -> None:
        """Print the counts and a table of what failed."""
        self.say(self.summary())
        if self.failures:
            table = Table("failed", "reason")
            for job, why in self.failures:
                table.add_row(Text(str(job.run.path), overflow="fold"), Text(why))
            self.console.print(table)
