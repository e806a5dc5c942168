"""Panels together: a random-effects summary of effects with their variances, and how far the panels differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from prs_lightning.analysis.statistics import NAN

PANELS = 5
"""From this number of panels on their effects are taken for a sample of more: with fewer, Student's t of panels - 1
degrees of freedom says less of three panels that agree than of one of them."""


@dataclass(frozen=True)
class Estimate:
    """An effect with its variance; the interval is that of Student's t with ``freedom`` degrees of freedom."""

    value: float = NAN
    variance: float = NAN
    freedom: float = 0

    @property
    def known(self) -> bool:
        return not np.isnan(self.value) and self.variance > 0 and self.freedom >= 1

    def interval(self, level: float) -> tuple[float, float]:
        """Both ends; NaN where there is none."""
        if not self.known:
            return NAN, NAN
        half = stats.t.ppf((1 + level) / 2, self.freedom) * np.sqrt(self.variance)
        return float(self.value - half), float(self.value + half)

    @property
    def p(self) -> float:
        """Two-sided, of an effect of 0."""
        return float(2 * stats.t.sf(abs(self.value) / np.sqrt(self.variance), self.freedom)) if self.known else NAN


@dataclass(frozen=True)
class Pooled:
    """The summary of panels.

    Attributes:
        summary: of all panels.
        q_p: of Cochran's Q, that all panels have one effect; NaN for one panel.
        i2: share of the variance between panels that is not noise, in [0, 1]; NaN for one panel.
        new_low, new_high: where the effect of a new panel is expected; NaN below ``PANELS``.
        without: the summary without each panel in turn; empty below ``PANELS``.
    """

    summary: Estimate
    q_p: float = NAN
    i2: float = NAN
    new_low: float = NAN
    new_high: float = NAN
    without: tuple[Estimate, ...] = ()


def pooled(panels: Sequence[Estimate], level: float = 0.95) -> Pooled:
    """Random effects (Paule & Mandel 1982), with the larger of the plain and of Hartung & Knapp's standard error.

    Of fewer than ``PANELS`` panels, too few to tell how panels differ, the plain mean, for these alone; one panel is
    itself. The larger error: Roever, Knapp & Friede 2015. The interval of a new panel: Higgins, Thompson &
    Spiegelhalter 2009, eq. 12.
    """
    known = [panel for panel in panels if panel.known]
    summary, tau2, q = _summary(known)
    if len(known) < 2:
        return Pooled(summary)
    q_p, i2 = float(stats.chi2.sf(q, len(known) - 1)), max(0.0, 1 - (len(known) - 1) / max(q, 1e-300))
    if len(known) < PANELS:
        return Pooled(summary, q_p, i2)
    half = stats.t.ppf((1 + level) / 2, len(known) - 2) * np.sqrt(tau2 + summary.variance)
    without = tuple(_summary(known[:place] + known[place + 1 :])[0] for place in range(len(known)))
    return Pooled(summary, q_p, i2, summary.value - half, summary.value + half, without)


def put_together(panels: int) -> str:
    """How so many panels are put together, behind the words of a measure; nothing for one.

    >>> put_together(9), put_together(2), put_together(1)
    (', random effects of panels', ', mean of these panels', '')
    """
    if panels < 2:
        return ""
    return ", random effects of panels" if panels >= PANELS else ", mean of these panels"


def _summary(known: Sequence[Estimate]) -> tuple[Estimate, float, float]:
    """The summary, the variance between panels and Cochran's Q."""
    if len(known) < 2:
        return (known[0] if known else Estimate()), NAN, NAN
    effects, variances = (np.array([getattr(panel, name) for panel in known]) for name in ("value", "variance"))
    with np.errstate(divide="ignore", invalid="ignore"):  # Q of 0: all panels are alike
        found = combine_effects(effects, variances)
    if len(known) < PANELS:
        freedom = variances.sum() ** 2 / sum(panel.variance**2 / panel.freedom for panel in known)  # Satterthwaite
        return (
            Estimate(float(effects.mean()), float(variances.sum()) / len(known) ** 2, float(freedom)),
            NAN,
            float(found.q),
        )
    variance = max(float(found.var_eff_w_re), float(found.var_hksj_re))
    return Estimate(float(found.mean_effect_re), variance, len(known) - 1), max(float(found.tau2), 0), float(found.q)
