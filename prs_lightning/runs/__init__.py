"""Run directories: the record of each training run, its name, checkpoints, provenance and status. Needs no torch."""

from prs_lightning.runs.directory import RunDirectory, Status, write_atomically, write_text
from prs_lightning.runs.finding import find_runs

__all__ = ["RunDirectory", "Status", "find_runs", "write_atomically", "write_text"]
