"""The verdict: its rule on records made by hand, and on the networks that it must tell apart."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from prs_lightning.audit import Audit, Findings, audit, judge
from prs_lightning.audit.findings import FAMILIES, Gradients, Trial
from prs_lightning.audit.verdict import RULE, WORDS, lower_bound
from prs_lightning.data import load, to_unit_range
from tests.attacked import Scaled, digits, trained
from tests.conftest import PROJECT

GRADIENTS = Gradients(
    zero_clean=0, zero_end=0, looked=60, absent=0.0, underflow=0.0, logit_gap=5.0, noise=0.0, noise_of=50,
    outputs_differ=0.0, gradients_differ=0.0, largest_difference=0.0, probabilities=False, output_sums=(-3.0, 4.0),
)  # fmt: skip


def record(*trials: Trial, gradients: Gradients = GRADIENTS, **changes: object) -> Findings:
    """100 samples of 10 classes, of which 90 are correct and 60 withstand PGD."""
    healthy = Findings(
        samples=100, classes=10, correct=90, largest_class=0.1, epsilon=0.1, step_size=0.01, steps=20, standing=60,
        met=60, audited=60, weaker=(("FGSM", 0.7), ("BIM", 0.65)), unbounded=0, trials=trials, gradients=gradients,
        indicators=(), curve=((0.0, 0.9), (0.1, 0.6)), audited_curve=((0.0, 0.9), (0.1, 0.6)), curve_of=100,
        distances=(0.1, 0.2),
    )  # fmt: skip
    return replace(healthy, **changes)


def fell(family: str, count: int, met: int = 60) -> Trial:
    return Trial(f"the {family} one", family, met, count)


@pytest.mark.parametrize(
    ("findings", "word"),
    [
        (record(), "trustworthy"),
        (record(*(fell(family, 5) for family in FAMILIES)), "trustworthy"),  # five points, the tolerance
        (record(fell("scale", 8)), "masked: the logits' scale"),
        (record(fell("more", 8)), "masked: the attack is too short"),
        (record(fell("more", 20), fell("scale", 10)), "masked: the attack is too short"),
        (record(fell("more", 10), fell("scale", 20)), "masked: the logits' scale"),
        (record(fell("blind", 8)), "undecided"),
        (record(fell("transfer", 30)), "undecided"),
        (record(fell("stronger", 30)), "undecided"),
        (record(audited=54), "undecided"),  # all together more than the tolerance
        (record(audited=55), "trustworthy"),
        (record(unbounded=6), "undecided"),
        (record(gradients=replace(GRADIENTS, zero_end=6)), "undecided"),
        (record(gradients=replace(GRADIENTS, absent=0.5)), "undecided"),
        (record(fell("blind", 8), gradients=replace(GRADIENTS, absent=0.5)), "masked: zero gradients"),
        (record(fell("more", 8), gradients=replace(GRADIENTS, absent=0.5)), "masked: zero gradients"),
        (record(unbounded=30, gradients=replace(GRADIENTS, absent=0.5)), "masked: zero gradients"),
        (record(fell("scale", 8), gradients=replace(GRADIENTS, absent=0.01)), "masked: the logits' scale"),
        (record(fell("scale", 30), gradients=replace(GRADIENTS, outputs_differ=0.01)), "masked: randomness"),
        (record(gradients=replace(GRADIENTS, gradients_differ=0.5)), "masked: randomness"),
        (record(gradients=replace(GRADIENTS, outputs_differ=1e-6)), "trustworthy"),  # a device adds in another order
        # One of four survivors is a quarter of them, and tells nothing.
        (record(fell("scale", 1, met=4), met=4, audited=4), "undecided"),
        (record(fell("scale", 3, met=4), met=4, audited=1), "masked: the logits' scale"),
        (record(fell("scale", 6)), "undecided"),  # six points, of which three are sure
        (record(standing=0, met=0, audited=0), "trustworthy"),
    ],
)  # fmt: skip
def test_the_rule(findings: Findings, word: str) -> None:
    verdict = judge(findings)
    assert verdict.word == word
    assert verdict.reason
    assert "\n" not in str(verdict)


trials = st.builds(
    lambda family, met, part: Trial(family, family, met, int(met * part)),
    st.sampled_from(FAMILIES), st.integers(1, 60), st.floats(0, 1),
)  # fmt: skip


@given(st.lists(trials, max_size=4), st.integers(0, 60), st.floats(0, 1), st.integers(0, 60))
def test_nothing_is_trustworthy_that_an_attack_beats(
    tried: list[Trial], audited: int, absent: float, unbounded: int
) -> None:
    findings = record(*tried, audited=audited, unbounded=unbounded, gradients=replace(GRADIENTS, absent=absent))
    verdict = judge(findings)
    assert verdict.word in WORDS
    falls = [0.6 * trial.fell / trial.met for trial in tried]
    worst = max([*falls, 0.6 - audited / 100, unbounded / 100, 0.6 * absent])
    assert (verdict.word == "trustworthy") == (worst <= 0.05 + 1e-9)


@given(st.integers(1, 60), st.integers(0, 60))
def test_the_lower_bound_is_that_of_the_exact_test(met: int, count: int) -> None:
    """At the bound so many or more would fall with the remaining 5% probability."""
    findings, trial = record(), Trial("", "scale", met, min(count, met))
    bound = lower_bound(findings, trial) / findings.robust_accuracy
    expected = 0.0 if not trial.fell else 0.05
    assert stats.binom.sf(trial.fell - 1, met, bound) * bool(trial.fell) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"correct": 12}, "12 of 100 samples are classified correctly, as chance can give (10%)"),
        ({"correct": 55, "largest_class": 0.5}, "as chance can give (50%)"),
        ({"samples": 30, "correct": 19, "standing": 10, "met": 10}, "a verdict needs 20: give more images"),
    ],
)
def test_where_no_verdict_can_be_given_the_reason_stands_in_its_place(changes: dict, reason: str) -> None:
    verdict = judge(record(**changes))
    assert verdict.word is None
    assert reason in verdict.reason


def test_the_rule_tells_every_verdict_in_its_order() -> None:
    order = ("randomness", "zero gradients", "too short", "scale", "trustworthy", "undecided")
    assert len(RULE) == len(WORDS) + 1
    assert all(word in line for word, line in zip(order, RULE[1:], strict=True))


class Noisy(nn.Module):
    """Adds noise to its images."""

    def __init__(self) -> None:
        super().__init__()
        self.network = trained()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images + 0.1 * torch.randn_like(images))


class Rounded(nn.Module):
    """Rounds its images to five grey levels: the gradient is 0 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.network = trained()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(torch.round(4 * images) / 4)


