"""What the dashboard would send to W&B."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("wandb_workspaces")

from prs_lightning.dashboard import main
from prs_lightning.measures import COLUMNS

# wandb-workspaces itself is written for an older pydantic
pytestmark = pytest.mark.filterwarnings("ignore:.*Pydantic V1 style.*:DeprecationWarning")


@pytest.fixture
def sent(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    main(["somebody/some-project", "--print"])
    view: dict[str, Any] = json.loads(capsys.readouterr().out)
    return view


def sections(view: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = view["spec"]["section"]["panelBankConfig"]["sections"]
    return found


def test_it_goes_to_the_named_project(sent: dict[str, Any]) -> None:
    assert (sent["entity"], sent["project"]) == ("somebody", "some-project")


def test_every_measure_has_a_line_plot_in_the_section_of_its_group(sent: dict[str, Any]) -> None:
    plotted = []
    for section in sections(sent)[2:]:
        names = [metric for panel in section["panels"] for metric in panel["config"]["metrics"]]
        assert len({name.split("/")[0] for name in names}) == 1, section["name"]
        plotted += names
    assert sorted(plotted) == sorted(name for name in COLUMNS if "/" in name)


def test_the_scatter_plots_show_the_ratio_against_plain_and_audited_robust_accuracy(sent: dict[str, Any]) -> None:
    section = sections(sent)[0]
    axes = [(panel["config"]["xAxis"], panel["config"]["yAxis"]) for panel in section["panels"]]
    assert axes == [
        ("summary:prs/ratio", "summary:robust/pgd20"),
        ("summary:prs/ratio", "summary:robust/pgd20_audited"),
    ]
    assert section["localPanelSettings"]["useRunsTableGroupingInPanels"] is False, "a point for each run, not sweep"


def test_causes_are_shown_by_arm(sent: dict[str, Any]) -> None:
    section = sections(sent)[1]
    configs = [panel["config"] for panel in section["panels"]]
    scatter, bars = [each for each in configs if "xAxis" in each], [each for each in configs if "xAxis" not in each]
    assert [(each["xAxis"], each["yAxis"]) for each in scatter] == [
        ("summary:prs/ratio", "summary:robust/pgd20_audited"),
        ("summary:prs/ratio", "summary:robust/pgd20"),
    ]
    assert all("${config:arm}" in each["legendTemplate"] for each in scatter)
    assert {each["groupBy"] for each in bars} == {"arm.value"}
    shown = [name for each in bars for name in each["metrics"]]
    assert {"logits/gap", "robust/distance", "robust/pgd20_audited"} <= {*shown}


def test_runs_are_grouped_by_sweep(sent: dict[str, Any]) -> None:
    (runs,) = sent["spec"]["section"]["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "sweep.value"}]


@pytest.mark.parametrize("name", ["project", "/project", "entity/", "a/b/c"])
def test_a_name_that_is_no_project_is_refused(name: str) -> None:
    with pytest.raises(SystemExit, match="error: .*expected ENTITY/PROJECT"):
        main([name, "--print"])
