"""One verdict on a robust accuracy, with its reason: by a rule, from the record of findings alone."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

from prs_lightning.audit.findings import SAME, Findings, Trial

TRUSTWORTHY = "trustworthy"
SCALE = "masked: the logits' scale"
ZERO = "masked: zero gradients"
RANDOMNESS = "masked: randomness"
SHORT = "masked: the attack is too short"
UNDECIDED = "undecided"
WORDS = (TRUSTWORTHY, SCALE, ZERO, RANDOMNESS, SHORT, UNDECIDED)

TOLERANCE = 0.05
"""How much robust accuracy another attack may take away; what is close to the border falls to any change."""
BORDER = 0.03
"""A fall is sure only if its lower bound lies above this: what a robust network loses to PGD-100, say."""
LEVEL = 0.95
"""Of one-sided bounds (Clopper & Pearson 1934) and of the test against chance."""
FEWEST = 20
"""Correct samples that a verdict needs."""
ROUNDING = 1e-9
"""Shares of counts: a difference of exactly the tolerance must not hang on this."""

RULE = (
    f"An attack takes something away if the robust accuracy (RA) falls by more than {TOLERANCE:g} under it and the "
    f"{LEVEL:.0%} lower bound of that fall lies above {BORDER:g}. No verdict is given of fewer than {FEWEST} correct "
    "samples, or of an accuracy that chance can give.",
    f"{RANDOMNESS}: seen again, the same images give outputs that differ by more than {SAME:g} of the largest logit, "
    f"or, more than {TOLERANCE:.0%} of them, another gradient.",
    f"{ZERO}: under no loss is there a gradient at more than {TOLERANCE:g} of all samples, which withstood PGD, and a "
    "blind attack, more random starts or images of another network take something away, or the attack without a bound "
    f"leaves more than {TOLERANCE:g} standing, though images of other classes lie within its reach.",
    f"{SHORT}: cross-entropy with more steps or restarts takes something away, and more than the following do.",
    f"{SCALE}: a loss that does not hang on the scale of the logits, or cross-entropy of logits / T, takes something "
    "away in as many steps.",
    f"{TRUSTWORTHY}: no attack, nor all together, lowers RA by more than {TOLERANCE:g}; the gradient is 0 at no more "
    "than that share of all samples, and no more withstand an attack without a bound.",
    f"{UNDECIDED}: anything else.",
)
"""The definition, then each verdict in the order in which they are tried."""


@dataclass(frozen=True)
class Verdict:
    """``word`` is one of ``WORDS``, or None where none can be given; ``reason`` is a sentence or two."""

    word: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.word or 'no verdict'}: {self.reason}"


def judge(findings: Findings) -> Verdict:
    """The verdict on what the first attack, PGD with cross-entropy, says of a network: by ``RULE``, in its order.

    Zero gradients come before the length of the attack, for where nothing moves more random starts are a blind attack.
    The length is weighed against the scale by how much each takes away: a loss without scale also wins a little on
    an attack that is cut short, and more restarts a little on one that sees nothing.
    """
    if (reason := refusal(findings)) is not None:
        return Verdict(None, reason)
    gradients, robust = findings.gradients, findings.robust_accuracy
    if changes := _changes(findings):
        return Verdict(
            RANDOMNESS,
            f"seen again, the same images give {changes}. An attack follows the gradient of one draw and is judged by "
            "another; attack the mean over many draws instead",
        )
    left = _unbounded(findings)
    if _beyond(gradients.absent * robust):
        moved = _strongest(findings, "blind", "transfer", "more", "stronger")
        found = f"at {gradients.absent:.0%} of the samples that withstood PGD no loss has a gradient"
        if moved is not None:
            return Verdict(ZERO, f"{found}, yet {_tells(findings, moved)}")
        if _beyond(left):
            return Verdict(
                ZERO, f"{found}, and {left:.0%} of all withstand the attack without a bound: nothing was tried on them"
            )
    longer, through = _strongest(findings, "more"), _strongest(findings, "scale")
    if longer is not None and (through is None or findings.fall(longer) > findings.fall(through)):
        reach = findings.steps * findings.step_size
        short = f"; steps * step_size = {reach:.3g} < epsilon" if reach < findings.epsilon else ""
        return Verdict(SHORT, f"{_tells(findings, longer)}{short}")
    if through is not None:
        return Verdict(
            SCALE,
            f"{_tells(findings, through)} in as many steps; cross-entropy is exactly 0 in float32 on "
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
            f"{correct} of {samples} samples are classified correctly, as chance can give ({chance:.0%}): there is no "
            "accuracy that could be robust"
        )
    if correct < FEWEST:
        return f"{correct} of {samples} samples are classified correctly, a verdict needs {FEWEST}: give more images"
    return None


def lower_bound(findings: Findings, trial: Trial) -> float:
    """The one-sided lower bound of `Findings.fall` (Clopper & Pearson), given how many stood."""
    if not trial.fell:
        return 0.0
    share = stats.beta.ppf(1 - LEVEL, trial.fell, trial.met - trial.fell + 1)
    return findings.robust_accuracy * float(share)


def takes_away(findings: Findings, trial: Trial) -> bool:
    """Whether a fall is more than the border's, and surely so."""
    return _beyond(findings.fall(trial)) and lower_bound(findings, trial) > BORDER


