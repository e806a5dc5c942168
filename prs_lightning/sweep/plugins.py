"""Makes the sweeper and the launchers known to Hydra."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from prs_lightning.sweep.engines import EngineLauncher
from prs_lightning.sweep.launcher import ProcessLauncher, RangeSweeper

PLUGINS = "hydra_plugins"


def register() -> None:
    """Make the plugins known to Hydra, before ``hydra.main``.

    Hydra takes plugins from the namespace ``hydra_plugins`` only. They get a name in there, while their module stays
    this one, so that the processes of Slurm and Ray can unpickle what refers to them.
    """
    try:
        namespace = importlib.import_module(PLUGINS)
    except ModuleNotFoundError:  # no other plugin is installed
        namespace = sys.modules[PLUGINS] = ModuleType(PLUGINS)
        namespace.__path__ = []  # a package without modules, which Hydra scans in vain
    name = f"{PLUGINS}.prs_lightning"
    module = sys.modules[name] = namespace.prs_lightning = ModuleType(name)  # type: ignore[attr-defined]
    for plugin in (RangeSweeper, ProcessLauncher, EngineLauncher):
        setattr(module, plugin.__name__, plugin)
        Plugins.instance().register(plugin)
        Plugins.instance().class_name_to_class[f"{name}.{plugin.__name__}"] = plugin
    # Other launchers, used directly, would know neither our directories nor what to skip; conf/hydra/launcher has ours.
    # One of the same name would count as a schema that ours must obey, and --help copies each of them 80 times.
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in launchers.keys() - {"basic.yaml"}:
        del launchers[name]
