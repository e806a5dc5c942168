"""The report in words: what was measured, what the data say of each claim, and what they cannot say."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from prs_lightning.analysis.relations import in_words, plural
from prs_lightning.analysis.shown import (
    ASSOCIATION_ONLY,
    NOT_MEASURED,
    NOTHING,
    PANELS_DISAGREE,
    VANISHES,
    change,
    has_interval,
    in_two,
    interval,
    is_relation,
    kind,
    measure,
    number,
    p_value,
)
from prs_lightning.analysis.verdict import (
    CONTRADICTED,
    NEGLIGIBLE,
    NOT_IN_THE_PAPER,
    NOT_MEASURABLE,
    SUPPORTED,
    UNDECIDED,
    Answer,
    Claim,
)

COUNTED = {
    SUPPORTED: ("is supported", "are supported"),
    CONTRADICTED: ("is contradicted", "are contradicted"),
    NEGLIGIBLE: ("is negligible", "are negligible"),
    ASSOCIATION_ONLY: ("is an association only", "are associations only"),
    PANELS_DISAGREE: ("divides the panels", "divide the panels"),
    VANISHES: ("finds no robustness left", "find no robustness left"),
    UNDECIDED: ("is undecided", "are undecided"),
    NOT_MEASURABLE: ("was not measurable", "were not measurable"),
    NOT_MEASURED: ("was not measured", "were not measured"),
}
"""How claims of one kind are counted, one and several, in the order in which they are told."""


def in_plain_words(claims: Sequence[Claim], *, runs: int, seeds: int, pair: bool = False) -> list[str]:
    """Paragraphs: what the data say of the paper's claims, what they say of the others, and what they cannot say.

    Each claim is told once, with the numbers that carry its verdict; what has no number is told without one.

    Args:
        runs, seeds: how many there are; 0 where that is not known.
        pair: whether figures, and claims read off them, are of networks A and B alone.
    """
    paper = [claim for claim in claims if claim.paper != NOT_IN_THE_PAPER]
    others = [claim for claim in claims if claim.paper == NOT_IN_THE_PAPER]
    told = [*_told(paper, "the paper's"), *_told(others, "the other" if paper else "the")]
    return [*told, *_cannot(claims, runs, seeds, pair)]


def _told(claims: Sequence[Claim], whose: str) -> list[str]:
    """A count of the verdicts, then a sentence for each claim that the data tell of; a paragraph a verdict."""
    if not claims:
        return []
    found = {each: [claim for claim in claims if kind(claim) == each] for each in COUNTED}
    counts = [(len(some), COUNTED[each][len(some) > 1]) for each, some in found.items() if some]
    if len(counts) > 1:
        start = f"Of {whose} {len(claims)} claims, {in_words([f'{count} {what}' for count, what in counts])}."
    else:
        start = _capital(f"{whose} {plural(len(claims), 'claim')} {counts[0][1]}.")
    told = [[sentence(claim) for claim in found[each]] for each, sentence in SENTENCES.items() if found[each]]
    first, *others = told or [[]]
    return [" ".join(sentences) for sentences in ([start, *first], *others)]


def _supported(claim: Claim) -> str:
    if not is_relation(claim):
        return f"{_capital(_quoted(claim))} is {claim.verdict}: {_effect(claim)}."
    return f"{_capital(statement(claim))}{_in_brackets(_effect(claim))}{_kept(claim)}{_size(claim)}."


def _contradicted(claim: Claim) -> str:
    if not is_relation(claim):
        return f"{_capital(_quoted(claim))} is {claim.verdict}: {_effect(claim)}."
    return (
        f"It is not so that {statement(claim)}: the relation runs the other way{_in_brackets(_effect(claim))}"
        f"{_kept(claim)}{_size(claim)}."
    )


def _negligible(claim: Claim) -> str:
    if not is_relation(claim):
        return f"{_capital(_quoted(claim))} is too small to matter: {_effect(claim)}{_margin(claim)}."
    moves = [
        f"{change(answer)} {where}"
        for answer, where in (
            (claim.change, "over all models"),
            (claim.fixed_change, "at fixed batch size and epoch"),
        )
        if not np.isnan(answer.effect)
    ]
    told = f": {measure(claim)} changes by {in_words(moves)}{_margin(claim)}" if moves else ""
    return f"Whether {statement(claim)} hardly matters{told}."


def _association_only(claim: Claim) -> str:
    agrees = not claim.association.effect < 0
    start = f"Over all models {'it is not so that ' * (not agrees)}{statement(claim)}{_in_brackets(_effect(claim))}"
    start += "" if agrees else ": the relation runs the other way"
    left = [f"{name} ({interval(answer)})" for name, answer in _at_fixed(claim)]
    why = in_two(claim.verdict)[1]
    if why.startswith("the opposite"):
        return f"{start}, but the opposite holds at fixed batch size and epoch: {in_words(left)}."
    neither = f", {'neither ' * (len(left) > 1)}{' nor '.join(left)}" if left else ""
    what = "no such relation is left" if why.startswith("explained") else "it is not shown"
    end = f": the association is {why}" if why.startswith("explained") else ""
    return f"{start}, but at fixed batch size and epoch {what}{neither}{end}."


def _panels_disagree(claim: Claim) -> str:
    known = [panel for panel in claim.panels if not panel.excluded and not np.isnan(panel.association.effect)]
    told = f": {_effect(claim)}"
    if len(known) > 1:
        least, most = (pick(known, key=lambda panel: panel.association.effect) for pick in (min, max))
        ends = [f"{panel.name} {interval(panel.association)}" for panel in (least, most)]
        told = f": {' but '.join(ends)}, together {_effect(claim)}"
    return f"The panels disagree whether {statement(claim)}{told}."


def _vanishes(claim: Claim) -> str:
    return f"Whether {statement(claim)} cannot be asked: {claim.verdict}{_in_brackets(_because(claim))}."


SENTENCES: dict[str, Callable[[Claim], str]] = {
    SUPPORTED: _supported,
    CONTRADICTED: _contradicted,
    NEGLIGIBLE: _negligible,
    ASSOCIATION_ONLY: _association_only,
    PANELS_DISAGREE: _panels_disagree,
    VANISHES: _vanishes,
}
"""What is told of a claim on which the data say something, by its kind."""


def _cannot(claims: Sequence[Claim], runs: int, seeds: int, pair: bool) -> list[str]:
    """What is open, what could not be measured, and what no such data could say."""
    undecided = [claim for claim in claims if kind(claim) == UNDECIDED]
    reasons = [_reason(claim) for claim in undecided]
    by_reason: dict[str, list[Claim]] = {}
    for claim, why in zip(undecided, reasons, strict=True):
        by_reason.setdefault(why if reasons.count(why) > 1 else "", []).append(claim)
    told = []
    for why, some in sorted(by_reason.items(), key=lambda item: item[0] != ""):
        few = f"With {plural(runs, 'run')} the data cannot say" if runs else "The data cannot say"
        start = f"{_capital(why)}: this leaves open" if why else few
        told.append(f"{start} {_whether(some, _numbers if why else _why_open)}.")
    for each in (NOT_MEASURABLE, NOT_MEASURED):
        if unknown := [claim for claim in claims if kind(claim) == each]:
            told.append(f"{_capital(each)} was {_whether(unknown, _because)}.")
    always = []
    if seeds == 1:
        always.append("All runs have one seed, so that chance cannot be told from effect.")
    if pair:
        always.append("What is read off networks A and B describes these networks alone.")
    always.append("An association is no cause: batch size, epoch and seed were set, the PRS ratio was not.")
    always.append("And robust accuracy under an attack is an upper bound: other attacks may find more.")
    return [*told, " ".join(always)]


def _whether(claims: Sequence[Claim], detail: Callable[[Claim], str]) -> str:
    """Claims as one clause; those with a beginning in common share it, and those with a reason in common that.

    >>> told = [Claim(f"low PRS ratio → {y}", at, "") for y, at in (("high RA", "4"), ("sparse features", "12"))]
    >>> _whether([*told, Claim("A above B", "9", "")], lambda claim: claim.figure)
    'whether a low PRS ratio goes with a high RA (4) or with sparse features (12), and whether “A above B” holds (9)'
    >>> _whether(told, lambda claim: "too few")
    'whether a low PRS ratio goes with a high RA or with sparse features (too few)'
    """
    details = [detail(claim) for claim in claims]
    begun: dict[tuple[str, str], list[str]] = {}
    clauses = []
    for claim, told in zip(claims, details, strict=True):
        before, goes, after = statement(claim).partition(" goes ")
        shared = told if details.count(told) > 1 else ""
        if goes:
            begun.setdefault((before, shared), []).append(f"{after}{_in_brackets('' if shared else told)}")
        else:
            clauses.append(f"whether {before}{' holds' * (not is_relation(claim))}{_in_brackets(told)}")
    together = [
        f"whether {before} goes {' or '.join(filter(None, [', '.join(after[:-1]), after[-1]]))}{_in_brackets(shared)}"
        for (before, shared), after in begun.items()
    ]
    *first, last = [*together, *clauses]
    return f"{'; '.join(first)}, and {last}" if first else last


def _why_open(claim: Claim) -> str:
    """The numbers of an undecided claim, and why it is, where these do not say so."""
    if np.isnan(claim.association.effect):
        return claim.note or NOT_MEASURED
    return "; ".join(filter(None, [_reason(claim), _numbers(claim)]))


def _reason(claim: Claim) -> str:
    """Why a claim is undecided, where its numbers do not say so."""
    word, behind = in_two(claim.verdict)
    if not word.startswith(UNDECIDED):
        return word
    return behind if word == UNDECIDED else "" if has_interval(claim.association) else "no interval"


def _numbers(claim: Claim) -> str:
    """The association, and what else leaves it open."""
    found = _found(claim.association)
    told = [] if np.isnan(claim.association.effect) else [interval(claim.association)]
    told += [f"{name} {interval(answer)}" for name, answer in _at_fixed(claim) if found or _found(answer)]
    told += [f"corrected p {p_value(claim.p_holm)}"] * (found and not np.isnan(claim.p_holm))
    return "; ".join(told)


def _found(answer: Answer) -> bool:
    """Whether the interval excludes 0."""
    return answer.low * answer.high > 0


def _effect(claim: Claim) -> str:
    """The association, and over how many panels; of a claim of another form its effect, and on what."""
    counted = sum(not panel.excluded for panel in claim.panels)
    among = f"{counted} of {plural(len(claim.panels), 'panel')}" if counted < len(claim.panels) else ""
    among = among or (plural(counted, "panel") if counted else claim.data)
    effect = interval(claim.association)
    return ", ".join(filter(None, [effect if effect != NOTHING else "", among]))


def _at_fixed(claim: Claim) -> list[tuple[str, Answer]]:
    """The answers at fixed batch size and epoch that there are, each with its name."""
    both = (("between runs", claim.between_runs), ("between the epochs of a run", claim.between_epochs))
    return [(name, answer) for name, answer in both if not np.isnan(answer.effect)]


def _kept(claim: Claim) -> str:
    """Which of the two answers at fixed batch size and epoch has the association's sign."""
    sign = np.sign(claim.association.effect)
    told = [
        (f"{name} ({interval(answer)})", bool(_found(answer) and answer.effect * sign > 0))
        for name, answer in _at_fixed(claim)
    ]
    kept, missed = ([text for text, held in told if held is each] for each in (True, False))
    if not kept:
        return ""
    but = f", but was not found {missed[0]}" if missed else ""
    return f", and at fixed batch size and epoch it holds {in_words(kept)}{but}"


