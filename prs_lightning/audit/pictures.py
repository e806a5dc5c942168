"""The pictures of an audit: robust accuracy by attack and over epsilon, and how far the decision boundary is."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prs_lightning.analysis.figures import style
from prs_lightning.audit.findings import Findings

BINS = 20


@dataclass(frozen=True)
class Picture:
    """A PNG and what to see there."""

    title: str
    caption: str
    png: bytes

    @property
    def inlined(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def pictures(findings: Findings) -> list[Picture]:
    """All of them, in the page's order."""
    with style.paper_style():
        drawn = [by_attack(findings), over_epsilon(findings), distances(findings)]
        return [Picture(title, caption, _png(canvas)) for title, caption, canvas in drawn]


Drawn = tuple[str, str, Figure]


def by_attack(findings: Findings) -> Drawn:
    """A bar per attack: the robust accuracy that it leaves."""
    rows: list[tuple[str, float, str | None]] = [("cross-entropy, PGD", findings.robust_accuracy, None)]
    rows += [(trial.name, findings.after(trial), trial.family) for trial in findings.trials]
    canvas, grid = style.panels(1, 1, height=0.55 + 0.15 * len(rows))
    axes = grid[0, 0]
    for place, (_, accuracy, family) in enumerate(rows):
        axes.barh(place, accuracy, height=0.7, color=style.GREY if family is None else style.BLUE)
        axes.text(1.02, place, f"{accuracy:.3f}", va="center")
    axes.axvline(findings.robust_accuracy, color=style.GREY, linewidth=0.8, linestyle="--")
    axes.axvline(findings.audited_accuracy, color=style.VERMILION, linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.13), xlabel="robust accuracy")
    axes.grid(axis="y", visible=False)
    caption = (
        f"Robust accuracy after each attack; all but the first meet {findings.met} of the {findings.standing} samples "
        f"(of {findings.samples}) that withstood it. The red line is what withstood everything. To see: a bar far "
        "short of the first is an attack that saw what cross-entropy did not."
    )
    return "Robust accuracy by attack", caption, canvas


def over_epsilon(findings: Findings) -> Drawn:
    """Cross-entropy PGD over epsilon, and under it everything that is known."""
    canvas, grid = style.panels(1, 1, height=2.1)
    axes = grid[0, 0]
    radii, known = zip(*findings.audited_curve, strict=True)
    axes.step(radii, known, where="post", color=style.VERMILION, label="audited: every attack", linewidth=1.2)
    axes.fill_between(radii, known, step="post", color=style.VERMILION, alpha=0.12, linewidth=0)
    epsilons, accuracies = zip(*findings.curve, strict=True)
    axes.plot(epsilons, accuracies, label="PGD with cross-entropy", color=style.BLUE, marker="o")
    axes.axvline(findings.epsilon, color=style.GREY, linewidth=0.8, linestyle="--")
    axes.set(xlabel="epsilon", ylabel="robust accuracy", ylim=(-0.03, 1.03))
    style.legend(canvas, columns=2)
    caption = (
        f"Robust accuracy over epsilon on {findings.curve_of} samples; dashed: the audited epsilon, "
        f"{findings.epsilon:.3g}. Audited counts a sample as fooled from the smallest radius on at which any "
        "attack, or the search for the boundary, found a misclassified image. To see: the white space between the "
        "lines is masking."
    )
    return "Robust accuracy over epsilon", caption, canvas


def distances(findings: Findings) -> Drawn:
    """A histogram of the distances to the decision boundary."""
    canvas, grid = style.panels(1, 1, height=2.1)
    axes = grid[0, 0]
    found = [value for value in findings.distances if math.isfinite(value)]
    nowhere = len(findings.distances) - len(found)
    if found:
        axes.hist(
            found,
            bins=BINS,
            range=(0, max(*found, findings.epsilon)),
            color=style.SKY,
            edgecolor="white",
            linewidth=0.4,
        )
        if math.isfinite(median := findings.median_distance):
            axes.axvline(median, color=style.BLUE, label=f"median {median:.3g}")
        axes.axvline(
            findings.epsilon, color=style.GREY, linestyle="--", linewidth=0.8, label=f"epsilon {findings.epsilon:.3g}"
        )
        axes.set(xlabel="distance to the decision boundary, L-inf", ylabel="samples")
        style.legend(canvas)
    else:
        style.say(axes, "no image of another class was found by following a gradient")
    missing = f" For {nowhere} none was found." if nowhere else ""
    caption = (
        f"Distance of the {len(findings.distances)} correctly classified ones of {findings.curve_of} samples to the "
        f"nearest misclassified image that was found, each verified: an upper bound, which cannot saturate.{missing} "
        "To see: what lies left of the dashed line is not robust, whatever an attack says."
    )
    return "Distance to the decision boundary", caption, canvas


def _png(canvas: Figure) -> bytes:
    FigureCanvasAgg(canvas)
    file = io.BytesIO()
    canvas.savefig(file, format="png", metadata={"Software": None})  # the same numbers give the same file
    return file.getvalue()
