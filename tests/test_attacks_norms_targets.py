"""L2 balls, targets and temperatures: against foolbox, closed forms, and what each is for."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from prs_lightning.attacks import AttackResult, pgd
from prs_lightning.attacks.ball import L2Ball
from prs_lightning.errors import ConfigError
from tests.attacked import Scaled, digits, trained

L2 = {"norm": "l2", "epsilon": 1.0, "step_size": 0.2, "steps": 20}


def lengths(offsets: Tensor) -> Tensor:
    return offsets.double().flatten(1).pow(2).sum(1).sqrt()


def test_a_start_is_uniform_in_the_l2_ball() -> None:
    """The share of starts within radius r is r^d; the direction of each is that of a normal vector."""
    clean = torch.full((4000, 1, 1, 3), 0.5)
    starts = L2Ball(0.2).random_start(clean, torch.arange(4000), key=3) - clean
    radii = lengths(starts) / 0.2
    assert stats.kstest(radii.numpy() ** 3, "uniform").pvalue > 0.01
    along = starts[:, 0, 0, 0].double() / lengths(starts)  # uniform on [-1, 1] in three dimensions (Archimedes)
    assert stats.kstest(along.numpy(), "uniform", args=(-1, 2)).pvalue > 0.01
    again = L2Ball(0.2).random_start(clean[7:9], torch.arange(7, 9), key=3) - clean[7:9]
    assert torch.equal(again, starts[7:9])


def test_a_step_has_its_length_also_for_a_tiny_gradient() -> None:
    clean = torch.full((3, 1, 2, 2), 0.5)
    gradient = torch.tensor([1.0, 1e-30, 0.0]).view(3, 1, 1, 1) * torch.tensor([3.0, 0, -4.0, 0]).view(1, 1, 2, 2)
    moved = L2Ball(1.0).step(clean, gradient, 0.1, clean) - clean
    expected = torch.tensor([0.06, 0, -0.08, 0]).view(1, 2, 2)
    torch.testing.assert_close(moved, torch.stack([expected, expected, 0 * expected]))


def test_images_stay_in_the_l2_ball_and_more_fall_in_a_larger_one() -> None:
    images, labels = digits(60)
    standing = []
    for epsilon in (0.3, 1.0, 2.0):
        found = pgd(trained(), images, labels, **L2 | {"epsilon": epsilon})
        assert float(lengths(found.adversarial - images).max()) <= epsilon * (1 + 1e-6)
        assert found.adversarial.min() >= 0
        assert found.adversarial.max() <= 1
        wrong = trained()(found.adversarial).argmax(1) != labels
        assert torch.equal(wrong, ~found.correct_after)
        standing.append(found.robust_accuracy)
    assert standing[0] > standing[1] > standing[2]
    parts = [pgd(trained(), images[rows], labels[rows], indices=rows, **L2).correct_after
             for rows in torch.arange(60).split(17)]  # fmt: skip
    assert torch.equal(torch.cat(parts), pgd(trained(), images, labels, batch_size=7, **L2).correct_after)


def test_the_l2_attack_is_that_of_foolbox() -> None:
    foolbox = pytest.importorskip("foolbox")
    images, labels = digits(60)
    options = {"abs_stepsize": 0.2, "steps": 20, "random_start": False}
    model = foolbox.PyTorchModel(trained(), bounds=(0, 1))
    _, theirs, fooled = foolbox.attacks.L2ProjectedGradientDescentAttack(**options)(model, images, labels, epsilons=1.0)
    ours = pgd(trained(), images, labels, **L2, random_start=False, early_exit=False)
    attacked = ours.correct_before
    assert torch.equal(fooled[attacked], ~ours.correct_after[attacked])
    torch.testing.assert_close(ours.adversarial[attacked], theirs[attacked], atol=1e-4, rtol=0)


class Ranked(nn.Module):
    """Logits that are linear in three pixels: class 0 leads, class 1 is next, and class 2 alone can overtake it."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        steady = torch.ones_like(pixels[:, 0])
        return torch.stack([steady, 0.9 * steady + 0 * pixels[:, 1], 2 * pixels[:, 2]], dim=1)


def test_targets_are_tried_in_turn_the_likeliest_first() -> None:
    image, label = torch.full((1, 1, 1, 3), 0.29), torch.tensor([0])
    options = {"epsilon": 0.25, "step_size": 0.05, "steps": 6, "random_start": False, "loss": "margin"}
    assert pgd(Ranked().eval(), image, label, **options).correct_after.all()  # goes for class 1, and is stuck
    assert pgd(Ranked().eval(), image, label, targets=1, **options).correct_after.all()
    found = pgd(Ranked().eval(), image, label, targets=2, **options)
    assert not found.correct_after.any()
    assert found.steps_to_success.tolist() == [6 + 5]
    with pytest.raises(ConfigError, match="targets=3: the network has 3 classes, expected 2 at most"):
        pgd(Ranked().eval(), image, label, targets=3, **options)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr", "rescaled_cross_entropy", "top_two_cross_entropy"])
def test_towards_each_other_class_fools_no_less(loss: str) -> None:
    images, labels = digits(60)

    def attack(**more: object) -> AttackResult:
        return pgd(trained(), images, labels, epsilon=0.06, step_size=0.02, steps=10, loss=loss, **more)

    plain, aimed = attack(), attack(targets=9)
    assert aimed.robust_accuracy <= plain.robust_accuracy + 1 / 60
    assert torch.equal(trained()(aimed.adversarial).argmax(1) == labels, aimed.correct_after)
    assert (aimed.steps_to_success[~aimed.correct_after] <= 9 * 10).all()
    parts = [pgd(trained(), images[rows], labels[rows], indices=rows, epsilon=0.06, step_size=0.02, steps=10, loss=loss,
                 targets=2).correct_after for rows in torch.arange(60).split(25)]  # fmt: skip
    assert torch.equal(torch.cat(parts), attack(targets=2).correct_after)


def test_a_temperature_finds_what_the_scale_hid() -> None:
    images, labels = digits(60)
    options = {"epsilon": 0.1, "step_size": 0.02, "steps": 10}
    masked = Scaled(trained(), 1000.0).eval()
    plain, hidden = (pgd(each, images, labels, **options).robust_accuracy for each in (trained(), masked))
    assert hidden > plain + 0.3
    assert pgd(masked, images, labels, temperature=1000.0, **options).robust_accuracy <= plain + 1 / 60
    # Of logits that are twice as large at twice the temperature every gradient is the same to the bit.
    double = pgd(Scaled(trained(), 2.0).eval(), images, labels, temperature=2.0, **options)
    assert torch.equal(double.adversarial, pgd(trained(), images, labels, **options).adversarial)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "norm='l1' is unknown: expected one of linf, l2"),
        ({"temperature": 0.0}, "temperature=0.0 must be a finite number above 0"),
        ({"temperature": float("inf")}, "temperature=inf must be"),
        ({"targets": -1}, "targets=-1 must be a whole number, 1 or more"),
        ({"targets": 1.5}, "targets=1.5 must be a whole number"),
        ({"norm": "linf", "epsilon": 3.0}, "epsilon=3 must be 1 or less"),
    ],
)
def test_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pgd(trained(), *digits(10), **options)
