"""The W&B dashboard as code: a saved view with a section for each group of measures.

    python -m prs_lightning.dashboard ENTITY/PROJECT           make it, and print its address
    python -m prs_lightning.dashboard ENTITY/PROJECT --print   show what would be sent, and send nothing

Needs the extra ``dashboard``: pip install 'prs-lightning[dashboard]'.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prs_lightning.errors import ConfigError
from prs_lightning.measures import AUDITED_ACCURACY, COLUMNS, GROUPS, PRS_RATIO, ROBUST_ACCURACY

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME = "Regions and robustness"
SCATTERED = (ROBUST_ACCURACY, AUDITED_ACCURACY)


def groups() -> dict[str, list[str]]:
    """The measures of a run by the first part of their names.

    >>> groups()["weights"]
    ['weights/cosine_similarity']
    """
    return {group: [name for name in COLUMNS if name.startswith(f"{group}/")] for group in GROUPS}


def dashboard(entity: str, project: str) -> Workspace:
    """The view: the claim's scatter plots, then a line plot over the epochs for every measure; runs grouped by sweep.

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

    ratio = panels.SummaryMetric(PRS_RATIO)
    scatter: list[Any] = [
        panels.ScatterPlot(
            title=f"PRS ratio against {name}", x=ratio, y=panels.SummaryMetric(name), range_x=(0, 1), range_y=(0, 1)
        )
        for name in SCATTERED
    ]
    sections: list[Any] = [PointPerRun(name="PRS ratio against robust accuracy", panels=scatter, is_open=True)]
    sections += [
        workspaces.Section(
            name=GROUPS[group],
            panels=[panels.LinePlot(title=name, x="Step", y=[name]) for name in names],
            is_open=group in ("robust", "prs"),
        )
        for group, names in groups().items()
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=sections,
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Config("sweep")]),
    )


def as_sent(view: Workspace) -> dict[str, Any]:
    """What W&B would be sent, as plain values."""
    model: dict[str, Any] = json.loads(view._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return model


def main(arguments: Sequence[str] | None = None) -> None:
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
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if chosen.only_print:
        print(json.dumps(as_sent(view), indent=2))
    else:
        print(view.save_as_new_view().url)


if __name__ == "__main__":
    main()
