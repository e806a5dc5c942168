"""What an attack refuses: settings, samples and networks that cannot work, and a result outside the ball."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from art.attacks.evasion import HopSkipJump, ProjectedGradientDescent
from torch import Tensor, nn

from prs_lightning.attacks import fgsm, pgd
from prs_lightning.attacks.art import art_attack, auto_attack, square
from prs_lightning.attacks.ball import LinfBall, check_inside
from prs_lightning.attacks.engine import AttackResult
from prs_lightning.errors import ConfigError, RunError
from tests.attacked import digits, trained


def good() -> tuple[nn.Module, Tensor, Tensor]:
    return trained(), *digits(10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -0.1}, "epsilon=-0.1"),
        ({"epsilon": float("nan")}, "epsilon=nan"),
        ({"step_size": -1.0}, "step_size=-1.0"),
        ({"steps": 0}, "steps=0"),
        ({"loss": "hinge"}, "loss='hinge'"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"restarts": 0}, "restarts=0"),
        ({"diagnose": "end"}, "diagnose='end'"),
        ({"restarts": 2, "random_start": False}, "restarts=2"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_refuses_settings(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pgd(*good(), **options)


def test_refuses_images_labels_and_networks() -> None:
    network, images, labels = good()
    with pytest.raises(ConfigError, match=r"\[0, 2\]"):
        pgd(network, images * 2, labels)
    with pytest.raises(ConfigError, match="uint8"):
        pgd(network, (images * 255).to(torch.uint8), labels)
    with pytest.raises(ConfigError, match="nan"):
        pgd(network, images * float("nan"), labels)
    with pytest.raises(ConfigError, match="label 10 is out of range: the network has 10"):
        pgd(network, images, labels + 10 * (labels == labels[0]) - labels[0] * (labels == labels[0]))
    with pytest.raises(ConfigError, match="label -1"):
        pgd(network, images, labels - 1 - labels.min())
    with pytest.raises(ConfigError, match=r"\(9,\)"):
        pgd(network, images, labels[:9])
    with pytest.raises(ConfigError, match="float32: expected whole"):
        pgd(network, images, labels.float())
    with pytest.raises(ConfigError, match="empty"):
        pgd(network, images[:0], labels[:0])
    with pytest.raises(ConfigError, match=r"network returned \(10, 16, 8, 8\)|network returned \(8, 16, 8, 8\)"):
        pgd(network[:6].eval(), images, labels)
    with torch.inference_mode(), pytest.raises(ConfigError, match="inference mode"):
        pgd(network, images, labels)
    partly = nn.Sequential(network, nn.Dropout(0.5)).eval()
    partly[1].train()
    with pytest.raises(ConfigError, match=r"train mode \(1\)"):
        pgd(partly, images, labels)


def test_refuses_a_network_that_returns_nan() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = images.flatten(1)[:, :10]
            return torch.where(torch.arange(len(images))[:, None] == 3, logits * float("nan"), logits)

    images, labels = digits(10)
    with pytest.raises(RunError, match="nan for row 3"):
        pgd(Broken().eval(), images, labels)


@pytest.mark.parametrize("diagnose", [True, False])
def test_refuses_nan_at_the_last_iterate(diagnose: bool) -> None:
    network = trained()

    class BrokenBeyond(nn.Module):
        """Finite at the image and NaN one step from it; its first pixel always moves."""

        def forward(self, images: Tensor) -> Tensor:
            first = images[:, 0, 0, 0]
            logits = network(images) + first[:, None] * torch.arange(10) / 10
            return torch.where(((first - 0.5).abs() > 0.05)[:, None], torch.nan, logits)

    images, labels = digits(5)
    images = images.clone()
    images[:, 0, 0, 0] = 0.5
    with pytest.raises(RunError, match="the network returned nan for row"):
        fgsm(BrokenBeyond().eval(), images, labels, epsilon=0.1, diagnose=diagnose)


@pytest.mark.parametrize("random_start", [True, False])
def test_refuses_a_gradient_that_is_not_finite(random_start: bool) -> None:
    network = trained()

    class Steep(nn.Module):
        """Finite logits; at the clean image of row 3, which is misclassified, an infinite gradient."""

        def forward(self, images: Tensor) -> Tensor:
            first = images[:, 0, 0, 0]
            return network(images) + first.sqrt()[:, None] * torch.arange(10) / 100

    images, labels = digits(5)
    images = images.clone()
    images[:, 0, 0, 0] = 0.5
    images[3, 0, 0, 0] = 0.0
    labels = labels.clone()
    labels[3] = (labels[3] + 1) % 10
    with pytest.raises(RunError, match="loss gradient of row 3 is not finite"):
        pgd(Steep().eval(), images, labels, steps=2, random_start=random_start)


def test_an_attack_that_leaves_the_ball_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinfBall, "step", lambda ball, images, gradient, step_size, clean: images + step_size)
    with pytest.raises(RunError, match="leaves the ball"):
        pgd(*good(), epsilon=0.01, step_size=0.1, steps=2, early_exit=False)
    images, clean = torch.tensor([[0.5], [float("nan")], [1.2]]), torch.tensor([[0.5], [0.5], [1.0]])
    outside = LinfBall(0.5).excess(images, clean)
    with pytest.raises(RunError, match=r"row 1 .*2 rows"):
        check_inside(outside, 0.5)


def flat(height: int, width: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear network on images of that size, which it all classifies as given."""
    torch.manual_seed(0)
    network, images = (
        nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 10)).eval(),
        torch.rand(8, 3, height, width),
    )
    return network, images, network(images).argmax(1)


@pytest.mark.parametrize("size", [(8, 24), (24, 8)])
def test_arts_square_attack_takes_rectangles(size: tuple[int, int]) -> None:
    network, images, labels = flat(*size)
    found = square(network, images, labels, epsilon=0.1, max_iter=30)
    assert found.adversarial.shape == images.shape
    assert (found.adversarial - images).abs().max() <= 0.1 + 1e-6
    assert torch.equal(network(found.adversarial).argmax(1) == labels, found.correct_after)
    assert found.robust_accuracy < 1, "it attacks what the network sees"


@pytest.mark.parametrize("attack", [square, auto_attack])
def test_an_epsilon_of_zero_is_clean_accuracy_also_with_art(attack: Callable[..., AttackResult]) -> None:
    network, images, labels = flat(8, 8)
    found = attack(network, images, torch.where(torch.arange(8) < 2, (labels + 1) % 10, labels), epsilon=0.0)
    assert found.robust_accuracy == 0.75
    assert torch.equal(found.adversarial, images)


@pytest.mark.parametrize(
    ("attack", "options", "says"),
    [
        (HopSkipJump, {}, "ART's HopSkipJump cannot be made .*takes eps"),
        (ProjectedGradientDescent, {"colour": 3}, "ART's ProjectedGradientDescent cannot be made .*'colour'"),
        (ProjectedGradientDescent, {"max_iter": -3}, "max_iter.*nonnegative"),
        ("pgd", {}, "ART's pgd cannot be made"),
    ],
)  # fmt: skip
def test_what_art_refuses_is_one_line(attack: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        art_attack(*flat(8, 8), attack, epsilon=0.1, **options)
    assert "\n" not in str(refused.value)


def test_where_art_fails_it_is_named_with_the_images() -> None:
    with pytest.raises(RunError, match=r"ART's SquareAttack failed on images \(3, 2, 2\): ValueError"):
        square(*flat(2, 2), epsilon=0.001)
