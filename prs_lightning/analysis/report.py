"""The report: one HTML file with everything inlined, and the same tables in Markdown."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd
import yaml

from prs_lightning.analysis.claims import NEGLIGIBLE, RULE, SUPPORTED, UNDECIDED, Claim
from prs_lightning.analysis.panels import SIGNIFICANT, Statistics
from prs_lightning.analysis.relations import PAPER_NOTE, label
from prs_lightning.analysis.resampling import MINIMUM_RUNS
from prs_lightning.analysis.selection import Pair, Selection
from prs_lightning.analysis.table import RunTable, records
from prs_lightning.runs import write_text

if TYPE_CHECKING:
    from prs_lightning.analysis.figures import Made

NOTHING = "–"  # noqa: RUF001  what stands for a number that there is none of


@dataclass(frozen=True)
class Evidence:
    """Everything that the report shows."""

    runs: str
    table: RunTable
    selection: Selection
    statistics: Statistics
    claims: Sequence[Claim]
    figures: Sequence[Made]
    pair: Pair | None
    pair_note: str
    config: Mapping[str, Any]
    commit: str | None
    versions: Mapping[str, str]
    messages: Sequence[str] = ()
    created: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; ``words`` are the columns of running text, the others are numbers or names."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = ()


def write_report(evidence: Evidence, folder: Path) -> Path:
    """Write ``report.html`` and ``report.md`` into ``folder`` and return the path of the first."""
    here = Path(__file__).parent
    content = _content(evidence) | {"css": (here / "report.css").read_text()}
    for markup, name in (("html.jinja", "report.html"), ("markdown.jinja", "report.md")):
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(here), undefined=jinja2.StrictUndefined, autoescape=markup == "html.jinja",
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        environment.filters |= {"inlined": _inlined, "cell": _markdown_cell}
        text = environment.get_template("report.jinja").render(content, markup=markup)
        write_text(folder / name, text.rstrip() + "\n")
    return folder / "report.html"


def _content(evidence: Evidence) -> dict[str, Any]:
    table, selection = evidence.table, evidence.selection
    by_figure: dict[str, list[tuple[str, Table]]] = {}
    for (figure, relation), rows in evidence.statistics.table.groupby(["figure", "relation"], sort=False):
        by_figure.setdefault(str(figure), []).append((str(relation), panel_table(rows)))
    drawn = {made.number for made in evidence.figures if made.png}
    errors: dict[str, list[str]] = {}
    for made in evidence.figures:
        if made.error:
            errors.setdefault(made.error, []).append(made.number)
    return {
        "evidence": evidence,
        "claims": [_claim_cells(claim) for claim in evidence.claims],
        "rule": RULE,
        "misleading": misleading_panels(evidence.statistics.table),
        "by_figure": by_figure,
        "errors": [f"Figure{'s' * (len(which) > 1)} {', '.join(which)}: {error}" for error, which in errors.items()],
        "undrawn": {figure: tables for figure, tables in by_figure.items() if figure not in drawn},
        "counts": Table(
            ("step", "models", "runs"),
            tuple((row["step"], f"{row['models']:,}", f"{row['runs']:,}") for row in records(selection.counts)),
        ),
        "collapsed": _collapsed_table(selection.collapsed),
        "thresholds": Table(
            ("data set", "least test accuracy", "epochs of the grid"),
            tuple(
                (label(name), f"{limit:g}", _epochs(selection.grids.get(name, ())))
                for name, limit in selection.thresholds.items()
            ),
        ),
        "runs_table": _runs_table(table.runs),
        "statuses": ", ".join(f"{count} {status}" for status, count in table.runs["status"].value_counts().items()),
        "commits": sorted({*table.runs["git_commit"].dropna()}),
        "run_versions": sorted({*table.runs["versions"].replace("", None).dropna()}),
        "config": yaml.safe_dump(dict(evidence.config), sort_keys=False),
        "paper_note": PAPER_NOTE, "minimum_runs": MINIMUM_RUNS, "negligible": NEGLIGIBLE,
        "draws": evidence.config["bootstrap"]["draws"], "level": f"{evidence.config['bootstrap']['level']:.0%}",
    }  # fmt: skip


def number(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits.

    >>> number(0.12345), number(-14.32), number(1234567.0), number(float("nan"))
    ('0.123', '-14.3', '1.23e+06', '–')
    """
    return NOTHING if value is None or np.isnan(value) else f"{value:.{digits}g}"


def p_value(value: float) -> str:
    """A p-value as papers print it.

    >>> p_value(0.0321), p_value(1e-9), p_value(float("nan"))
    ('0.032', '<0.001', '–')
    """
    return NOTHING if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.2g}"


def with_interval(value: float, low: float, high: float) -> str:
    """``value [low, high]``; without the brackets where there is no interval."""
    shown = NOTHING if np.isnan(value) else f"{value:.3g}"
    return shown if np.isnan(low) or np.isnan(high) else f"{shown} [{low:.2g}, {high:.2g}]"


