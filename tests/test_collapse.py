"""Neural collapse against two passes of numpy: however samples are batched, shared out or degenerate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from prs_lightning.errors import ConfigError
from prs_lightning.regions import collapse
from prs_lightning.regions.collapse import Collapse, nc2


def features(samples: int, width: int, classes: int = 10, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """ReLU features of unequal classes."""
    generator = torch.Generator().manual_seed(samples + width)
    labels = (classes * torch.rand(samples, generator=generator) ** 1.5).long()
    centres = 3 * torch.randn(classes, width, generator=generator)
    return (centres[labels] + torch.randn(samples, width, generator=generator)).relu() + shift, labels


def oracle(given: Tensor, labels: Tensor) -> tuple[float, float]:
    """Papyan et al. 2020 as it is written: means first, then (D, D) covariances and numpy's pseudo-inverse."""
    h, y = given.double().numpy(), labels.numpy()
    means = np.stack([h[y == label].mean(0) for label in np.unique(y)])
    mean, count = means.mean(0), len(means)
    residuals = h - means[np.searchsorted(np.unique(y), y)]
    within, between = residuals.T @ residuals / len(h), (means - mean).T @ (means - mean) / count
    rows = (means - mean) / np.linalg.norm(means - mean, axis=1, keepdims=True)
    cosines = (rows @ rows.T)[np.triu_indices(count, 1)]
    nc1 = np.trace(within @ np.linalg.pinv(between, rcond=1e-13, hermitian=True)) / count
    return nc1, np.abs(cosines + 1 / (count - 1)).mean()


def found(given: Tensor, labels: Tensor, size: int = 77, classes: int = 10) -> tuple[float, float]:
    metric = Collapse(classes)
    for part, its_labels in zip(given.split(size), labels.split(size), strict=True):
        metric.update(part, its_labels)
    return metric.compute()["nc1"].item(), metric.compute()["nc2"].item()


@pytest.mark.parametrize(("samples", "width"), [(1500, 24), (150, 200), (1300, 5), (2200, 30), (1300, 520)])
def test_one_pass_gives_what_two_passes_give(samples: int, width: int) -> None:
    given, labels = features(samples, width)
    assert found(given, labels) == pytest.approx(oracle(given, labels), rel=1e-6)
    assert found(given, labels, size=1) == pytest.approx(found(given, labels, size=samples), rel=1e-6)


def test_features_far_from_zero_lose_nothing() -> None:
    given, labels = features(1500, 24, shift=3e4)
    assert found(given, labels) == pytest.approx(oracle(given, labels), rel=1e-5)


def test_a_simplex_is_collapsed_and_two_classes_have_one_angle() -> None:
    labels = torch.arange(40) % 4
    assert found(torch.eye(4)[labels] * 7 + 3, labels, classes=4) == pytest.approx((0, 0), abs=1e-6)
    assert nc2(torch.randn(2, 9)).item() == pytest.approx(0, abs=1e-12)


def test_degenerate_classes() -> None:
    given, labels = features(200, 12, classes=4)
    # classes that do not occur are no classes
    assert found(given, labels) == pytest.approx(oracle(given, labels), rel=1e-6)
    # a class of one sample has no scatter
    alone = torch.cat([labels, torch.tensor([9])]), torch.cat([given, torch.full((1, 12), 2.0)])
    assert found(alone[1], alone[0]) == pytest.approx(oracle(alone[1], alone[0]), rel=1e-6)
    # two classes in the same place: an angle less, no division by 0
    twice = torch.cat([labels, labels + 4])
    assert found(torch.cat([given, given]), twice)[0] == pytest.approx(
        oracle(torch.cat([given, given]), twice)[0], rel=1e-6
    )
    one_each = found(torch.eye(4), torch.arange(4))
    assert one_each == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_all_means_equal_is_no_number(value: float) -> None:
    given, labels = torch.full((300, 6), value), torch.arange(300) % 3
    assert np.isnan(found(given, labels)).all()
    assert np.isnan(found(torch.randn(20, 6), torch.zeros(20, dtype=torch.int64))).all()


def test_many_features_have_angles_and_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "MOST_FEATURES", 20)
    given, labels = features(1500, 24)
    nc1, angles = found(given, labels)
    assert np.isnan(nc1)
    assert angles == pytest.approx(oracle(given, labels)[1], rel=1e-6)
    with pytest.raises(ConfigError, match=r"expected \(N, D\)"):
        Collapse(3).update(torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64))
