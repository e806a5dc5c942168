"""The report: one HTML file with everything inlined, the same tables in Markdown, and figures and tables to W&B."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd
import yaml

from prs_lightning.analysis import boards, causal_tables, shown
from prs_lightning.analysis.causes import Causes
from prs_lightning.analysis.panel_tables import misleading_panels, panel_tables
from prs_lightning.analysis.panels import Statistics
from prs_lightning.analysis.power import planned
from prs_lightning.analysis.relations import PAPER_NOTE, label
from prs_lightning.analysis.selection import Pair, Selection, varying_settings
from prs_lightning.analysis.setting import what_was_measured
from prs_lightning.analysis.shown import NOTHING, number
from prs_lightning.analysis.statistics import MINIMUM_RUNS
from prs_lightning.analysis.table import RunTable
from prs_lightning.analysis.text import code_span, html_block, in_html, in_markdown, markdown_block
from prs_lightning.analysis.verdict import RULE, Claim, claims_table
from prs_lightning.analysis.words import in_plain_words
from prs_lightning.errors import RunError, in_one_line
from prs_lightning.measures import (
    AUDITED_ACCURACY,
    DISTANCE,
    LOGIT_GAP,
    PRS_RATIO,
    ROBUST_ACCURACY,
    TEMPERATURE,
    TEST_ACCURACY,
)
from prs_lightning.runs import write_text
from prs_lightning.runs.provenance import git_commit, versions

if TYPE_CHECKING:
    from prs_lightning.analysis.figures import Made

PACKAGES = ("numpy", "pandas", "scipy", "statsmodels", "matplotlib", "scikit-learn", "torch")
"""What the numbers of a report may hang on."""


@dataclass(frozen=True)
class Audited:
    """What the audit says of network A or B: its verdict (None: none can be given), the reason, and its page."""

    letter: str
    verdict: str | None
    reason: str
    page: Path | None

    def __str__(self) -> str:
        return f"network {self.letter}: {self.verdict or 'no verdict'}: {self.reason}"


@dataclass(frozen=True)
class Evidence:
    """Everything that the report shows; ``pair_note`` says why that pair, or why there is none.

    ``matched`` is the pair that is alike in logit gap as well, and ``matched_note`` the same of it. ``coupled`` and
    ``power`` are tables of ``analysis.coupled`` and ``analysis.power``, None where not made, as ``causes`` may be.
    """

    config: dict[str, Any]
    table: RunTable
    selection: Selection
    statistics: Statistics
    claims: Sequence[Claim]
    figures: Sequence[Made]
    pair: Pair | None
    pair_note: str
    audits: Sequence[Audited] = ()
    matched: Pair | None = None
    matched_note: str = ""
    coupled: pd.DataFrame | None = None
    power: pd.DataFrame | None = None
    causes: Causes | None = None

    @property
    def words(self) -> list[str]:
        """The report in words, paragraph by paragraph."""
        models, of_pair = self.selection.models, bool(self.pair and self.figures)
        counts = {"runs": models["run"].nunique(), "seeds": models["seed"].nunique()}
        return [
            what_was_measured(self.selection, self.table.runs),
            *in_plain_words(self.claims, **counts, pair=of_pair),
        ]


FILTERS: dict[str, Callable[..., Any]] = {
    "interval": shown.interval,
    "facts": boards.facts,
    "expected": boards.expected,
    "is_relation": shown.is_relation,
    "in_two": shown.in_two,
    "mark": lambda claim: shown.MARKS[shown.kind(claim)],
    "place": lambda value: f"{50 + 48 * np.clip(value, -1, 1):.1f}%",  # of [-1, 1], on the page's axis
    "inlined": lambda picture: f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}",
    "panels": boards.panels_table,
}
"""What the templates ask of a claim and its numbers."""


def write_report(evidence: Evidence, folder: Path) -> Path:
    """Write ``report.html`` and ``report.md`` into ``folder`` and return the path of the first."""
    here = Path(__file__).parent
    content = _content(evidence) | {"css": (here / "report.css").read_text()}
    for markup, name in (("html.jinja", "report.html"), ("markdown.jinja", "report.md")):
        cell, block = (in_html, html_block) if markup == "html.jinja" else (in_markdown, markdown_block)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(here), undefined=jinja2.StrictUndefined, autoescape=True, finalize=cell,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        environment.filters |= FILTERS | {
            "cell": cell,
            "code": code_span,
            "block": block,
        }
        text = environment.get_template("report.jinja").render(content, markup=markup)
        write_text(folder / name, text.rstrip() + "\n")
    return folder / "report.html"


def _content(evidence: Evidence) -> dict[str, Any]:
    """What the template names; a table is a frame of cells as they are shown."""
    runs, selection, statistics = evidence.table.runs, evidence.selection, evidence.statistics.table
    by_figure = panel_tables(statistics)
    drawn = {made.number for made in evidence.figures if made.png}
    errors: dict[str, list[str]] = {}
    for made in evidence.figures:
        if made.error:
            errors.setdefault(made.error, []).append(made.number)
    collapsed, level = selection.collapsed, f"{evidence.config['bootstrap']['level']:.0%}"
    cells = runs.convert_dtypes().astype(object).where(runs.notna(), NOTHING)
    return {
        "evidence": evidence,
        "messages": [*evidence.table.messages, *varying_settings(selection.models)],
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git_commit(),
        "versions": versions(PACKAGES),
        "answers": shown.ANSWERS,
        "board": boards.scoreboard_table(evidence.claims),
        "coupled": None if evidence.coupled is None else boards.coupled_table(evidence.coupled),
        "power": evidence.power,
        "planned": planned(evidence.config["power"]["effect"], evidence.config["power"]["target"]),
        "causal": causal_tables,
        "rule": RULE,
        "misleading": misleading_panels(statistics),
        "by_figure": by_figure,
        "pairs": pairs_table(evidence),
        "errors": [f"Figure{'s' * (len(which) > 1)} {', '.join(which)}: {error}" for error, which in errors.items()],
        "undrawn": {figure: tables for figure, tables in by_figure.items() if figure not in drawn},
        "counts": selection.counts.map(lambda cell: cell if isinstance(cell, str) else f"{cell:,}"),
        "collapsed": pd.DataFrame({
            "run": collapsed["run"],
            "models lost": collapsed["lost"].astype(str) + " of " + collapsed["candidates"].astype(str),
            "lowest test accuracy": collapsed["lowest"].map("{:.3f}".format),
            "threshold": collapsed["threshold"].map("{:g}".format),
        }),
        "thresholds": pd.DataFrame({
            "data set": [label(data) for data in selection.thresholds],
            "least test accuracy": [f"{limit:g}" for limit in selection.thresholds.values()],
            "epochs of the grid": [_epochs(selection.grids[data]) for data in selection.thresholds],
        }),
        "runs_table": cells.assign(
            epochs=[f"{last} of {epochs}" for last, epochs in zip(cells["last_epoch"], cells["epochs"], strict=True)],
            commit=cells["git_commit"].astype(str).str[:10],
        )[["run", "status", "epochs", "commit", "torch", "reason"]],
        "statuses": ", ".join(f"{count} {status}" for status, count in runs["status"].value_counts().items()),
        "commits": sorted({*runs["git_commit"].dropna()}),
        "run_versions": sorted({*runs["versions"].replace("", None).dropna()}),
        "config": yaml.safe_dump(evidence.config, sort_keys=False),
        "paper_note": PAPER_NOTE,
        "minimum_runs": MINIMUM_RUNS,
        "level": level,
        "level_of_tests": evidence.config["bootstrap"]["level"],
        "level_of_changes": f"{2 * evidence.config['bootstrap']['level'] - 1:.0%}",
    }  # fmt: skip


OF_PAIRS = (PRS_RATIO, TEST_ACCURACY, LOGIT_GAP, ROBUST_ACCURACY, AUDITED_ACCURACY, TEMPERATURE, DISTANCE)


def pairs_table(evidence: Evidence) -> pd.DataFrame:
    """Networks A and B, and the two that are alike in logit gap as well, with what tells them apart."""
    rows = evidence.table.rows
    lines = []
    for alike, pair in (("accuracy", evidence.pair), ("accuracy and logit gap", evidence.matched)):
        for letter, network in zip("AB", pair or (), strict=False):
            (found,) = rows[(rows["run"] == network.run) & (rows["epoch"] == network.epoch)].to_dict("records")
            values = [number(float(found.get(name, np.nan))) for name in OF_PAIRS]
            lines.append([f"alike in {alike}", f"{letter}: {network.run}@{network.epoch}", *values])
    return pd.DataFrame(lines, columns=["pair", "network", *(label(name) for name in OF_PAIRS)])


def _epochs(epochs: Sequence[int], shown: int = 12) -> str:
    return ", ".join(map(str, epochs[:shown])) + (f", … {epochs[-1]}" if len(epochs) > shown else "") or NOTHING


def publish(evidence: Evidence, folder: Path) -> None:
    """Log figures and tables to a W&B run of job type ``analyze``, as the config's ``wandb`` says.

    An offline run is kept in ``folder``; nothing is imported or written where the mode is ``disabled``.

    Raises:
        RunError: W&B failed; the report is there all the same.
    """
    if evidence.config["wandb"]["mode"] == "disabled":
        return
    import wandb

    tables = {
        "scoreboard": claims_table(evidence.claims),
        "statistics": evidence.statistics.table,
        "models": evidence.selection.models,
        "runs": evidence.table.runs,
        "coupled_pairs": evidence.coupled,
        "power": evidence.power,
    } | {Path(file).stem: getattr(evidence.causes, name, None) for file, name in causal_tables.FILES.items()}
    try:
        with wandb.init(
            **evidence.config["wandb"], job_type="analyze", name=f"analyze {Path(evidence.config['runs']).name}",
            dir=str(folder), config=evidence.config, settings=wandb.Settings(console="off", silent=True),
        ) as run:  # fmt: skip
            logged: dict[str, Any] = {}
            for name, table in tables.items():
                if table is None or table.empty:
                    continue
                # Text and numbers only: W&B infers a column's type from its values and refuses mixtures.
                whole = table.astype(dict.fromkeys(table.columns[table.dtypes == "Int64"], float))
                plain = whole.apply(lambda each: each if pd.api.types.is_numeric_dtype(each) else each.astype(str))
                logged[f"tables/{name}"] = wandb.Table(dataframe=plain)
            for made in evidence.figures:
                if made.png:
                    logged[f"figures/{made.number}"] = wandb.Image(str(made.png), caption=made.caption)
            run.log(logged)
    except Exception as error:  # of all kinds: it is other people's code
        raise RunError(f"the report is whole, but W&B did not take it ({in_one_line(error)})") from error
