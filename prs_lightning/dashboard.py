"""The W&B dashboard as code: a saved view with a section for each group of measures.

    python -m prs_lightning.dashboard ENTITY/PROJECT           make it, and print its address
    python -m prs_lightning.dashboard ENTITY/PROJECT --print   show what would be sent, and send nothing

Needs the extra ``dashboard``: pip install 'prs-lightning[dashboard]'.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from prs_lightning.errors import ConfigError, in_one_line
from prs_lightning.measures import (
    AUDITED_ACCURACY,
    COLUMNS,
    DISTANCE,
    GROUPS,
    LOGIT_GAP,
    PRS_RATIO,
    ROBUST_ACCURACY,
)
from prs_lightning.online import check_wandb

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


def dashboard(entity: str, project: str) -> Workspace:
    """The view: the claim's scatter plots, the arms of interventions side by side, then a line plot over the epochs for
    every measure; runs grouped by sweep.

    Raises:
        ConfigError: the package wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ModuleNotFoundError as error:
        raise ConfigError("the dashboard needs wandb-workspaces: pip install 'prs-lightning[dashboard]'") from error

    class PointPerRun(workspaces.Section):
        """A section whose panels show runs: grouped as the table is, each sweep would be one point."""

        def _to_model(self) -> Any:
            model = super()._to_model()
            model.local_panel_settings.use_runs_table_grouping_in_panels = False
            return model

    def scatter(name: str, title: str, legend: str | None = None) -> Any:
        x, y = panels.SummaryMetric(PRS_RATIO), panels.SummaryMetric(name)
        return panels.ScatterPlot(title=title, x=x, y=y, range_x=(0, 1), range_y=(0, 1), legend_template=legend)

    def bars(name: str) -> Any:
        """A bar for each arm: the mean of its runs, and their standard deviation."""
        return panels.BarPlot(
            title=f"{name} by arm", metrics=[name], groupby=panels.Config("arm"),
            groupby_aggfunc="mean", groupby_rangefunc="stddev",
        )  # fmt: skip

    both = (ROBUST_ACCURACY, AUDITED_ACCURACY)
    claim = [scatter(name, f"PRS ratio against {name}") for name in both]
    by_arm = "${config:arm} ${config:strength}"
    causes = [scatter(name, f"PRS ratio against {name}, by arm", by_arm) for name in reversed(both)]
    causes += [bars(name) for name in (PRS_RATIO, AUDITED_ACCURACY, ROBUST_ACCURACY, LOGIT_GAP, DISTANCE)]
    sections: list[Any] = [
        PointPerRun(name="PRS ratio against robust accuracy", panels=claim, is_open=True),
        PointPerRun(name="Causes: the arms of interventions", panels=causes, is_open=True),
    ]
    for group, title in GROUPS.items():
        names = [name for name in COLUMNS if name.startswith(f"{group}/")]
        lines: list[Any] = [panels.LinePlot(title=name, x="Step", y=[name]) for name in names]
        sections.append(workspaces.Section(name=title, panels=lines, is_open=group in ("robust", "prs")))
    grouped = workspaces.RunsetSettings(groupby=[workspaces.Config("sweep")])
    return workspaces.Workspace(
        entity=entity, project=project, name="Regions and robustness", sections=sections, runset_settings=grouped
    )


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m prs_lightning.dashboard", description="make the W&B dashboard")
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    parser.add_argument("--print", action="store_true", dest="only_print", help="show what would be sent")
    chosen = parser.parse_args(arguments)
    entity, _, project = chosen.project.partition("/")
    try:
        if not entity or not project or "/" in project:
            raise ConfigError(f"{chosen.project} is no project: expected ENTITY/PROJECT")
        view = dashboard(entity, project)
        if chosen.only_print:
            print(view._to_model().model_dump_json(indent=2, by_alias=True, exclude_none=True))
            return
        check_wandb({"mode": "online", "project": project, "entity": entity})
    except ConfigError as error:
        sys.exit(f"error: {error}")
    try:
        print(view.save_as_new_view().url)
    except Exception as error:  # of all kinds: it is other people's code
        sys.exit(f"error: W&B did not take the dashboard ({in_one_line(error)})")


if __name__ == "__main__":
    main()
