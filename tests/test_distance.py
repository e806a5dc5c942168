"""Distances to the decision boundary: closed forms, verified images, whatever the scale, batches and shards."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor, nn

from prs_lightning.attacks import distances, pgd
from prs_lightning.attacks.distance import PRECISION, Distances, smooth_margin
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.regions.logits import median
from tests.attacked import Scaled, digits, trained

NORMS = ["linf", "l2"]


def lengths(offsets: Tensor, norm: str) -> Tensor:
    return torch.linalg.vector_norm(offsets.flatten(1), ord=math.inf if norm == "linf" else 2, dim=1)


def linear(weight: Tensor, bias: Tensor) -> nn.Module:
    """A network with logits weight @ pixels + bias."""
    layer = nn.Linear(*weight.T.shape)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return nn.Sequential(nn.Flatten(), layer).eval()


@functools.cache
def found(norm: str, targets: int = 0) -> Distances:
    return distances(trained(), *digits(120), norm=norm, targets=targets)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 5), norm=st.sampled_from(NORMS))
def test_of_a_linear_network_it_is_the_margin_over_the_dual_norm(seed: int, classes: int, norm: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = 0.4 + 0.2 * torch.rand(6, 1, 3, 4, generator=generator)
    weight, bias = torch.randn(classes, 12, generator=generator), torch.randn(classes, generator=generator)
    logits = images.flatten(1) @ weight.T + bias
    labels = logits.argmax(1)
    gaps = logits.amax(1, keepdim=True) - logits
    slopes = torch.linalg.vector_norm(weight[labels][:, None] - weight[None], ord=1 if norm == "linf" else 2, dim=2)
    exact = (gaps / slopes).nan_to_num(math.inf).amin(1)
    result = distances(linear(weight, bias), images, labels, norm=norm, targets=classes - 1)
    inside = exact < 0.4  # the nearest image of the unbounded space is one: no pixel is cut
    ratios = (result.distance / exact)[inside]
    assert bool((ratios > 1 - 1e-4).all())
    assert bool((ratios < 1 + 3 * PRECISION).all())


def test_where_pixels_are_black_or_white_those_that_cannot_move_are_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(20, 1, 6, 6, generator=generator).mul(3).sub(1).clamp(0, 1)
    weight, labels = torch.randn(2, 36, generator=generator), torch.zeros(20, dtype=torch.int64)
    bias = torch.tensor([12.0, 0.0])
    result = distances(linear(weight, bias), images, labels)
    slope = (weight[1] - weight[0]).double().numpy()
    for image, distance in zip(images.flatten(1).double().numpy(), result.distance.tolist(), strict=True):
        room = np.where(slope > 0, 1 - image, image)
        start = slope @ image - 12.0

        def margin(radius: float) -> float:
            return start + abs(slope) @ np.minimum(radius, room)  # noqa: B023

        if margin(1.0) < 0:
            assert distance == math.inf
        else:
            exact = brentq(margin, 0, 1) if start < 0 else 0.0
            assert exact * (1 - 1e-4) <= distance <= exact * (1 + 3 * PRECISION)


@pytest.mark.parametrize("norm", NORMS)
def test_each_image_lies_in_the_cube_is_misclassified_and_is_that_far(norm: str) -> None:
    network, (images, labels) = trained(), digits(120)
    result = found(norm)
    assert result.adversarial is not None
    with torch.no_grad():
        clean, adversarial = (network(each).argmax(1) == labels for each in (images, result.adversarial))
    assert torch.equal(result.correct, clean)
    assert 0 < int((~clean).sum()) < 20
    assert not adversarial.any()
    assert bool((result.adversarial >= 0).all() & (result.adversarial <= 1).all())
    assert torch.equal(result.distance, lengths(result.adversarial - images, norm))
    assert torch.equal(result.distance > 0, clean)
    assert result.median == float(np.median(result.distance[clean].double()))


@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_logits_does_not_matter(norm: str) -> None:
    images, labels = digits(120)
    for factor in (2.0**12, 2.0**-12):
        other = distances(Scaled(trained(), factor).eval(), images, labels, norm=norm)
        assert torch.equal(other.distance, found(norm).distance), "a power of two rounds nothing"
    for factor in (1e3, 1e-3, 1e12, 1e-12):
        other = distances(Scaled(trained(), factor).eval(), images, labels, norm=norm)
        assert ((other.distance - found(norm).distance).abs() < 0.01 * found(norm).distance)[other.correct].sum() > 95
        assert other.median == pytest.approx(found(norm).median, rel=0.005)


@pytest.mark.parametrize("norm", NORMS)
def test_results_do_not_depend_on_batches_order_or_shards(norm: str) -> None:
    images, labels = digits(120)
    for batch_size, count in ((1, 12), (7, 40), (50, 120)):
        other = distances(trained(), images[:count], labels[:count], norm=norm, batch_size=batch_size)
        torch.testing.assert_close(other.distance, found(norm).distance[:count], rtol=1e-3, atol=0)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    shuffled = distances(trained(), images[order], labels[order], norm=norm, indices=order)
    torch.testing.assert_close(shuffled.distance, found(norm).distance[order], rtol=1e-3, atol=0)
    for rank in (0, 1):
        rows = torch.arange(rank, 120, 2)
        shard = distances(trained(), images[rows], labels[rows], norm=norm, indices=rows)
        torch.testing.assert_close(shard.distance, found(norm).distance[rows], rtol=1e-3, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_targets_only_find_nearer_ones(norm: str) -> None:
    plain, targeted = found(norm), found(norm, targets=2)
    assert bool((targeted.distance <= plain.distance).all())
    assert int((targeted.distance < 0.98 * plain.distance).sum()) >= 3
    assert targeted.adversarial is not None
    assert torch.equal(targeted.distance, lengths(targeted.adversarial - digits(120)[0], norm))


def test_whom_pgd_fools_lies_nearer_than_epsilon() -> None:
    images, labels = digits(120)
    for epsilon in (0.05, 0.08):
        fooled = pgd(trained(), images, labels, epsilon=epsilon, step_size=epsilon / 10, steps=40, loss="margin")
        nearer = found("linf", targets=2).distance <= epsilon
        assert int((~fooled.correct_after & ~nearer).sum()) <= 1
        assert int(nearer.sum()) >= int((~fooled.correct_after).sum())


def test_as_near_as_the_fast_minimum_norm_attack_of_foolbox() -> None:
    foolbox = pytest.importorskip("foolbox")
    images, labels = (each[found("linf").correct][:40] for each in digits(120))
    view = foolbox.PyTorchModel(trained(), bounds=(0, 1), device="cpu")
    _, adversarial, success = foolbox.attacks.LInfFMNAttack(steps=200)(view, images, labels, epsilons=None)
    assert bool(success.all())
    theirs, ours = lengths(adversarial - images, "linf"), found("linf").distance[found("linf").correct][:40]
    assert median(ours) < 1.01 * median(theirs)
    assert median(torch.minimum(ours, theirs)) > 0.97 * median(ours)


class Blind(nn.Module):
    """A network whose gradient is exactly 0 everywhere: pixels are rounded to 8 levels."""

    def forward(self, images: Tensor) -> Tensor:
        return trained()(images + ((images * 7).round() / 7 - images).detach() - images + images.detach())


def test_without_gradients_random_images_and_bisection_give_a_bound() -> None:
    images, labels = digits(30)
    network = Blind().eval()
    blind = distances(network, images, labels)
    reached = blind.distance.isfinite() & blind.correct
    assert reached.sum() > 10
    assert blind.adversarial is not None
    with torch.no_grad():
        assert bool((network(blind.adversarial).argmax(1) != labels)[reached].all())
    assert bool((blind.distance[reached] > 0.05).all())
    again = distances(network, images.flip(0), labels.flip(0), indices=torch.arange(30).flip(0), batch_size=4)
    torch.testing.assert_close(again.distance.flip(0), blind.distance, rtol=1e-3, atol=0)
    other = distances(network, images, labels, generator=torch.Generator().manual_seed(5))
    assert not torch.equal(other.distance, blind.distance)


@pytest.mark.parametrize("norm", NORMS)
def test_where_nothing_is_found_it_is_infinite(norm: str) -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0, 0.5]) + 0 * images.flatten(1)[:, :3]

    images, labels = torch.full((5, 1, 2, 3), 0.25), torch.tensor([0, 0, 1, 0, 2])
    result = distances(Constant().eval(), images, labels, norm=norm, targets=2)
    assert result.distance.tolist() == [math.inf, math.inf, 0, math.inf, 0]
    assert result.correct.tolist() == [True, True, False, True, False]
    assert result.median == math.inf
    assert result.adversarial is not None
    assert torch.equal(result.adversarial, images)
    nobody = distances(Constant().eval(), images, labels, norm=norm, among=torch.zeros(5, dtype=torch.bool))
    assert math.isnan(nobody.median)
    assert nobody.distance.tolist() == [0] * 5


def test_among_says_who_is_looked_at_and_progress_who_is_done() -> None:
    images, labels = digits(120)
    among, told = found("linf").correct & (torch.arange(120) % 2 == 0), []
    half = distances(
        trained(), images, labels, among=among, keep_adversarial=False, progress=lambda *counts: told.append(counts)
    )
    assert half.adversarial is None
    assert torch.equal(half.correct, among)
    torch.testing.assert_close(half.distance, found("linf").distance * among, rtol=1e-3, atol=0)
    assert told[-1] == (120, 120, 0)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_the_smooth_margin_is_the_margin_near_the_boundary() -> None:
    labels = torch.tensor([0, 0])
    logits = torch.tensor([[1.0, 0.999, -3.0], [9.0, 0.0, -0.1]], requires_grad=True)
    (gradient,) = torch.autograd.grad(smooth_margin(logits, labels).sum(), logits)
    torch.testing.assert_close(gradient[0], torch.tensor([-1.0, 1.0, 0.0]))
    assert 0.4 < float(gradient[1, 2]) < 0.5
    assert float(gradient[1].sum()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "norm='l1' is unknown: expected one of linf, l2"),
        ({"steps": 0}, "steps=0 must be a whole number, 1 or more"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number, 1 or more"),
        ({"targets": -1}, "targets=-1 must be a whole number, 1 or more"),
        ({"targets": 10}, "targets=10: the network has 10 classes, expected 9 at most"),
    ],
)
def test_bad_values_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        distances(trained(), *digits(5), **options)
    assert str(error.value) == message


def test_bad_images_labels_and_networks_are_one_line() -> None:
    images, labels = digits(5)
    with pytest.raises(ConfigError, match=r"images lie in \[0, 2\]"):
        distances(trained(), 2 * images.round(), labels)
    with pytest.raises(ConfigError, match="label 12 is out of range"):
        distances(trained(), images, torch.full_like(labels, 12))
    with pytest.raises(ConfigError, match="the network is in train mode"):
        distances(nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)), images, labels)
    with pytest.raises(RunError, match="the network returned nan for row 0"):
        distances(Scaled(trained(), math.nan).eval(), images, labels)


def test_a_boundary_two_float32_away_is_found_and_the_search_ends() -> None:
    clean = torch.full((1, 1, 1, 1), 0.7)
    beyond = torch.nextafter(torch.nextafter(clean, torch.ones(())), torch.ones(())).item()

    class Step(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            ahead = images.flatten(1) - beyond
            return torch.cat([torch.zeros_like(ahead), ahead + 1e-12], dim=1)

    found = distances(Step().eval(), clean, torch.tensor([0]))
    assert found.distance.item() == pytest.approx(beyond - 0.7, abs=1e-7)
