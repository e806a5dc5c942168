"""Run directories: the record of each training run, its name, checkpoints, provenance and status. Needs no torch."""

import sys

from prs_lightning.signals import stand

if sys.argv[0] == "-m":  # python -m prs_lightning.runs, before the imports below, which take their time
    stand()

from prs_lightning.runs.directory import RunDirectory, Status
from prs_lightning.runs.finding import find_runs
from prs_lightning.runs.writing import write_atomically, write_text

__all__ = ["RunDirectory", "Status", "find_runs", "write_atomically", "write_text"]
