"""Claims about networks A and B, read off the numbers of figures 9 and 6a.

Networks that differ in the seed alone are the units: samples of one network say what that network does, and not what
training does. A and B are two kinds of network: what is said of both is of two strata, not of one sample of networks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.proportion import confint_proportions_2indep

from prs_lightning.analysis.pooling import Estimate
from prs_lightning.analysis.relations import MATCHED, UNMATCHED, in_words, plural
from prs_lightning.analysis.statistics import MINIMUM_RUNS, Array
from prs_lightning.analysis.verdict import (
    CONTRADICTED,
    NEGLIGIBLE,
    NOT_MEASURABLE,
    SUPPORTED,
    UNDECIDED,
    Answer,
    Claim,
)

LEAST = 20
"""A group of fewer samples, or a network with fewer failed attacks, does not count."""
MARGIN = 0.02
"""A smaller difference of shares is negligible."""

MATCHINGS = {
    UNMATCHED: (
        "inclusion group more robust than exclusion group",
        "RA relative to the group's own clean accuracy, inclusion minus exclusion, mean over ε; a network weighs as "
        "the smaller of its groups",
        "figure 9: inclusion above exclusion",
        "a group has no samples",
    ),
    MATCHED: (
        "inclusion group more robust at equal margin",
        "RA relative to the group's own clean accuracy, inclusion minus exclusion, of pairs matched on the clean "
        "margin, mean over ε; a network weighs as its number of pairs",
        "not in the paper",
        "no two samples of the groups are as near in margin",
    ),
}
"""Of each matching of figure 9's groups: the claim, how it is measured, what the paper says, and why there are none."""

GROUPS = ["inclusion", "exclusion"]


@dataclass(frozen=True)
class Networks:
    """A stratum: what was found of K networks that differ in the seed alone.

    Attributes:
        values: (K,) differences of shares, or shares.
        weights: (K,) above 0.
        noise: (K,) variance of each value by counting so many samples.
    """

    values: Array
    weights: Array
    noise: Array

    @property
    def mean(self) -> Estimate:
        """The weighted mean; its variance between networks, but no less than by counting samples; none for one network.

        The variance is HC2 (MacKinnon & White 1985), for equal weights Student's; its degrees of freedom are the
        effective number of networks (Kish 1965) less one. Simulated with weights from 30 to 1,000 it covers 95 to 98%.
        """
        share = self.weights / self.weights.sum()
        value = float(share @ self.values)
        if len(share) < 2:
            return Estimate(value)
        between = float((share**2 / (1 - share)) @ (self.values - value) ** 2)
        return Estimate(value, max(between, float(share**2 @ self.noise)), float(1 / (share @ share) - 1))


def combined(strata: Sequence[tuple[float, Networks]]) -> Estimate:
    """The sum of factor x mean over strata, with the degrees of freedom of Welch and Satterthwaite.

    It has a variance from ``MINIMUM_RUNS`` networks on, two of each stratum at least.
    """
    means = [(factor, networks.mean) for factor, networks in strata]
    value = float(sum(factor * mean.value for factor, mean in means))
    if sum(len(networks.values) for _, networks in strata) < MINIMUM_RUNS or not all(mean.known for _, mean in means):
        return Estimate(value)
    parts = [(factor**2 * mean.variance, mean.freedom) for factor, mean in means]
    variance = sum(part for part, _ in parts)
    return Estimate(value, variance, variance**2 / sum(part**2 / freedom for part, freedom in parts))


def decided(claim: Claim, estimate: Estimate, level: float) -> Claim:
    """The claim with the estimate as its only answer, and its outcome before p is corrected for all claims."""
    low, high = estimate.interval(level)
    least, most = estimate.interval(2 * level - 1)  # of two one-sided tests
    claim = replace(
        claim, association=Answer(estimate.value, low, high, estimate.p), p=estimate.p,
        change=Answer(estimate.value, least, most), outcome=UNDECIDED, verdict="undecided on this data",
    )  # fmt: skip
    if np.isnan(low):
        return replace(claim, verdict="undecided: describes these networks only")
    if low * high > 0:
        outcome = SUPPORTED if low > 0 else CONTRADICTED
        return replace(claim, outcome=outcome, verdict=outcome + " but small" * (abs(estimate.value) < claim.margin))
    if -claim.margin < least and most < claim.margin:
        return replace(claim, outcome=NEGLIGIBLE, verdict=NEGLIGIBLE)
    return claim


def noise_of(share: Array, count: Array) -> Array:
    """Variance of shares of so many samples, never 0: with a success and a failure added (Agresti & Caffo 2000)."""
    moved = (share * count + 1) / (count + 2)
    return moved * (1 - moved) / (count + 2)


