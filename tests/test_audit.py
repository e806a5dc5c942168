"""The audit on a network that can be trusted and on ones that mask: its numbers, its checks and its indicators."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from prs_lightning.attacks import ThreatModel, distances, pgd
from prs_lightning.audit import Audit, audit
from prs_lightning.audit.battery import Battery, some
from prs_lightning.audit.indicators import Path, follow, rising, silent
from prs_lightning.errors import ConfigError
from tests.attacked import Scaled, digits, trained

OPTIONS = {"epsilon": 0.1, "step_size": 0.02, "steps": 10, "restarts": 2, "square_steps": 30}


def warned(found: Audit) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


def test_an_honest_network_shows_no_sign_of_masking() -> None:
    images, labels = digits(60)
    found = audit(trained(), images, labels, **OPTIONS | {"epsilon": 0.05})
    assert 0.05 < found.robust_accuracy < 0.95
    # A sample or two at the border do fall to another loss or to more effort: that is no sign of masking.
    losses = ("margin", "dlr", "rescaled_cross_entropy", "top_two_cross_entropy", "targeted margin")
    border = {f"survivors under {name}" for name in (*losses, "search for the boundary")}
    assert warned(found) <= border | {"2 restarts more", "PGD-50 after PGD-10"}
    assert found.masking_gap <= 0.05
    assert found.robust_accuracy - 0.1 <= found.audited <= found.robust_accuracy
    assert "outputs are logits" in str(found)
    assert len(found.checks) == 19
    alone = pgd(trained(), images, labels, epsilon=0.05, step_size=0.02, steps=10)
    assert found.robust_accuracy == alone.robust_accuracy
    margin = pgd(trained(), images, labels, epsilon=0.05, step_size=0.02, steps=10, loss="margin")
    after = float((alone.correct_after & margin.correct_after).double().mean())
    assert found.masking_gap == pytest.approx(found.robust_accuracy - after)


def test_the_curves_and_distances_are_those_of_the_attacks_alone() -> None:
    images, labels = digits(40)
    found = audit(trained(), images, labels, **OPTIONS).findings
    curve = dict(found.curve)
    assert curve[0.0] == found.clean_accuracy
    assert curve[0.1] <= found.robust_accuracy
    assert list(curve.values()) == sorted(curve.values(), reverse=True)
    known = [share for _, share in found.audited_curve]
    assert known == sorted(known, reverse=True)
    assert all(
        share <= min((curve[radius] for radius in curve if radius <= epsilon), default=1) + 1e-9
        for epsilon, share in found.audited_curve
    )
    alone = distances(trained(), images, labels)
    assert found.distances == tuple(alone.distance[alone.correct].tolist())
    assert found.median_distance == pytest.approx(alone.median)


def test_some_of_the_survivors_estimate_what_all_of_them_tell() -> None:
    images, labels = digits(200)
    whole, part = (audit(Scaled(trained(), 1000.0).eval(), images, labels, subset=n, **OPTIONS) for n in (None, 60))
    assert whole.robust_accuracy == part.robust_accuracy
    assert part.findings.met == 60
    assert {trial.met for trial in part.findings.trials if trial.name != "search for the boundary"} == {60}
    assert whole.findings.met == whole.findings.standing > 60
    for trial in part.findings.trials:
        other = whole.findings.trial(trial.name)
        assert other is not None
        assert part.findings.after(trial) == pytest.approx(whole.findings.after(other), abs=0.2)
    assert part.audited == pytest.approx(whole.audited, abs=0.1)
    assert all(0 <= indicator.value <= 1 for indicator in part.findings.indicators)
    flags = torch.tensor([True, False, True, True, True, True])
    assert some(flags, 2).tolist() == [True, False, False, False, False, True]
    assert some(flags, 5) is flags


def test_a_saturated_network_is_caught() -> None:
    found = audit(Scaled(trained(), 1000.0).eval(), *digits(60), **OPTIONS)
    assert found.robust_accuracy > 0.8
    assert found.audited < 0.4
    assert found.masking_gap > 0.4
    expected = {"zero gradients", "survivors under margin", "survivors under dlr", "unbounded attack",
                "survivors under rescaled_cross_entropy", "survivors under top_two_cross_entropy",
                "survivors under temperature 1000", "survivors under Square"}  # fmt: skip
    assert expected <= warned(found)
    assert not found.passed
    assert str(found).count("WARN") == len(warned(found))
    gradients = found.findings.gradients
    assert (gradients.absent, gradients.underflow) == (0.0, 1.0)
    plain = audit(trained(), *digits(60), **OPTIONS).findings
    assert gradients.logit_gap == pytest.approx(1000 * plain.gradients.logit_gap, rel=1e-4)


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = trained()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + torch.rand(len(images), 1)


def test_probabilities_noise_and_short_reach_are_flagged() -> None:
    images, labels = digits(30)
    few = OPTIONS | {"steps": 2, "square_steps": 2}
    probabilities = nn.Sequential(trained(), nn.Softmax(1)).eval()
    assert {"outputs are logits", "steps * step_size"} <= warned(audit(probabilities, images, labels, **few))
    assert "deterministic forward" in warned(audit(Random().eval(), images, labels, **few))


def test_images_of_another_network_are_tried_and_the_own_ones_do_no_better() -> None:
    images, labels = digits(60)
    blind = Scaled(trained(), 1e6).eval()
    found = audit(blind, images, labels, against=trained(), **OPTIONS).findings
    trial = found.trial("images of the other network")
    assert trial is not None
    assert trial.family == "transfer"
    own = pgd(trained(), images, labels, loss="rescaled_cross_entropy", early_exit=False, **{
        key: OPTIONS[key] for key in ("epsilon", "step_size", "steps")})  # fmt: skip
    stood = pgd(blind, images, labels, epsilon=0.1, step_size=0.02, steps=10).correct_after
    assert trial.fell == int((stood & ~own.correct_after).sum()) > 10
    assert {indicator.name for indicator in found.indicators if indicator.raised} >= {
        "unavailable gradients", "no success without a bound", "transfer"
    }  # fmt: skip


def test_a_path_ends_where_the_engine_does_and_tells_what_happened_on_it() -> None:
    images, labels = digits(60)
    threat = ThreatModel(epsilon=0.1, step_size=0.02, steps=10)
    battery = Battery(trained(), images, labels, threat, seed=0, batch_size=128, progress=None)
    path = follow(battery, torch.arange(60))
    last = pgd(trained(), images, labels, epsilon=0.1, step_size=0.02, steps=10, early_exit=False)
    tried = last.correct_before
    assert path.wrong[-1][tried].tolist() == (~last.correct_after)[tried].tolist()
    assert path.loss.shape == (11, 60)
    first = (path.wrong.int().argmax(0) * path.wrong.any(0) - (~path.wrong.any(0)).int())[tried]
    assert first.tolist() == last.steps_to_success[tried].tolist()


def test_silent_success_and_a_loss_that_still_rises() -> None:
    wrong = torch.tensor([[0, 0, 0], [1, 0, 1], [0, 0, 1]]).bool()
    loss = torch.tensor([[0.0, 0.0, 1.0], [4.0, 0.0, 2.0], [4.1, 0.0, 3.0]])
    path = Path(loss, wrong)
    assert silent(path).tolist() == [True, False, False]
    assert rising(path).tolist() == [False, False, True]


def test_every_stage_is_told_and_bad_values_are_one_line() -> None:
    told: list[tuple[str, int, int]] = []
    audit(trained(), *digits(20), **OPTIONS, progress=lambda *given: told.append(given))
    stages = [name for name, done, total in told if not done and not total]
    assert stages[0] == "cross-entropy"
    assert {"margin", "temperature 1000", "Square", "distances"} <= set(stages)
    assert all(0 <= done <= total for _, done, total in told)
    for bad in ({"subset": 0}, {"square_steps": 0}, {"epsilon": 2}):
        ((key, value),) = bad.items()
        with pytest.raises(ConfigError, match=f"{key}={value}"):
            audit(trained(), *digits(10), **OPTIONS | bad)


def test_a_network_that_is_wrong_everywhere_leaves_nothing_to_attack() -> None:
    images = digits(30)[0]
    with torch.no_grad():
        found = audit(trained(), images, (trained()(images).argmax(1) + 1) % 10, **OPTIONS)
    assert (found.findings.correct, found.robust_accuracy, found.audited) == (0, 0.0, 0.0)
    assert found.verdict.word is None
    assert math.isnan(found.findings.median_distance)
    assert {trial.met for trial in found.findings.trials} == {0}