def _rest(findings: Findings) -> Verdict:
    """Trustworthy or undecided, once no cause of masking was found."""
    gradients, robust = findings.gradients, findings.robust_accuracy
    told = f"RA is {robust:.3f} under PGD and {findings.audited_accuracy:.3f} after all attacks"
    over = [trial for trial in findings.trials if _beyond(findings.fall(trial))]
    if sure := [trial for trial in over if takes_away(findings, trial)]:
        why = f"{_tells(findings, max(sure, key=findings.fall))}, and the rule knows no cause"
        return Verdict(UNDECIDED, f"{why}: quote the audited RA, {findings.audited_accuracy:.3f}")
    if over:
        most = _tells(findings, max(over, key=findings.fall))
        return Verdict(UNDECIDED, f"{most}, which so few samples do not make sure: give more images")
    if _beyond(robust - findings.audited_accuracy):
        return Verdict(UNDECIDED, f"{told}: no attack alone makes that difference. Quote the second")
    if _beyond(zero := max(gradients.zero_end / findings.samples, gradients.absent * robust)):
        return Verdict(UNDECIDED, f"the gradient is 0 at {zero:.0%} of all samples, though no attack took them; {told}")
    if _beyond(left := _unbounded(findings)):
        return Verdict(
            UNDECIDED, f"{left:.0%} of all samples withstand the attack without a bound, as none can; {told}"
        )
    return Verdict(TRUSTWORTHY, f"nothing lowers RA by more than {TOLERANCE:g}: it {told.removeprefix('RA ')}")


def _beyond(share: float) -> bool:
    return share > TOLERANCE + ROUNDING


def _changes(findings: Findings) -> str:
    """What is another when the same images are seen again; nothing if nothing is."""
    gradients = findings.gradients
    if gradients.outputs_differ > SAME:
        return f"other outputs (by up to {gradients.outputs_differ:.2g} of the largest logit)"
    return f"another gradient at {gradients.gradients_differ:.0%}" if _beyond(gradients.gradients_differ) else ""


def _unbounded(findings: Findings) -> float:
    """The share of all samples that withstand the attack without a bound."""
    return findings.robust_accuracy * findings.unbounded / findings.met if findings.met else 0.0


def _strongest(findings: Findings, *families: str) -> Trial | None:
    """The attack of these families that takes away the most; None if none takes anything away."""
    found = [trial for trial in findings.trials if trial.family in families and takes_away(findings, trial)]
    return max(found, key=findings.fall, default=None)


def _tells(findings: Findings, trial: Trial) -> str:
    some = "" if trial.met == findings.standing else f" (estimated on {trial.met} of {findings.standing} survivors)"
    return f"RA falls from {findings.robust_accuracy:.3f} to {findings.after(trial):.3f} under {trial.name}{some}"