def over_samples(shares: Array, counts: Array, level: float) -> str:
    """The first of two shares of so many samples minus the second, with Newcombe's interval.

    The mean of values in [0, 1] has no larger variance than a share has; for it the interval is rather too wide.
    """
    low, high = confint_proportions_2indep(
        shares[0] * counts[0], counts[0], shares[1] * counts[1], counts[1],
        method="newcomb", compare="diff", alpha=1 - level,
    )  # fmt: skip
    return f"{shares[0] - shares[1]:+.3f} [{low:+.3f}, {high:+.3f}] over its samples"


@dataclass(frozen=True)
class Kept:
    """What both groups of one network keep of their clean accuracy.

    Attributes:
        shares: (radii, 2) of the inclusion and the exclusion group.
        counts: (2,) samples attacked.
    """

    shares: Array
    counts: Array

    @property
    def telling(self) -> NDArray[np.bool_]:
        """(radii,) where not both groups stand, or both fall, but for one sample."""
        standing = self.shares * self.counts
        return np.asarray((standing > 1.5).any(axis=1) & (standing < self.counts - 1.5).any(axis=1))


def kept_by_groups(groups: pd.DataFrame) -> tuple[dict[str, dict[int, Kept]], list[str]]:
    """Of figure 9's numbers of one matching: network -> seed -> what its groups keep; and who is left out and why.

    Radii at which no network of a letter tells its groups apart are left out for that letter.
    """
    radii = sorted({0.0, *groups["epsilon"]})
    found: dict[str, dict[int, Kept]] = {}
    few = []
    for letter, seed in groups[["network", "seed"]].drop_duplicates().itertuples(index=False):
        table = groups[(groups["network"] == letter) & (groups["seed"] == seed)].set_index(["epsilon", "group"])
        accuracy, count = (
            table[name].unstack().reindex(index=radii, columns=GROUPS).to_numpy(float)
            for name in ("robust_accuracy", "n")
        )
        attacked = np.round(np.nan_to_num(accuracy[0] * count[0]))
        if attacked.min() < LEAST:
            few.append((letter, seed))
        else:
            found.setdefault(letter, {})[seed] = Kept(accuracy[1:] / accuracy[0], attacked)
    telling = {letter: np.any([each.telling for each in seeds.values()], axis=0) for letter, seeds in found.items()}
    silent = [(letter, seed) for letter, seeds in found.items() for seed in seeds if not telling[letter].any()]
    excluded = [
        *_left_out(few, f"a group below {LEAST} samples"),
        *_left_out(silent, "at every radius both groups stand, or both fall"),
    ]
    return {
        letter: {seed: replace(each, shares=each.shares[telling[letter]]) for seed, each in seeds.items()}
        for letter, seeds in sorted(found.items())
        if telling[letter].any()
    }, excluded


def _left_out(networks: Iterable[tuple[str, int]], why: str) -> Iterator[str]:
    seeds: dict[str, list[str]] = {}
    for letter, seed in networks:
        seeds.setdefault(letter, []).append(str(seed))
    for letter, of_letter in seeds.items():
        yield f"network {letter}, seed{'s' * (len(of_letter) > 1)} {in_words(of_letter)} left out: {why}"


def group_claim(
    groups: pd.DataFrame | None, level: float = 0.95, matching: str = UNMATCHED, *, margin: float = MARGIN
) -> Claim:
    """Figure 9: how much less the inclusion group loses of its clean accuracy than the exclusion group of its own.

    Args:
        groups: figure 9's numbers: network, seed, matching, group, epsilon (0 too), robust_accuracy, n.
    """
    name, measure, paper, nobody = MATCHINGS[matching]
    claim = Claim(name, "9", measure, NOT_MEASURABLE, "not measured", margin=margin, paper=paper)
    if groups is None:
        return replace(claim, data="no network", note="figure 9 was not made")
    groups = groups[(groups["matching"] == matching) & (groups["n"] > 0)]
    kept, excluded = kept_by_groups(groups) if len(groups) else ({}, [nobody])
    if not kept:
        return replace(claim, verdict=NOT_MEASURABLE, data="no network", note="; ".join(excluded))
    strata = {letter: _differences(seeds.values()) for letter, seeds in kept.items()}
    whole = sum(float(each.weights.sum()) for each in strata.values())
    claim = decided(claim, combined([(float(each.weights.sum()) / whole, each) for each in strata.values()]), level)
    notes, signs = [], set()
    for letter, each in strata.items():
        low, high = combined([(1.0, each)]).interval(level)
        signs.add(np.sign(low) if low * high > 0 else 0)
        words = f"[{low:+.3f}, {high:+.3f}] over {plural(len(each.values), 'seed')}"
        if np.isnan(low):
            words = "; ".join(
                f"seed {seed}: {over_samples(of.shares.mean(axis=0), of.counts, level)}"
                for seed, of in kept[letter].items()
            )
        notes.append(f"network {letter}: {each.mean.value:+.3f} ({words})")
    if {-1, 1} <= signs:
        claim = replace(claim, outcome=UNDECIDED, verdict="networks A and B disagree")
    elif len(strata) == 1 and claim.outcome != UNDECIDED:
        claim = replace(claim, verdict=f"{claim.verdict} (network {next(iter(strata))} alone)")
    return replace(claim, data=_counted(strata), note="; ".join([*notes, *excluded]))


