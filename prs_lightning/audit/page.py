"""The audit as one self-contained page and as JSON: all numbers, each with how many samples it is of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from prs_lightning import analysis
from prs_lightning.analysis.text import in_html
from prs_lightning.audit.checks import Audit
from prs_lightning.audit.findings import Findings, from_plain, plain
from prs_lightning.audit.pictures import pictures
from prs_lightning.audit.verdict import RULE, TRUSTWORTHY, UNDECIDED
from prs_lightning.errors import RunError
from prs_lightning.runs import write_text
from prs_lightning.runs.provenance import git_commit, versions

SCHEMA = 1
"""Of the JSON; raised when a key changes its meaning."""
PACKAGES = ("torch", "numpy", "scipy", "adversarial-robustness-toolbox", "matplotlib")
FAMILIES = {
    "scale": "as many steps, sees past the scale of the logits",
    "more": "cross-entropy, more of it",
    "stronger": "no scale, and more effort",
    "blind": "needs no gradient",
    "transfer": "images of another network",
}


def write(audit: Audit, told: Mapping[str, Any], folder: Path, name: str) -> tuple[Path, Path]:
    """Write ``NAME.html`` and ``NAME.json`` into ``folder``, whole or not at all; their paths.

    Args:
        told: what was audited, and how: plain values, for the head and the end of the page, and the JSON.

    Raises:
        RunError: the folder cannot be written.
    """
    made = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "commit": git_commit()}
    provenance = {**told, **made, "versions": versions(PACKAGES)}
    page, record = folder / f"{name}.html", folder / f"{name}.json"
    write_text(record, json.dumps(as_json(audit, provenance), indent=2, allow_nan=False) + "\n")
    write_text(page, as_html(audit, provenance))
    return page, record


def as_json(audit: Audit, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Everything; what is not finite is null, and so is a verdict that cannot be given."""
    findings = audit.findings
    return {
        "schema": SCHEMA,
        "verdict": audit.verdict.word,
        "reason": audit.verdict.reason,
        "clean_accuracy": findings.clean_accuracy,
        "robust_accuracy": audit.robust_accuracy,
        "audited": audit.audited,
        "masking_gap": audit.masking_gap,
        "median_distance": median if math.isfinite(median := findings.median_distance) else None,
        "checks": [vars(check) for check in audit.checks],
        "findings": plain(findings),
        "provenance": dict(provenance),
    }


def read_json(path: Path) -> Audit:
    """The audit again that a file of `write` holds.

    Raises:
        RunError: it is damaged, or of another schema.
    """
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            raise RunError(f"{path} has schema {content['schema']}, expected {SCHEMA}: audit again")
        return Audit(from_plain(content["findings"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no audit ({type(error).__name__}: {error})") from error


def as_html(audit: Audit, provenance: Mapping[str, Any]) -> str:
    """The page: it refers to nothing outside itself."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, autoescape=True,
        finalize=in_html, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    findings, word = audit.findings, audit.verdict.word
    style = "supported" if word == TRUSTWORTHY else "undecided" if word in (None, UNDECIDED) else "not"
    content = {
        "css": (Path(analysis.__file__).parent / "report.css").read_text(),
        "audit": audit,
        "found": findings,
        "style": style,
        "rule": RULE,
        "families": FAMILIES,
        "pictures": pictures(findings),
        "health": health(findings),
        "median": findings.median_distance,
        "told": provenance,
    }
    return environment.get_template("audit.jinja").render(content).rstrip() + "\n"


def health(findings: Findings) -> list[tuple[str, str, int, str]]:
    """The gradient health: what, found, on how many samples, and what it means."""
    gradients, correct = findings.gradients, findings.correct
    if gradients.outputs_differ == 0:
        twice = "the same"
    else:
        twice = f"differ by {gradients.outputs_differ:.2g} of the largest logit"
    return [
        (
            "zero gradient, clean image", f"{gradients.zero_clean / findings.samples:.1%}", findings.samples,
            "the gradient of cross-entropy is exactly 0: a sign step cannot move the image",
        ),
        (
            "zero gradient where PGD ended", f"{gradients.zero_end / max(findings.standing, 1):.1%}", findings.standing,
            "of the samples that withstood it",
        ),
        (
            "no gradient under any loss", f"{gradients.absent:.1%}", gradients.looked,
            "the margin loss, which knows no scale, has none either: the network itself gives none",
        ),
        (
            "loss underflow", f"{gradients.underflow:.1%}", correct,
            "of the correct samples, cross-entropy is exactly 0 in float32: what is left of its gradient is rounding",
        ),
        (
            "median logit gap", f"{gradients.logit_gap:.3g}", correct,
            "largest minus second logit; cross-entropy is exactly 0 from 17 on",
        ),
        (
            "gradient noise", f"{gradients.noise:.1%}" if gradients.noise_of else "no float64", gradients.noise_of,
            "the gradient has other signs in float64 at more than a tenth of the pixels",
        ),
        ("outputs, seen twice", twice, findings.samples, "or the network is random, and so are its gradients"),
        (
            "gradients, seen twice", f"{gradients.gradients_differ:.1%} differ", gradients.looked,
            "likewise, of the margin loss",
        ),
    ]  # fmt: skip
