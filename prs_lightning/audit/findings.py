"""What an audit found: one frozen record of counts and numbers, from which checks, verdict and page follow alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

FAMILIES = ("scale", "more", "stronger", "blind", "transfer")
"""What an attack after the first has that the first has not.

``scale``: as long as the first, but its loss sees through the scale of the logits (a loss without scale, or
cross-entropy of logits / T). ``more``: the same loss, with more steps or restarts. ``stronger``: a loss without scale
and more effort (towards other classes in turn; the search for the boundary). ``blind``: no gradient of the network at
all. ``transfer``: images made on another network.
"""

SAME = 1e-4
"""Up to this part of the largest logit two passes are the same: a device may add in another order."""


@dataclass(frozen=True)
class Trial:
    """An attack on samples that withstood the first: it ``met`` so many of them, and ``fell`` so many did."""

    name: str
    family: str
    met: int
    fell: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Gradients:
    """Whether the network has a gradient that an attack can follow. Shares lie in [0, 1].

    Attributes:
        zero_clean, zero_end: samples whose cross-entropy gradient is exactly 0 at the clean image, and those among the
            ones that withstood the first attack, at the image where it ended.
        looked: at how many clean images, of samples that withstood it, the gradient of the *margin* loss was taken.
        absent: share of ``looked`` at which that gradient is 0 or denormal: it does not hang on the scale of the
            logits, so the network itself has none there.
        underflow: share of the correct samples with a cross-entropy of exactly 0 in float32.
        logit_gap: median over the correct samples of the largest minus the second logit.
        noise, noise_of: share of ``noise_of`` correct samples whose cross-entropy gradient disagrees in sign with the
            one in float64 on more than a tenth of the pixels; NaN where there is no float64.
        outputs_differ: largest difference of a logit between two passes over the same images, as a part of the
            largest logit in absolute value.
        gradients_differ: share of ``looked`` whose margin gradient differs between two passes by more than a thousandth
            of its largest value.
        largest_difference: of a logit between two passes.
        probabilities: the outputs are no logits: none is negative, and they sum to 1.
        output_sums: the smallest and the largest sum of a sample's outputs.
    """

    zero_clean: int
    zero_end: int
    looked: int
    absent: float
    underflow: float
    logit_gap: float
    noise: float
    noise_of: int
    outputs_differ: float
    gradients_differ: float
    probabilities: bool
    output_sums: tuple[float, float]
    largest_difference: float


@dataclass(frozen=True)
class Indicator:
    """A sign that an attack failed for a reason of its own, not for the network's robustness.

    ``value`` was found on ``samples`` samples, up to ``limit`` is fine; NaN where it could not be taken.
    """

    name: str
    value: float
    limit: float
    samples: int
    meaning: str

    @property
    def raised(self) -> bool:
        return self.value > self.limit


@dataclass(frozen=True)
class Findings:
    """Everything that an audit found; epsilon and step size in pixel units.

    Attributes:
        samples, classes, correct: the audited samples, the network's outputs, and how many samples it has right.
        largest_class: share of the most frequent label.
        standing: how many withstood the first attack, PGD with cross-entropy.
        met: how many of those the further attacks met: all, or some that are spread evenly.
        audited: how many of these withstood everything.
        weaker: robust accuracy under FGSM and BIM.
        unbounded: how many of those met withstand the first attack also in a ball of radius 1.
        trials: the attacks on those that withstood the first.
        curve: (epsilon, robust accuracy of cross-entropy PGD), ``curve_of`` samples.
        audited_curve: (epsilon, share that nothing fooled at that epsilon or less), the same samples.
        distances: to the decision boundary, of the correct ones of ``curve_of`` samples; inf where none was found.
    """

    samples: int
    classes: int
    correct: int
    largest_class: float
    epsilon: float
    step_size: float
    steps: int
    standing: int
    met: int
    audited: int
    weaker: tuple[tuple[str, float], ...]
    unbounded: int
    trials: tuple[Trial, ...]
    gradients: Gradients
    indicators: tuple[Indicator, ...]
    curve: tuple[tuple[float, float], ...]
    audited_curve: tuple[tuple[float, float], ...]
    curve_of: int
    distances: tuple[float, ...]

    @property
    def clean_accuracy(self) -> float:
        return self.correct / self.samples

    @property
    def robust_accuracy(self) -> float:
        return self.standing / self.samples

    @property
    def audited_accuracy(self) -> float:
        """Share of all samples that withstood everything; an estimate where not all survivors were met."""
        return self.standing / self.samples * self.audited / self.met if self.met else 0.0

    @property
    def median_distance(self) -> float:
        """NaN where no sample was looked at; inf where the boundary was found for fewer than half."""
        ordered = sorted(self.distances)
        if not ordered:
            return math.nan
        low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
        return low + (high - low) / 2 if math.isfinite(high) else high

    def fall(self, trial: Trial) -> float:
        """By how much the robust accuracy falls under an attack; estimated where it met some of those standing."""
        return self.robust_accuracy * trial.fell / trial.met if trial.met else 0.0

    def after(self, trial: Trial) -> float:
        """The robust accuracy after an attack on those that withstood the first."""
        if trial.met == self.standing:
            return (self.standing - trial.fell) / self.samples
        return self.robust_accuracy - self.fall(trial)

    def trial(self, name: str) -> Trial | None:
        return next((trial for trial in self.trials if trial.name == name), None)


def plain(findings: Findings) -> dict[str, Any]:
    """As plain values for JSON, in which what is not finite is null."""
    return _finite(asdict(findings))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_plain(content: Mapping[str, Any]) -> Findings:
    """The record again, of what `plain` made of it."""
    values: dict[str, Any] = {field.name: content[field.name] for field in fields(Findings)}
    pairs = ("weaker", "curve", "audited_curve")
    values |= {name: tuple((key, math.nan if each is None else each) for key, each in values[name]) for name in pairs}
    gradients: dict[str, Any] = {
        key: math.nan if value is None else value for key, value in values["gradients"].items()
    }
    gradients["output_sums"] = tuple(gradients["output_sums"])
    indicators = [
        each | {"value": math.nan if each["value"] is None else each["value"]} for each in values["indicators"]
    ]
    values |= {
        "trials": tuple(Trial(**each) for each in values["trials"]),
        "gradients": Gradients(**gradients),
        "indicators": tuple(Indicator(**each) for each in indicators),
        "distances": tuple(math.inf if each is None else each for each in values["distances"]),
    }
    return Findings(**values)