PANEL_HEAD = (
    "panel", "models", "runs", "OLS slope, the paper's fit", "its p (Holm)", "paper's slope", "95% interval, runs",
    "clustered p (Holm)", "Spearman", "partial Spearman", "slope within runs", "its p (Holm)", "slope between runs",
    "its p (Holm)", "one model per run: slope", "its p", "what it says",
)  # fmt: skip


def panel_table(rows: pd.DataFrame) -> Table:
    """The statistics of one relation, a row per panel."""
    cells = []
    for row in records(rows):
        if not row["n_models"]:
            cells.append((NOTHING, "0", "0", *[NOTHING] * (len(PANEL_HEAD) - 4), row["note"]))
            continue

        def corrected(name: str, row: dict[str, Any] = row) -> str:
            return NOTHING if np.isnan(row[name]) else f"{p_value(row[name])} ({p_value(row[name + '_holm'])})"

        def slope(name: str, row: dict[str, Any] = row) -> str:
            return with_interval(row[f"{name}_slope"], row[f"{name}_low"], row[f"{name}_high"])

        interval = NOTHING if np.isnan(row["slope_low"]) else f"[{row['slope_low']:.3g}, {row['slope_high']:.3g}]"
        cells.append((
            f"{label(row['model'])}, {label(row['data'])}", str(row["n_models"]), str(row["n_runs"]),
            number(row["ols_slope"]), corrected("ols_p"), number(row["paper_slope"]), interval, corrected("cluster_p"),
            with_interval(row["spearman"], row["spearman_low"], row["spearman_high"]),
            with_interval(row["partial_spearman"], row["partial_low"], row["partial_high"]),
            slope("within"), corrected("within_p"), slope("between"), corrected("between_p"),
            number(row["one_per_run_slope"]), p_value(row["one_per_run_p"]),
            "; ".join(text for text in (row["reading"], row["note"]) if text),
        ))  # fmt: skip
    return Table(PANEL_HEAD, tuple(cells), words=(len(PANEL_HEAD) - 1,))


def misleading_panels(table: pd.DataFrame) -> list[str]:
    """Panels whose OLS p is small although no effect within a run was found, in words."""
    small = table[(table["ols_p"] < SIGNIFICANT) & table["reading"].str.match("between runs only|no effect")]
    return [
        f"Figure {row['figure']}, {row['relation']}, {label(row['model'])} on {label(row['data'])}: OLS p "
        f"{p_value(row['ols_p'])} over {row['n_models']} models, but {row['n_runs']} runs: "
        f"{row['reading'].split(',')[0]} (within runs: p {p_value(row['within_p'])}, between: p "
        f"{p_value(row['between_p'])})."
        for row in records(small)
    ]


def effect(claim: Claim) -> str:
    """The effect of a claim with its interval, positive where it agrees with the claim."""
    if np.isnan(claim.effect):
        return NOTHING
    interval = "" if np.isnan(claim.low) else f" [{claim.low:+.2f}, {claim.high:+.2f}]"
    return f"{claim.effect:+.2f}{interval}"


def _claim_cells(claim: Claim) -> dict[str, Any]:
    style = {SUPPORTED: "supported", UNDECIDED: "undecided"}.get(claim.verdict, "not")
    known = not np.isnan(claim.low)
    place = {
        name: 60 + 55 * float(np.clip(value, -1, 1)) for name, value in vars(claim).items() if name in ("low", "high")
    }
    return {
        "claim": claim, "style": style, "mark": {"supported": "✓", "undecided": "?", "not": "✗"}[style],
        "effect": effect(claim), "drawn": known,
        "point": 60 + 55 * float(np.clip(np.nan_to_num(claim.effect), -1, 1)),
        **(place if known else {"low": 60, "high": 60}),
    }  # fmt: skip


def _collapsed_table(collapsed: pd.DataFrame) -> Table | None:
    if collapsed.empty:
        return None
    rows = [
        (row["run"], f"{row['lost']} of {row['candidates']}", f"{row['lowest']:.3f}", f"{row['threshold']:g}")
        for row in records(collapsed)
    ]
    return Table(("run", "models lost", "lowest test accuracy", "threshold"), tuple(rows))


def _runs_table(runs: pd.DataFrame) -> Table:
    def text(value: object) -> str:
        return NOTHING if value is None or value != value else str(value)

    rows = [
        (
            row["run"], text(row["status"]), f"{row['last_epoch']} of {_whole(row['epochs'])}",
            text(row["git_commit"])[:10], text(row["torch"]), text(row["reason"]),
        )
        for row in records(runs)
    ]  # fmt: skip
    return Table(("run", "status", "epochs", "commit", "torch", "reason"), tuple(rows), words=(5,))


def _whole(value: float) -> str:
    return NOTHING if value != value or value is None else str(int(value))


def _epochs(epochs: Sequence[int], shown: int = 12) -> str:
    return ", ".join(map(str, epochs[:shown])) + (f", … {epochs[-1]}" if len(epochs) > shown else "") or NOTHING


def _inlined(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _markdown_cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
