"""Sweeps: many runs from one command, each in a process of its own, to be stopped and taken up at any moment.

Nothing in here imports torch: the process of the sweep stays small and starts at once.
"""

import sys
from pathlib import Path

# Before Hydra looks for plugins, and before the processes of Slurm and Ray unpickle what refers to them.
if (plugins := str(Path(__file__).parent / "plugins")) not in sys.path:
    sys.path.append(plugins)
