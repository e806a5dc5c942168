"""The losses against closed forms, and what they are for: gradients that do not vanish."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prs_lightning.attacks import ThreatModel
from prs_lightning.attacks.losses import (
    LOSSES,
    cross_entropy,
    dlr,
    margin,
    rescaled_cross_entropy,
    resolve,
    top_two_cross_entropy,
)
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
    parted = LOGITS * torch.tensor([[1 / 2.0], [1 / 1.0]])
    torch.testing.assert_close(top_two_cross_entropy(LOGITS, LABELS), F.cross_entropy(parted, LABELS, reduction="none"))


def test_values_with_a_target() -> None:
    targets = torch.tensor([2, 0])
    values = {name: loss(LOGITS, LABELS, targets) for name, loss in LOSSES.items()}
    assert values["margin"].tolist() == [2.0 - 4.0, 5.0 - 3.0]
    torch.testing.assert_close(values["dlr"], torch.tensor([-2.0 / (4 - (1 - 1) / 2), 2.0 / (5 - (3 + 0) / 2)]))
    torch.testing.assert_close(values["cross_entropy"], LOGITS.log_softmax(1)[torch.arange(2), targets])
    for name, factor in (("rescaled_cross_entropy", [2.0, 2.0]), ("top_two_cross_entropy", [0.5, 1.0])):
        scaled = LOGITS * torch.tensor(factor)[:, None]
        torch.testing.assert_close(values[name], scaled.log_softmax(1)[torch.arange(2), targets])


@pytest.mark.parametrize("name", LOSSES)
def test_a_target_draws_its_own_logit_up(name: str) -> None:
    logits = LOGITS.clone().requires_grad_(True)
    LOSSES[name](logits, LABELS, torch.tensor([2, 0])).sum().backward()
    assert (logits.grad[torch.arange(2), [2, 0]] > 0).all()
    assert (logits.grad[torch.arange(2), LABELS] < 0).all()


def test_the_scale_is_held_constant_and_ties_stay_finite() -> None:
    """The gradient is that of the cross-entropy at the rescaled logits, times a constant."""
    logits = LOGITS.clone().requires_grad_(True)
    top_two_cross_entropy(logits, LABELS).sum().backward()
    parted = LOGITS * torch.tensor([[0.5], [1.0]])
    expected = (parted.softmax(1) - F.one_hot(LABELS, 4)) * torch.tensor([[0.5], [1.0]])
    torch.testing.assert_close(logits.grad, expected)
    tied = torch.tensor([[1.0, 1.0, 0.0]], requires_grad=True)
    top_two_cross_entropy(tied, torch.tensor([0])).sum().backward()
    assert tied.grad.isfinite().all()


def test_a_temperature_divides_the_logits() -> None:
    cooled = resolve("cross_entropy", 100.0)
    torch.testing.assert_close(cooled(LOGITS * 100, LABELS), cross_entropy(LOGITS, LABELS))
    aimed = resolve("margin", 10.0)
    torch.testing.assert_close(aimed(LOGITS, LABELS, torch.tensor([2, 0])), torch.tensor([-0.2, 0.2]))
    assert resolve("dlr") is dlr


@pytest.mark.parametrize("loss", [dlr, rescaled_cross_entropy, top_two_cross_entropy])
def test_scale_free_losses_do_not_see_the_scale(loss: object) -> None:
    torch.testing.assert_close(loss(LOGITS * 1e4, LABELS), loss(LOGITS, LABELS))


@pytest.mark.parametrize(("name", "vanishes"), [("cross_entropy", True), ("margin", False), ("dlr", False),
                                                ("rescaled_cross_entropy", False),
                                                ("top_two_cross_entropy", False)])  # fmt: skip
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
    with pytest.raises(ConfigError, match="with targets needs 4 classes or more, the network has 3"):
        dlr(LOGITS[:, :3], LABELS, LABELS)
    with pytest.raises(ConfigError, match="targets=2 needs a loss by its name: expected one of cross_entropy"):
        ThreatModel(loss=mine, targets=2)