@functools.cache
def adversarially_trained() -> nn.Module:
    """Three epochs of PGD-3 at epsilon 0.1."""
    train, _ = load("mnist5k", "data")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, 10)),
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(3):
            for rows in torch.randperm(len(train.labels)).split(100):
                images, labels = to_unit_range(train.images[rows]), train.labels[rows]
                moved = torch.empty_like(images).uniform_(-0.1, 0.1)
                for _ in range(3):
                    moved.requires_grad_(True)
                    (gradient,) = torch.autograd.grad(F.cross_entropy(network(images + moved), labels), moved)
                    moved = (moved.detach() + 0.05 * gradient.sign()).clamp(-0.1, 0.1)
                optimizer.zero_grad()
                F.cross_entropy(network((images + moved).clamp(0, 1)), labels).backward()
                optimizer.step()
    return network.eval()


def audited(network: nn.Module, **changes: object) -> Audit:
    options = {"epsilon": 0.1, "step_size": 0.025, "steps": 10, "restarts": 2, "square_steps": 30}
    return audit(network.eval(), *digits(60), **options | changes)


def test_a_plainly_trained_network_is_trustworthy() -> None:
    found = audited(trained(), epsilon=0.05)
    assert found.verdict.word == "trustworthy"
    assert 0.3 < found.robust_accuracy < 0.8


def test_an_adversarially_trained_network_is_trustworthy_and_more_robust() -> None:
    robust, plain = audited(adversarially_trained()), audited(trained())
    assert robust.verdict.word == plain.verdict.word == "trustworthy"
    assert robust.audited > plain.audited + 0.2


@pytest.mark.parametrize("network", [trained, adversarially_trained])
def test_the_same_network_times_1000_is_masked_by_its_scale(network) -> None:
    found = audited(Scaled(network(), 1000.0))
    assert found.verdict.word == "masked: the logits' scale"
    assert found.findings.gradients.zero_end > 10  # the gradient of cross-entropy is 0, and still not the cause
    assert found.audited == pytest.approx(audited(network()).audited, abs=0.05)


def test_a_network_with_a_random_layer_is_masked_by_randomness() -> None:
    assert audited(Noisy()).verdict.word == "masked: randomness"
    dropout = nn.Sequential(*trained()[:-1], nn.Module(), trained()[-1])
    dropout[-2].forward = lambda features: F.dropout(features, 0.3, training=True)
    assert audited(dropout).verdict.word == "masked: randomness"


def test_a_rounding_layer_is_masked_by_zero_gradients() -> None:
    for epsilon in (0.05, 0.1, 0.3):
        found = audited(Rounded(), epsilon=epsilon)
        assert found.verdict.word == "masked: zero gradients"
        assert found.findings.gradients.absent == 1


def test_two_tiny_steps_are_too_short() -> None:
    found = audited(trained(), steps=2, step_size=0.002)
    assert found.verdict.word == "masked: the attack is too short"
    assert "steps * step_size = 0.004 < epsilon" in found.verdict.reason


def test_a_network_that_learned_nothing_gets_no_verdict() -> None:
    torch.manual_seed(0)
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    assert "as chance can give" in audited(untrained).verdict.reason
    few = audit(trained(), *(part[:12] for part in digits(60)), epsilon=0.1, step_size=0.02, steps=5, square_steps=5)
    assert few.verdict.word is None
    assert "a verdict needs 20" in few.verdict.reason


def test_the_readme_tells_every_verdict() -> None:
    page = (PROJECT / "README.md").read_text()
    assert re.findall(r"^\| (trustworthy|masked: [\w' ]+|undecided) \|", page, flags=re.MULTILINE) == list(WORDS)
