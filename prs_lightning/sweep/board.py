"""What the terminal shows of a sweep: a live table, a line per event, and at the end what failed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from prs_lightning.errors import printable
from prs_lightning.runs import Status
from prs_lightning.sweep.processes import LOG_FILE, Job, log_tail


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3723.4)
    '1:02:03'
    """
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Board(Progress):
    """Follows the jobs of a sweep through their run directories; those that run are the rows of the live table.

    Args:
        jobs: the jobs that are to run.
        outcomes: of the jobs that need no run, by reason.
    """

    def __init__(self, jobs: Sequence[Job], outcomes: Iterable[Status]) -> None:
        self.began, self.counting = time.monotonic(), threading.Lock()
        self.outcomes = Counter(outcomes)
        self.total = len(jobs) + self.outcomes.total()
        self.failures: list[tuple[Job, str]] = []
        self.left: dict[Job, TaskID] = {}
        columns = TextColumn("{task.description}", markup=False), "epoch {task.completed}/{task.total}"
        super().__init__(*columns, TimeElapsedColumn(), refresh_per_second=1, transient=True)  # renders at once
        self.disable = not self.console.is_terminal
        for job in jobs:
            name, epochs, done = printable(job.run.path.name), int(job.config["epochs"]), job.epochs_done
            self.left[job] = self.add_task(name, False, epochs, done, visible=False, before=done)

    def say(self, text: str, style: str = "") -> None:
        """Print a line above the live table."""
        self.console.print(Text(printable(text), style=style), soft_wrap=True)

    def started(self, job: Job) -> None:
        """Show a job among those that run."""
        self.start_task(self.left[job])
        self.update(self.left[job], visible=True)

    def ended(self, job: Job, outcome: Status) -> None:
        """Count a job that ended, and show why it failed."""
        with self.counting:  # jobs end in threads of their own
            self.outcomes[outcome] += 1
            row = self.left.pop(job)
            self.update(row, completed=job.epochs_done, visible=False)
            seconds = clock(self.tasks[row].elapsed or 0)
            style = {Status.FINISHED: "green", Status.FAILED: "bold red"}.get(outcome, "yellow")
            self.say(f"{outcome}: {job.run.path.name} after {seconds} ({self.outcomes.total()} of {self.total})", style)
            if outcome == Status.INTERRUPTED and (why := job.run.record().get("reason")):
                self.say(f"  {why}", "yellow")
            if outcome == Status.FAILED:
                why = str(job.run.record().get("reason"))
                self.failures.append((job, why))
                self.say(f"  {why}; the end of {job.run.path / LOG_FILE}:", "red")
                for line in log_tail(job.run):
                    self.say(f"  | {line}", "dim")

    def get_renderables(self) -> Iterable[RenderableType]:
        """The live table: what runs, and how much is done, failed and left."""
        summary = self.summary()
        return self.make_tasks_table(self.tasks), Text(summary)

    def summary(self) -> str:
        """Counts in one line, with an estimate: epochs to come take as long as those of this sweep so far."""
        left = list(self.left.items())
        for job, row in left:
            self.update(row, completed=job.epochs_done)
        tasks = self.tasks
        running = sum(task.visible for task in tasks)
        counts = [*sorted(self.outcomes.items()), ("running", running), ("left", len(left) - running)]
        text = f"{self.total} runs: " + ", ".join(f"{count} {what}" for what, count in counts if count)
        if not left:
            return text
        done = sum(max(0, task.completed - task.fields["before"]) for task in tasks)
        to_do = sum(tasks[row].remaining or 0 for _, row in left)
        estimate = clock((time.monotonic() - self.began) * to_do / done) if done else "?"
        return f"{text}, about {estimate} to go"

    def close(self) -> None:
        """Print the counts and a table of what failed."""
        self.say(self.summary())
        if self.failures:
            table = Table("failed", "reason")
            for job, why in self.failures:
                table.add_row(Text(printable(job.run.path), overflow="fold"), Text(printable(why)))
            self.console.print(table)