def _differences(networks: Collection[Kept]) -> Networks:
    shares = np.array([each.shares.mean(axis=0) for each in networks])
    counts = np.array([each.counts for each in networks])
    return Networks(shares[:, 0] - shares[:, 1], counts.min(axis=1), noise_of(shares, counts).sum(axis=1))


def _counted(strata: Mapping[str, Networks]) -> str:
    return in_words([f"{plural(len(each.values), 'network')} {letter}" for letter, each in strata.items()])


def failures_claim(failures: pd.DataFrame | None, level: float = 0.95, *, margin: float = MARGIN) -> Claim:
    """Figure 6a: share of zero-gradient samples among the failed attacks on network B, minus the same of A.

    Seeds that both have are compared in pairs, if there are ``MINIMUM_RUNS`` of them.

    Args:
        failures: figure 6a's numbers: network, seed, outcome, count.
    """
    claim = Claim(
        "failures against network B have zero gradients", "6a",
        "share of failed attacks with zero gradient, network B minus network A, mean over seeds", NOT_MEASURABLE,
        "not measured", margin=margin, paper="figure 6a: most of B's failures",
    )  # fmt: skip
    if failures is None:
        return replace(claim, data="no network", note="figure 6a was not made")
    counts = failures.groupby(["network", "seed", "outcome"])["count"].sum().unstack(fill_value=0)
    zero, moving = (
        counts.get(f"failure_{how}", pd.Series(0, counts.index)).astype(float)
        for how in ("zero_gradient", "with_gradient")
    )
    failed = zero + moving
    told = pd.DataFrame({"share": zero / failed.where(failed > 0), "failed": failed})
    few = told["failed"] < LEAST
    notes = [f"network {letter}: {_summed(rows)}" for letter, rows in told.groupby("network")]
    notes += _left_out(told.index[few], f"fewer than {LEAST} failed attacks")
    sides = {letter: told[~few].reindex([letter], level="network").droplevel("network") for letter in "BA"}
    if silent := [letter for letter, rows in sides.items() if rows.empty]:
        which = f"network{'s' * (len(silent) > 1)} {in_words(silent)}"
        verdict = f"not measurable: too few failed attacks on {which}"
        return replace(claim, verdict=verdict, data="no network", note="; ".join(notes))
    strata = {letter: _shares(rows) for letter, rows in sides.items()}
    both = sides["B"].index.intersection(sides["A"].index)
    if len(both) >= MINIMUM_RUNS:
        of_b, of_a = (_shares(sides[letter].loc[both]) for letter in "BA")
        parts = [(1.0, Networks(of_b.values - of_a.values, of_b.weights, of_b.noise + of_a.noise))]
        data = f"{len(both)} pairs of networks of one seed"
    else:
        parts, data = [(1.0, strata["B"]), (-1.0, strata["A"])], _counted(strata)
    claim = decided(claim, combined(parts), level)
    if np.isnan(claim.association.low):
        seeds = [both[0]] * 2 if len(both) else [rows.index[0] for rows in sides.values()]
        pair = np.array([rows.loc[seed] for seed, rows in zip(seeds, sides.values(), strict=True)])
        words = over_samples(pair[:, 0], pair[:, 1], level)
        notes.insert(0, f"seed {seeds[0]} of B and {seeds[1]} of A: {words}")
    return replace(claim, data=data, note="; ".join(notes))


def _shares(rows: pd.DataFrame) -> Networks:
    share, failed = rows[["share", "failed"]].to_numpy(float).T
    return Networks(share, np.ones(len(rows)), noise_of(share, failed))


def _summed(rows: pd.DataFrame) -> str:
    failed = rows["failed"].sum()
    if not failed:
        return "no failed attack"
    return f"{(rows['share'] * rows['failed']).sum() / failed:.3f} of {plural(int(failed), 'failed attack')}"
