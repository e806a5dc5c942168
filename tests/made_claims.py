"""Claims made by hand: one of every verdict, as verdict.py words them."""

from __future__ import annotations

from typing import Any

from prs_lightning.analysis.verdict import NOT_IN_THE_PAPER, Answer, Claim, PanelAnswers

FOUND, NONE = Answer(0.4, 0.2, 0.6, 0.001), Answer(0.02, -0.1, 0.14, 0.7)
PANELS = (
    PanelAnswers("CNN-6 on MNIST", Answer(0.8, 0.7, 0.9), FOUND, NONE),
    PanelAnswers("VGG-16 on CIFAR-10", Answer(-0.4, -0.6, -0.2), NONE, Answer(0.1)),
    PanelAnswers("ResNet-18 on MNIST", excluded="RA (PGD-20) within one sample of 0 in 30 of 36 models"),
)

VERDICTS = {
    "supported": ("supported", {}),
    "small": ("supported", {"verdict": "supported but small", "between_epochs": FOUND}),
    "contradicted": (
        "contradicted",
        {"association": Answer(-0.5, -0.6, -0.4), "between_runs": NONE, "between_epochs": Answer(-0.3, -0.4, -0.2)},
    ),
    "negligible": ("negligible", {"change": Answer(0.003, -0.001, 0.007)}),
    "association only": (
        "undecided",
        {"verdict": "association only: explained by batch size and the epoch", "between_runs": NONE},
    ),
    "opposite": (
        "undecided",
        {
            "verdict": "association only, against the claim: the opposite at fixed batch size and epoch",
            "association": Answer(-0.5, -0.6, -0.4),
        },
    ),
    "not shown": (
        "undecided",
        {"verdict": "association only: not shown at fixed batch size and epoch", "between_runs": Answer()},
    ),
    "panels disagree": ("undecided", {"verdict": "panels disagree", "association": NONE}),
    "corrected": ("undecided", {"verdict": "undecided after correction for all claims (p 0.02, corrected 0.06)"}),
    "undecided": ("undecided", {"verdict": "undecided on this data", "association": NONE}),
    "fixed alone": (
        "undecided",
        {"verdict": "undecided: a relation at fixed batch size and epoch alone", "association": NONE},
    ),
    "few": (
        "undecided",
        {"verdict": "undecided: too few runs for an interval", "association": Answer(0.3), "between_runs": Answer()},
    ),
    "vanishes": (
        "not measurable",
        {
            "verdict": "the robustness vanishes under the audit",
            "note": "no network keeps more than 0.003 of the test samples; CNN-6 left out: 0 in all models",
        },
    ),
    "strong": (
        "not measurable",
        {
            "verdict": "not measurable at this epsilon: too strong an attack to tell these networks apart; "
            "use a smaller epsilon, or the distance",
            "note": "CNN-6 on MNIST: epsilon about 0.05 would do, the median distance; left out: CNN-6 on MNIST: 0",
        },
    ),
    "not measured": ("not measurable", {"verdict": "not measured", "panels": (), "note": "not measured: distance"}),
}  # fmt: skip
"""By a short name: outcome, and what else the claim has."""


def made(name: str, claim: str = "low PRS ratio → high robust accuracy", **more: Any) -> Claim:
    """The relation claim of ``VERDICTS[name]``."""
    outcome, given = VERDICTS[name]
    numbers = {} if outcome == "not measurable" else {
        "association": Answer(0.56, 0.41, 0.68, 0.001), "between_runs": FOUND, "between_epochs": NONE,
        "change": Answer(0.12, 0.08, 0.16), "fixed_change": Answer(0.004, 0.001, 0.007), "p": 0.002, "p_holm": 0.03,
    }  # fmt: skip
    common = {
        "verdict": outcome, "margin": 0.02, "y": "robust/pgd20", "panels": PANELS, "paper": "OLS slopes",
        "data": "2 panels, 60 models, 20 runs",
    }  # fmt: skip
    return Claim(claim, "4", "Spearman with the PRS ratio", outcome=outcome, **common | numbers | given | more)


def other_form(outcome: str = "supported", **more: Any) -> Claim:
    """A claim that is no relation."""
    given = {"association": Answer(0.08, 0.02, 0.14), "verdict": outcome, "data": "6 networks", "paper": "figure 9"}
    given["claim"] = "inclusion group more robust than exclusion group"
    return Claim(figure="9", measure="RA(inclusion) - RA(exclusion)", outcome=outcome, **given | more)


OURS = {"paper": NOT_IN_THE_PAPER}
