"""The losses against closed forms, and what they are for: gradients that do not vanish."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prs_lightning.attacks.losses import LOSSES, cross_entropy, dlr, margin, rescaled_cross_entropy, resolve
from prs_lightning.errors import ConfigError

LOGITS = torch.tensor([[1.0, 4.0, 2.0, -1.0], [5.0, 0.0, 3.0, 4.0]])
LABELS = torch.tensor([1, 2])


def test_values() -> None:
    assert margin(LOGITS, LABELS).tolist() == [2.0 - 4.0, 5.0 - 3.0]
    torch.testing.assert_close(dlr(LOGITS, LABELS), torch.tensor([-2.0 / (4 - 1), 2.0 / (5 - 3)]))
    expected = torch.logsumexp(LOGITS.double(), 1) - torch.tensor([4.0, 3.0]).double()
    torch.testing.assert_close(cross_entropy(LOGITS, LABELS).double(), expected, atol=1e-6, rtol=1e-6)
    scaled = LOGITS * torch.tensor([[10 / 5.0], [10 / 5.0]])
    torch.testing.assert_close(
        rescaled_cross_entropy(LOGITS, LABELS), F.cross_entropy(scaled, LABELS, reduction="none")
    )


@pytest.mark.parametrize("loss", [dlr, rescaled_cross_entropy])
def test_scale_free_losses_do_not_see_the_scale(loss: object) -> None:
    torch.testing.assert_close(loss(LOGITS * 1e4, LABELS), loss(LOGITS, LABELS))


@pytest.mark.parametrize(("name", "vanishes"), [("cross_entropy", True), ("margin", False), ("dlr", False),
                                                ("rescaled_cross_entropy", False)])  # fmt: skip
def test_only_cross_entropy_vanishes_on_confident_logits(name: str, vanishes: bool) -> None:
    logits = (LOGITS[:1] * 1000).requires_grad_(True)
    LOSSES[name](logits, LABELS[:1]).sum().backward()
    assert bool((logits.grad == 0).all()) == vanishes


def test_positive_margin_means_misclassified() -> None:
    logits, labels = torch.randn(500, 10), torch.arange(500) % 10
    wrong = logits.argmax(1) != labels
    assert torch.equal(margin(logits, labels) > 0, wrong)
    assert torch.equal(dlr(logits, labels) > 0, wrong)


def test_refuses_unknown_names_and_too_few_classes() -> None:
    def mine(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.sum(1)

    assert resolve(mine) is mine
    with pytest.raises(ConfigError, match="loss='hinge' is unknown: expected one of cross_entropy, margin, dlr"):
        resolve("hinge")
    with pytest.raises(ConfigError, match="needs 3 classes or more, the network has 2"):
        dlr(LOGITS[:, :2], LABELS)
