"""What an attack refuses: settings, samples and networks that cannot work, and a result outside the ball."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prs_lightning.attacks import fgsm, pgd
from prs_lightning.attacks.ball import LinfBall, check_inside
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
