"""What interventions are made of, against torch's own losses and optimizers, and counts by hand."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prs_lightning.regions import region_keys
from prs_lightning.regions.penalties import PatternCounts, border_hinge, pattern_hinge
from prs_lightning.regions.regularisers import (
    bounded,
    decay_weights,
    major_sums,
    pull_to_mean,
    pull_to_signs,
    smoothing,
)

CLASSES, UNITS = 3, 5


def samples(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pre-activations (count, UNITS), of few different signs, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return torch.randn(count, UNITS, generator=generator) + 2 * F.one_hot(labels, UNITS) - 0.5, labels


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value, of)[0]


@pytest.mark.parametrize("amount", [0.1, 1.0])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_smoothing_is_that_of_torch(amount: float, scale: float) -> None:
    z, labels = samples(40)
    logits = (scale * z).requires_grad_()
    ours = F.cross_entropy(logits, labels) + amount * smoothing(logits, labels)
    torchs = F.cross_entropy(logits, labels, label_smoothing=amount)
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(gradient(ours, logits), gradient(torchs, logits))


def test_decay_is_that_of_adamw_to_the_bit() -> None:
    trained = []
    for decoupled in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(UNITS, 7), nn.ReLU(), nn.Linear(7, CLASSES), nn.Linear(2, 2))  # one is unused
        groups = [{"params": network[0].parameters(), "lr": 0.1}, {"params": network[1:].parameters()}]
        kind = torch.optim.AdamW if decoupled else torch.optim.Adam
        optimizer = kind(groups, lr=0.02, **({"weight_decay": 0.3} if decoupled else {}))
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=9)
        for step in range(9):
            z, labels = samples(16, seed=step)
            optimizer.zero_grad()
            F.cross_entropy(network[:3](z), labels).backward()
            if not decoupled:
                decay_weights(optimizer, 0.3)
            optimizer.step()
            schedule.step()
        trained.append(network.state_dict())
    torch.testing.assert_close(trained[0], trained[1], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 2, 2)])
@pytest.mark.parametrize("share", [0.3, 0.999999, 1.0, 1.5])
def test_bounded_is_renorm_and_does_it_once(shape: tuple[int, ...], share: float) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    bound = share * float(weight.double().norm())
    found = bounded(weight, bound)
    torch.testing.assert_close(found, torch.renorm(weight.flatten()[None], 2, 0, bound).view(shape))
    assert found.double().norm() <= bound
    assert torch.equal(bounded(found, bound), found)
    assert torch.equal(found, weight) == (share >= 1)


def test_hinge_is_the_margin_ranking_loss_of_torch() -> None:
    z = samples(40)[0].requires_grad_()
    signs = torch.where(torch.rand(z.shape, generator=torch.Generator().manual_seed(2)) < 0.5, 1.0, -1.0)
    ours = pattern_hinge(z, signs, scale=torch.tensor(1.7), margin=0.4)
    torchs = F.margin_ranking_loss(z / 1.7, torch.zeros_like(z), signs, margin=0.4)
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(gradient(ours, z), gradient(torchs, z))


def test_both_hinges_cost_alike_and_draw_to_opposite_sides() -> None:
    z = samples(40)[0].requires_grad_()
    options = {"scale": torch.tensor(1.7), "margin": 0.4}
    far = gradient(pattern_hinge(z, z.detach().sign(), scale=torch.tensor(1.7), margin=1e6), z)  # nobody has arrived
    near = gradient(border_hinge(z, **options), z)
    torch.testing.assert_close(near, -far)
    step = z.detach() - 1e-3 * near.sign()
    assert (step.abs() < z.detach().abs()).all()
    assert (gradient(pattern_hinge(z, z.detach().sign(), **options), z) * z.detach() <= 0).all()


def test_counts_fade_and_their_majority_is_that_of_all_samples_with_their_worth() -> None:
    counts = PatternCounts.unpacked(torch.zeros(CLASSES, UNITS + 2))
    worth, positive, size = torch.zeros(CLASSES), torch.zeros(CLASSES, UNITS), 0.0
    for batch in range(6):
        z, labels = samples(8, seed=batch)
        counts = counts.then(PatternCounts.of(z, labels, CLASSES), 0.9)
        for row, label in zip(z, labels, strict=True):
            worth[label] += 0.9 ** (5 - batch)
            positive[label] += (row > 0) * 0.9 ** (5 - batch)
            size += float(row.abs().mean()) * 0.9 ** (5 - batch)
    torch.testing.assert_close(counts.positive, positive)
    assert torch.equal(counts.majority() > 0, positive > worth[:, None] / 2)
    assert float(counts.scale()) == pytest.approx(size / float(worth.sum()))


@pytest.mark.parametrize("units", [UNITS, 130])  # beyond 128 keys are hashed
def test_major_sums_are_those_of_the_commonest_tuple_however_samples_are_spread(units: int) -> None:
    z, labels = samples(90)
    z = F.pad(z, (0, units - UNITS), value=-1.0)
    labels[labels == 1] = 3  # so that class 1 has no sample
    regions = torch.cat([region_keys(z), labels[:, None]], 1)
    parts = [major_sums(z[rank::2].relu(), regions[rank::2], regions, 4) for rank in (0, 1)]
    *sums, counts = (parts[0] + parts[1]).T
    patterns = [tuple(row) for row in (z > 0).tolist()]
    for label in range(4):
        of_class = Counter(pattern for pattern, own in zip(patterns, labels, strict=True) if own == label)
        most = max(of_class.values(), default=0)
        populations = {patterns.count(pattern) for pattern, count in of_class.items() if count == most} or {0}
        assert int(counts[label]) in populations
        expected = [
            z[torch.tensor([each == pattern for each in patterns])].relu().sum(0)
            for pattern, count in of_class.items()
            if count == most
        ] or [torch.zeros(units)]
        found = torch.stack(sums, 1)[label]
        assert any(torch.allclose(found, each) for each in expected)  # of equally common ones any


def test_pulls_are_those_of_a_loop_over_samples() -> None:
    z, labels = samples(30)
    features = z.relu().requires_grad_()
    means = torch.tensor([[2.0, 0.0, 0.5, 0.0, 0.0], [0.0] * 5, [1.0] * 5])  # no unit is positive for class 1
    kept = [
        F.mse_loss(row[means[label] > 0], means[label][means[label] > 0])
        for row, label in zip(features, labels, strict=True)
        if (means[label] > 0).any()
    ]
    ours = pull_to_mean(features, means[labels])
    torch.testing.assert_close(ours, torch.stack(kept).mean())
    torch.testing.assert_close(gradient(ours, features), gradient(torch.stack(kept).mean(), features))
    expected = F.mse_loss(torch.tanh(features), torch.sign(means[labels]))
    torch.testing.assert_close(pull_to_signs(features, means[labels]), expected)
    assert pull_to_mean(features, torch.zeros(30, UNITS)).item() == 0
