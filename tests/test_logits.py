"""Logit gap and loss underflow against numpy, and over several processes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from prs_lightning.errors import ConfigError
from prs_lightning.regions.logits import LogitScale, logit_gap, loss_underflow, median


def logits_and_labels(count: int, scale: float = 12.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    logits = scale * torch.randn(count, 5, generator=generator)
    labels = torch.where(torch.rand(count, generator=generator) < 0.7, logits.argmax(1), 0)
    return logits, labels


@pytest.mark.parametrize("count", [40, 41])
def test_the_figures_are_those_of_numpy(count: int) -> None:
    logits, labels = logits_and_labels(count)
    metric = LogitScale()
    for part, its_labels in zip(logits.split(7), labels.split(7), strict=True):
        metric.update(part, its_labels)
    z, y = logits.numpy(), labels.numpy()
    ordered, right = np.sort(z, axis=1), z.argmax(1) == y
    loss = scipy.special.logsumexp(z.astype(np.longdouble), axis=1) - z[np.arange(count), y]
    found = {name: value.item() for name, value in metric.compute().items()}
    assert 0 < right.sum() < count
    assert found["gap"] == pytest.approx(np.median((ordered[:, -1] - ordered[:, -2])[right]), rel=1e-6)
    # half a unit in the last place of 1: a smaller share of the others is lost beside it
    assert found["loss_underflow"] == pytest.approx((loss < 2**-24).mean())
    assert 0 < found["loss_underflow"] < 1


def test_underflow_begins_at_a_margin_of_17_and_needs_the_right_class() -> None:
    logits = torch.tensor([[16.0, 0.0], [17.5, 0.0], [500.0, 0.0], [0.0, 500.0]])
    assert loss_underflow(logits, torch.zeros(4, dtype=torch.int64)).tolist() == [False, True, True, False]
    assert loss_underflow(logits.double(), torch.zeros(4, dtype=torch.int64)).tolist() == [False, True, True, False]


def test_a_tie_has_no_gap_and_one_logit_is_refused() -> None:
    assert logit_gap(torch.tensor([[3.0, 3.0, 1.0]])).item() == 0
    with pytest.raises(ConfigError, match="two classes or more"):
        logit_gap(torch.zeros(3, 1))


def test_no_correct_sample_has_no_gap() -> None:
    metric = LogitScale()
    metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert metric.compute()["gap"].isnan()
    assert metric.compute()["loss_underflow"] == 0
    assert median(torch.tensor([5.0])) == 5
