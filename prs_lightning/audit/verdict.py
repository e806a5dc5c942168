"""One verdict on a robust accuracy, with its reason: by a rule, from the record of findings alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scipy import stats

from prs_lightning.audit.findings import Findings, Trial

TRUSTWORTHY = "trustworthy"
SCALE = "masked: the logits' scale"
ZERO = "masked: zero gradients"
RANDOMNESS = "masked: randomness"
SHORT = "masked: the attack is too short"
UNDECIDED = "undecided"
WORDS = (TRUSTWORTHY, SCALE, ZERO, RANDOMNESS, SHORT, UNDECIDED)

TOLERANCE = 0.05
"""How much robust accuracy another attack may take away; what is close to the border falls to any change."""
BORDER = 0.01
"""A fall counts as found only if its lower bound lies above this."""
LEVEL = 0.95
"""Of one-sided bounds (Clopper & Pearson 1934) and of the test against chance."""
FEWEST = 20
"""Correct samples that a verdict needs."""
SAME = 1e-4
"""Up to this part of the largest logit two passes are the same: a device may add in another order."""

RULE = (
    f"An attack takes something away if the robust accuracy (RA) falls by more than {TOLERANCE:g} of all samples under it "
    f"and the {LEVEL:.0%} lower bound of that fall lies above {BORDER:g}. In this order: "
    "(0) fewer than 20 correct samples, or an accuracy that chance can give: no verdict. "
    f"(1) The outputs differ by more than {SAME:g} of the largest logit when the same images are seen again, or the "
    "gradient of more than 5% of them does: masked: randomness. "
    f"(2) The network has no gradient, under any loss, at more than {TOLERANCE:g} of all samples that withstood PGD, and "
    "a blind attack, transferred images or other starts take something away: masked: zero gradients. "
    "(3) Cross-entropy with more steps or more restarts takes something away, and more than losses that see through the "
    "logits' scale do at the same length: masked: the attack is too short. "
    "(4) A loss without scale, or cross-entropy of logits / T, takes something away at the same length: masked: the "
    "logits' scale. "
    f"(5) Nothing lowers RA by more than {TOLERANCE:g}, not all attacks together, the gradient is exactly 0 at no more "
    "than that of all samples, and an attack without a bound leaves no more than that standing: trustworthy. "
    "(6) Anything else: undecided."
)


@dataclass(frozen=True)
class Verdict:
    """``word`` is one of ``WORDS``, or None where none can be given; ``reason`` is one sentence or two."""

    word: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.word or 'no verdict'}: {self.reason}"


def judge(findings: Findings) -> Verdict:
    """The verdict on what the first attack, PGD with cross-entropy, says of a network.

    The rule is ``RULE``, in the order of its numbers. Zero gradients come before the length of the attack, for where
    nothing moves more random starts are a blind attack; and the length is weighed against the scale by how much each
    takes away, for a loss without scale also wins a little from an attack that is cut short, and more restarts a
    little from one that sees nothing.
    """
    if (reason := refusal(findings)) is not None:
        return Verdict(None, reason)
    gradients, robust = findings.gradients, findings.robust_accuracy
    if gradients.outputs_differ > SAME or gradients.gradients_differ > 0.05:
        what = (
            f"outputs by up to {gradients.outputs_differ:.2g} of the largest logit"
            if gradients.outputs_differ > SAME
            else f"the gradient of {gradients.gradients_differ:.0%} of the images"
        )
        return Verdict(
            RANDOMNESS,
            f"the network is random: seen again, the same images change ({what}). An attack follows the gradient of one "
            "draw and is judged by another; attack the mean over draws instead",
        )
    absent = gradients.absent * robust
    moved = _strongest(findings, "blind", "transfer", "more", "stronger")
    if absent > TOLERANCE and moved is not None:
        return Verdict(
            ZERO,
            f"no loss has a gradient at {gradients.absent:.0%} of those that withstood PGD, yet {_tells(findings, moved)}",
        )
    longer, through = _strongest(findings, "more"), _strongest(findings, "scale")
    least = findings.fall(through) if through else 0.0
    if longer is not None and findings.fall(longer) > least:
        reach = findings.steps * findings.step_size
        short = f"; steps * step_size = {reach:.3g} < epsilon" if reach < findings.epsilon else ""
        return Verdict(SHORT, f"{_tells(findings, longer)}{short}")
    if through is not None:
        return Verdict(
            SCALE,
            f"{_tells(findings, through)}, at the same length: cross-entropy is exactly 0 in float32 on "
            f"{gradients.underflow:.0%} of the correct samples (median logit gap {gradients.logit_gap:.3g})",
        )
    return _rest(findings)


def refusal(findings: Findings) -> str | None:
    """Why no verdict can be given; None if it can.

    Chance is the larger of 1 / classes and the share of the most frequent label: the exact binomial test.
    """
    correct, samples = findings.correct, findings.samples
    chance = max(1 / findings.classes, findings.largest_class)
    if stats.binom.sf(correct - 1, samples, chance) > 1 - LEVEL:
        return (
            f"{correct} of {samples} samples are classified correctly, which chance can give ({chance:.0%} each): there is "
            "no accuracy to be robust"
        )
    if correct < FEWEST:
        return f"{correct} of {samples} samples are classified correctly, a verdict needs {FEWEST}: give more images"
    return None


def _rest(findings: Findings) -> Verdict:
    """Trustworthy or undecided, once no cause of masking was found."""
    gradients, robust = findings.gradients, findings.robust_accuracy
    told = f"robust accuracy {robust:.3f} under PGD, {findings.audited_accuracy:.3f} after all attacks"
    over = [trial for trial in findings.trials if findings.fall(trial) > TOLERANCE]
    if sure := [trial for trial in over if lower_bound(findings, trial) > BORDER]:
        why = f"{_tells(findings, max(sure, key=findings.fall))}, without a cause that the rule knows"
        return Verdict(UNDECIDED, f"{why}: quote the audited number, {findings.audited_accuracy:.3f}")
    if over:
        return Verdict(
            UNDECIDED,
            f"{_tells(findings, max(over, key=findings.fall))}, but of too few samples to tell: give more images",
        )
    if robust - findings.audited_accuracy > TOLERANCE:
        return Verdict(UNDECIDED, f"{told}: no attack alone makes that difference, all together do")
    if gradients.zero_end / findings.samples > TOLERANCE or gradients.absent * robust > TOLERANCE:
        share = max(gradients.zero_end / findings.samples, gradients.absent * robust)
        return Verdict(UNDECIDED, f"the gradient is 0 at {share:.0%} of all samples, though nothing took them: {told}")
    if (left := robust * findings.unbounded / max(findings.met, 1)) > TOLERANCE:
        return Verdict(
            UNDECIDED, f"{left:.0%} of all samples withstand an attack without a bound, which none can: {told}"
        )
    return Verdict(TRUSTWORTHY, f"nothing beats PGD by more than {TOLERANCE:g}: {told}")


def lower_bound(findings: Findings, trial: Trial) -> float:
    """The one-sided lower bound of `Findings.fall` (Clopper & Pearson), given how many stood."""
    if not trial.fell:
        return 0.0
    share = stats.beta.ppf(1 - LEVEL, trial.fell, trial.met - trial.fell + 1)
    return findings.robust_accuracy * float(share)


def takes_away(findings: Findings, trial: Trial) -> bool:
    """Whether a fall is more than the border's, and surely so."""
    return findings.fall(trial) > TOLERANCE and lower_bound(findings, trial) > BORDER


def _strongest(findings: Findings, *families: str) -> Trial | None:
    """The attack of these families that takes away the most; None if none takes anything away."""
    found: Iterable[Trial] = (
        each for each in findings.trials if each.family in families and takes_away(findings, each)
    )
    return max(found, key=findings.fall, default=None)


def _tells(findings: Findings, trial: Trial) -> str:
    some = "" if trial.met == findings.standing else f", estimated on {trial.met} of {findings.standing} survivors"
    return f"RA falls from {findings.robust_accuracy:.3f} to {findings.after(trial):.3f} under {trial.name}{some}"
