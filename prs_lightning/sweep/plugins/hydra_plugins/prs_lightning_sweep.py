"""Hydra's plugins of this project: it takes them from modules of the namespace ``hydra_plugins`` only."""

from prs_lightning.sweep import engines, launcher, sweeper


class RangeSweeper(sweeper.RangeSweeper):
    """``conf/hydra/sweeper/ranges.yaml``"""


class ProcessLauncher(launcher.ProcessLauncher):
    """``conf/hydra/launcher/processes.yaml``"""


class EngineLauncher(engines.EngineLauncher):
    """``conf/hydra/launcher/slurm.yaml`` and the others that hand jobs on"""