def _size(claim: Claim) -> str:
    """How much the measure moves, where that is known, and whether that is little."""
    if np.isnan(claim.change.effect):
        return ", but the effect is small" * claim.verdict.endswith("but small")
    told = f"; {measure(claim)} changes by {change(claim.change)}"
    if claim.verdict.endswith("but small"):
        fixed = np.isnan(claim.fixed_change.effect)
        told += ", which is small" if fixed else f", at fixed batch size and epoch by {change(claim.fixed_change)} only"
    return told


def _margin(claim: Claim) -> str:
    return "" if np.isnan(claim.margin) else f", within the margin of {number(claim.margin)}"


def _because(claim: Claim) -> str:
    """What stands behind the verdict, and the note; the panels that were left out stand in the forest plot."""
    _, behind = in_two(claim.verdict)
    note = "; ".join(part for part in claim.note.split("; ") if "left out:" not in part)
    told = [note if behind in note else f"{behind}; {note}".removesuffix("; "), claim.note]
    return next(filter(None, told), "").removeprefix(f"{NOT_MEASURED}: ")


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def statement(claim: Claim) -> str:
    """A relation as a clause; a claim of another form in quotes.

    >>> statement(Claim("low PRS ratio → high RA after the audit", "4b", ""))
    'a low PRS ratio goes with a high RA after the audit'
    >>> statement(Claim("low PRS ratio → sparse features", "12", "")), statement(Claim("A above B", "9", ""))
    ('a low PRS ratio goes with sparse features', '“A above B”')
    """
    left, arrow, right = claim.claim.partition(" → ")
    if not arrow:
        return left if is_relation(claim) else _quoted(claim)
    noun = re.split(" (?:of|at|after|under|in) ", right)[0]
    return f"a {left} goes with {'' if noun.endswith('s') else 'a '}{right}"


def _quoted(claim: Claim) -> str:
    return f"“{claim.claim}”"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
