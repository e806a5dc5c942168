"""Sweeps: many runs from one command, each in a process of its own, to be stopped and taken up at any moment.

    ranges     ``seed=0..4`` beside Hydra's own ``range()`` and choices
    plan       what each job of a sweep needs: to run, to go on, or nothing
    processes  a job as a process: its command, its log, its end
    gpus       which job may use which GPU
    board      what the terminal shows
    launcher   the sweeper, and the launcher that runs jobs on this machine
    engines    the launcher that hands jobs to Slurm or Ray
    plugins    a part of the namespace ``hydra_plugins``, where Hydra finds these
    cli        what train.py and analyze.py start with

Nothing in here imports torch: the process of the sweep stays small and starts at once.
"""

import sys
from pathlib import Path

# Before Hydra looks for plugins, and before the processes of Slurm and Ray unpickle what refers to them.
PLUGINS = str(Path(__file__).parent / "plugins")
if PLUGINS not in sys.path:
    sys.path.append(PLUGINS)
