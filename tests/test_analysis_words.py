"""The report in words: every claim once, by its verdict, with its numbers and without those that there are none of."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pandas as pd
import pytest

from prs_lightning.analysis.selection import select
from prs_lightning.analysis.setting import what_was_measured
from prs_lightning.analysis.verdict import Answer, Claim
from prs_lightning.analysis.words import in_plain_words
from tests.made_claims import OURS, VERDICTS, made, other_form

WHETHER = "whether a low PRS ratio goes with a high robust accuracy"
TOLD = {
    "supported": "A low PRS ratio goes with a high robust accuracy (0.56 [0.41, 0.68], 2 of 3 panels), and at fixed "
    "batch size and epoch it holds between runs (0.40 [0.20, 0.60]), but was not found between the epochs of a run "
    "(0.02 [-0.10, 0.14]); RA (PGD-20) changes by +0.12 [+0.08, +0.16].",
    "small": "A low PRS ratio goes with a high robust accuracy (0.56 [0.41, 0.68], 2 of 3 panels), and at fixed batch "
    "size and epoch it holds between runs (0.40 [0.20, 0.60]) and between the epochs of a run (0.40 [0.20, 0.60]); "
    "RA (PGD-20) changes by +0.12 [+0.08, +0.16], at fixed batch size and epoch by +0.004 [+0.001, +0.007] only.",
    "contradicted": "It is not so that a low PRS ratio goes with a high robust accuracy: the relation runs the other "
    "way (-0.50 [-0.60, -0.40], 2 of 3 panels), and at fixed batch size and epoch it holds between the epochs of a run "
    "(-0.30 [-0.40, -0.20]), but was not found between runs (0.02 [-0.10, 0.14]); RA (PGD-20) changes by +0.12 "
    "[+0.08, +0.16].",
    "negligible": f"W{WHETHER[1:]} hardly matters: RA (PGD-20) changes by +0.003 [-0.001, +0.007] over all models and "
    "+0.004 [+0.001, +0.007] at fixed batch size and epoch, within the margin of 0.02.",
    "association only": "Over all models a low PRS ratio goes with a high robust accuracy (0.56 [0.41, 0.68], 2 of 3 "
    "panels), but at fixed batch size and epoch no such relation is left, neither between runs (0.02 [-0.10, 0.14]) "
    "nor between the epochs of a run (0.02 [-0.10, 0.14]): the association is explained by batch size and the epoch.",
    "opposite": "Over all models it is not so that a low PRS ratio goes with a high robust accuracy (-0.50 [-0.60, "
    "-0.40], 2 of 3 panels): the relation runs the other way, but the opposite holds at fixed batch size and epoch: "
    "between runs (0.40 [0.20, 0.60]) and between the epochs of a run (0.02 [-0.10, 0.14]).",
    "not shown": "Over all models a low PRS ratio goes with a high robust accuracy (0.56 [0.41, 0.68], 2 of 3 panels), "
    "but at fixed batch size and epoch it is not shown, between the epochs of a run (0.02 [-0.10, 0.14]).",
    "panels disagree": f"The panels disagree {WHETHER}: VGG-16 on CIFAR-10 -0.40 [-0.60, -0.20] but CNN-6 on MNIST "
    "0.80 [0.70, 0.90], together 0.02 [-0.10, 0.14], 2 of 3 panels.",
    "corrected": f"With 20 runs the data cannot say {WHETHER} (0.56 [0.41, 0.68]; between runs 0.40 [0.20, 0.60]; "
    "between the epochs of a run 0.02 [-0.10, 0.14]; corrected p 0.03).",
    "undecided": f"With 20 runs the data cannot say {WHETHER} (0.02 [-0.10, 0.14]; between runs 0.40 [0.20, 0.60]).",
    "fixed alone": f"With 20 runs the data cannot say {WHETHER} (a relation at fixed batch size and epoch alone; "
    "0.02 [-0.10, 0.14]; between runs 0.40 [0.20, 0.60]).",
    "few": f"With 20 runs the data cannot say {WHETHER} (too few runs for an interval; 0.30).",
    "vanishes": f"W{WHETHER[1:]} cannot be asked: the robustness vanishes under the audit (no network keeps more than "
    "0.003 of the test samples).",
    "strong": f"Not measurable was {WHETHER} (too strong an attack to tell these networks apart; use a smaller "
    "epsilon, or the distance; CNN-6 on MNIST: epsilon about 0.05 would do, the median distance).",
    "not measured": f"Not measured was {WHETHER} (distance).",
}  # fmt: skip


@pytest.mark.parametrize("name", VERDICTS)
def test_a_claim_of_each_verdict_is_told_with_the_numbers_that_carry_it(name: str) -> None:
    assert TOLD[name] in " ".join(in_plain_words([made(name)], runs=20, seeds=5))


def test_no_claim_is_forgotten_and_none_is_told_twice() -> None:
    claims = [
        made(name, f"low PRS ratio → high y{place}", paper=f"slope {place}") for place, name in enumerate(VERDICTS)
    ]
    claims += [replace(claim, claim=claim.claim.replace("y", "z"), **OURS) for claim in claims]
    claims += [replace(made(name), claim=f"PRS predicts q{place}") for place, name in enumerate(VERDICTS)]
    outcomes = dict.fromkeys(claim.outcome for claim in claims)
    claims += [replace(other_form(outcome), claim=f"A above B{place}") for place, outcome in enumerate(outcomes)]
    text = " ".join(in_plain_words(claims, runs=20, seeds=5))
    for claim in claims:
        name = claim.claim.rpartition(" → ")[2]
        assert len(re.findall(rf"{name}\b", text)) == 1, name


def test_claims_about_networks_a_and_b_keep_the_words_of_their_verdict() -> None:
    small = other_form(verdict="supported but small (network A alone)")
    apart = other_form("undecided", verdict="networks A and B disagree", claim="A above B")
    alone = other_form("undecided", verdict="undecided: describes these networks only", association=Answer(0.1))
    first, last, _ = in_plain_words([small, apart, alone], runs=6, seeds=3)
    assert first.endswith("group” is supported but small (network A alone): 0.08 [0.02, 0.14], 6 networks.")
    assert "whether “A above B” holds (networks A and B disagree; 0.08 [0.02, 0.14])" in last
    assert "holds (describes these networks only; 0.10)" in last


def test_a_reason_that_claims_share_is_told_once() -> None:
    claims = [made(name, f"low PRS ratio → high {name}") for name in ("fixed alone", "undecided", "fixed alone")]
    _, plain, shared, _ = in_plain_words(claims, runs=20, seeds=5)
    assert plain.startswith("With 20 runs the data cannot say whether a low PRS ratio goes with a high undecided (0.02")
    assert shared.startswith("A relation at fixed batch size and epoch alone: this leaves open whether a low PRS ratio")
    assert "goes with a high fixed alone or with a high fixed alone (0.02 [-0.10, 0.14]; between runs 0.40" in shared


def test_the_paper_s_claims_come_first_and_are_counted() -> None:
    claims = [made("supported", **OURS), made("undecided"), other_form(), made("strong"), made("undecided")]
    paper, ours, cannot, *_ = in_plain_words(claims, runs=20, seeds=5)
    assert paper.startswith("Of the paper's 4 claims, 1 is supported, 2 are undecided and 1 was not measurable. “incl")
    assert ours.startswith("The other 1 claim is supported. A low PRS ratio goes with")
    assert cannot.startswith("With 20 runs the data cannot say whether")
    (alone, *_) = in_plain_words([made("undecided", **OURS), made("few", **OURS)], runs=1, seeds=0)
    assert alone == "The 2 claims are undecided."


@pytest.mark.parametrize("name", VERDICTS)
def test_what_has_no_number_is_told_without_one(name: str) -> None:
    claim = made(name)
    numbers = [each.name for each in fields(Claim) if isinstance(getattr(claim, each.name), Answer)]
    bare = replace(claim, **dict.fromkeys(numbers, Answer()), margin=float("nan"), p=float("nan"), p_holm=float("nan"))
    for each in (bare, replace(bare, panels=()), replace(bare, panels=(), y=""), replace(claim, panels=())):
        text = " ".join(in_plain_words([each], runs=0, seeds=0))
        assert not re.search(r"\bnan\b|–|\(\)|\[\]|  |None", text), text  # noqa: RUF001
        assert "runs the data" not in text


def test_an_answer_of_the_other_sign_does_not_count_as_kept() -> None:
    (text, *_) = in_plain_words([made("supported", between_epochs=Answer(-0.3, -0.4, -0.2))], runs=9, seeds=3)
    assert "it holds between runs (0.40 [0.20, 0.60]), but was not found between the epochs of a run (-0.30" in text


def test_what_no_such_data_could_say_is_said() -> None:
    *_, cannot = in_plain_words([made("supported")], runs=4, seeds=1, pair=True)
    assert "All runs have one seed" in cannot
    assert "networks A and B" in cannot
    assert "An association is no cause" in cannot
    *_, cannot = in_plain_words([made("supported")], runs=4, seeds=2)
    assert "seed, so" not in cannot
    assert "networks A" not in cannot


def models(**columns: object) -> pd.DataFrame:
    """Six models of two data sets, one of them without a test accuracy and one below the threshold."""
    return pd.DataFrame({
        "run": ["a", "a", "b", "b", "c", "c"], "model": ["resnet18", "resnet18", "cnn6", "cnn6", "cnn6", "cnn6"],
        "data": ["cifar10"] * 2 + ["mnist"] * 4, "batch_size": [128.0, 128, 64, 64, 2048, 2048],
        "seed": [0.0, 0, 1, 1, 1, 1], "epoch": [50, 100] * 3, "status": ["finished"] * 4 + ["failed"] * 2,
        "test/accuracy": [0.9, 0.9, 0.9, 0.9, 0.2, None], "robust/pgd20": 0.5,
        "config.data.epsilon": [str(8 / 255)] * 2 + ["0.3"] * 4, "config.callbacks.robustness.limit": "1000",
    } | columns)  # fmt: skip


def test_what_was_measured_names_networks_data_runs_the_attack_and_what_was_left_out() -> None:
    rows = models()
    runs = rows.drop_duplicates("run")
    text = what_was_measured(select(rows, [50, 100], {"mnist": 0.5}), runs)
    assert text == (
        "Measured were 2 runs of CNN-6 and ResNet-18 on MNIST and CIFAR-10 (2 panels), with batch sizes 64 and 128 and "
        "seeds 0 and 1: 4 models at epochs 50 and 100. RA (PGD-20) is that within epsilon 0.3 on MNIST and 8/255 on "
        "CIFAR-10, on 1,000 test images. Left out of 6 candidate models: 1 without a test accuracy and 1 with a test "
        "accuracy below the threshold (0.5 on MNIST). Not all runs finished: 1 failed of 3."
    )


def test_what_is_not_known_of_networks_from_elsewhere_is_left_out() -> None:
    unknown = models(**dict.fromkeys(["batch_size", "seed", "config.data.epsilon", "robust/pgd20"], None))
    text = what_was_measured(select(unknown, [50]), unknown[:0])
    assert text.startswith("Measured were 3 runs of CNN-6 and ResNet-18 on MNIST and CIFAR-10 (2 panels): 3 models at")
    assert "epsilon" not in text
    assert what_was_measured(select(unknown, [7]), unknown[:0]) == "No model counts."
