"""FGSM, BIM and PGD against ART and against a plain loop; the ball, the curve, the random start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from prs_lightning.attacks import bim, fgsm, pgd, robust_accuracy, robustness_curve
from prs_lightning.attacks.ball import LinfBall
from prs_lightning.seeding import keyed_uniform
from tests.attacked import Scaled, digits, trained

STEP = 2 / 255


def plain_pgd(network: nn.Module, start: Tensor, clean: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """All iterates of textbook PGD (steps + 1, N, ...), nobody leaving: the oracle of the engine."""
    iterates = [start]
    for _ in range(steps):
        images = iterates[-1].clone().requires_grad_(True)
        F.cross_entropy(network(images), labels, reduction="sum").backward()
        moved = images.detach() + STEP * images.grad.sign()
        iterates.append(torch.minimum(torch.maximum(moved, clean - epsilon), clean + epsilon).clamp(0, 1))
    return torch.stack(iterates)


# After so many steps in so small a ball most iterates run in circles.
@pytest.mark.parametrize(("epsilon", "steps"), [(0.1, 8), (0.012, 39), (0.012, 40)])
@pytest.mark.parametrize("early_exit", [True, False])
def test_engine_equals_a_plain_loop_over_all_samples(early_exit: bool, epsilon: float, steps: int) -> None:
    network, (images, labels) = trained(), digits(100)
    found = pgd(
        network, images, labels, epsilon=epsilon, step_size=STEP, steps=steps, early_exit=early_exit, batch_size=17
    )
    generator = torch.Generator().manual_seed(0)
    key = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=generator))
    start = LinfBall(epsilon).random_start(images, torch.arange(100), key)
    iterates = plain_pgd(network, start, images, labels, epsilon, steps)
    wrong = torch.stack([network(iterate).argmax(1) != labels for iterate in iterates])
    before = network(images).argmax(1) == labels
    fooled = wrong.any(0) if early_exit else wrong[-1]
    assert torch.equal(found.correct_before, before)
    assert torch.equal(found.correct_after, before & ~fooled)
    assert 0 < found.robust_accuracy < float(before.float().mean())
    first = torch.where(wrong.any(0), wrong.int().argmax(0), -1)
    assert torch.equal(found.steps_to_success[before], first[before])
    assert (found.steps_to_success[~before] == 0).all()
    last = first if early_exit else torch.full_like(first, -1)
    ends = iterates[torch.where(last < 0, steps, last), torch.arange(100)]
    torch.testing.assert_close(found.adversarial[before], ends[before])
    assert torch.equal(found.adversarial[~before], images[~before])


@pytest.mark.parametrize(("epsilon", "lowest", "highest"), [(0.03, 0.6, 0.99), (0.15, 0.0, 0.5)])
def test_robust_accuracy_is_that_of_art(epsilon: float, lowest: float, highest: float) -> None:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    network, (images, labels) = trained(), digits(500)
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 32, 32), 10, clip_values=(0, 1), device_type="cpu"
    )
    oracle = ProjectedGradientDescentPyTorch(
        classifier, eps=epsilon, eps_step=STEP, max_iter=20, num_random_init=1, verbose=False
    )

    def mean(measure: Callable[[int], float]) -> float:
        """Over three random starts, each drawn from the same distribution by ART and by us."""
        return float(np.mean([measure(seed) for seed in range(3)]))

    def by_art(seed: int) -> float:
        np.random.seed(seed)  # noqa: NPY002
        adversarial = torch.from_numpy(oracle.generate(images.numpy(), labels.numpy()))
        network.eval()
        return float((network(adversarial).argmax(1) == labels).double().mean())

    def by_us(seed: int, early_exit: bool) -> float:
        generator = torch.Generator().manual_seed(seed)
        attack = partial(pgd, epsilon=epsilon, step_size=STEP, steps=20, early_exit=early_exit, generator=generator)
        return robust_accuracy(network, images, labels, attack)

    art = mean(by_art)
    assert lowest < art < highest
    last, worst = (mean(partial(by_us, early_exit=early_exit)) for early_exit in (False, True))
    assert abs(last - art) <= 0.005
    assert worst <= art + 0.005


def test_fgsm_and_bim_start_at_the_image() -> None:
    network, (images, labels) = trained(), digits(60)
    clean = images.clone().requires_grad_(True)
    F.cross_entropy(network(clean), labels, reduction="sum").backward()
    before = network(images).argmax(1) == labels
    expected = (images + 0.1 * clean.grad.sign()).clamp(0, 1)
    found = fgsm(network, images, labels, epsilon=0.1)
    torch.testing.assert_close(found.adversarial[before], expected[before])
    found = bim(network, images, labels, epsilon=0.03, step_size=STEP, steps=5, early_exit=False)
    expected = plain_pgd(network, images, images, labels, 0.03, 5)[-1]
    torch.testing.assert_close(found.adversarial[before], expected[before])


def test_a_zero_gradient_is_a_fixed_point() -> None:
    network, (images, labels) = Scaled(trained(), 30.0).eval(), digits(100)
    found = pgd(network, images, labels, epsilon=0.1, step_size=STEP, steps=10, early_exit=False)
    key_generator = torch.Generator().manual_seed(0)
    key = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=key_generator))
    start = LinfBall(0.1).random_start(images, torch.arange(100), key)
    iterates = plain_pgd(network, start, images, labels, 0.1, 10)
    stuck = found.correct_before & found.zero_gradient_end
    assert stuck.sum() > 20
    assert (found.correct_before & ~stuck).sum() > 5
    # Those that left early end where going on would have brought them.
    torch.testing.assert_close(found.adversarial[found.correct_before], iterates[-1][found.correct_before])
    moving = images.clone().requires_grad_(True)
    F.cross_entropy(network(moving), labels, reduction="sum").backward()
    assert torch.equal(found.zero_gradient_clean, (moving.grad == 0).flatten(1).all(1))


@settings(max_examples=15, deadline=None)
@given(
    epsilon=st.floats(0, 1),
    step_size=st.floats(0, 0.5),
    steps=st.integers(1, 4),
    early_exit=st.booleans(),
    start=st.booleans(),
)
def test_adversarial_images_lie_in_the_ball(
    epsilon: float, step_size: float, steps: int, early_exit: bool, start: bool
) -> None:
    images, labels = digits(20)
    found = pgd(
        trained(),
        images,
        labels,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        early_exit=early_exit,
        random_start=start,
    )
    assert float((found.adversarial - images).abs().max()) <= epsilon + 1e-6
    assert 0 <= float(found.adversarial.min()) <= float(found.adversarial.max()) <= 1
    assert (found.correct_after <= found.correct_before).all()


def test_epsilon_zero_is_clean_accuracy_and_the_curve_never_rises() -> None:
    network, (images, labels) = trained(), digits(100)
    clean = float((network(images).argmax(1) == labels).double().mean())
    attack = partial(pgd, step_size=STEP, steps=5)
    curve = robustness_curve(network, images, labels, attack, [0.1, 0.0, 0.03, 0.3])
    assert curve[1] == clean
    assert curve[1] >= curve[2] >= curve[0] >= curve[3]
    assert curve[2] > curve[3]
    alone = robust_accuracy(network, images, labels, partial(attack, epsilon=0.1))
    assert curve[0] <= alone


def test_the_curve_attacks_only_what_smaller_epsilons_left() -> None:
    asked = []

    def attack(*arguments: object, among: Tensor | None = None, **options: object) -> object:
        asked.append(None if among is None else int(among.sum()))
        return pgd(*arguments, among=among, steps=3, **options)

    images, labels = digits(60)
    curve = robustness_curve(trained(), images, labels, attack, [0.05, 0.1])
    assert asked == [None, round(curve[0] * 60)]


def test_restarts_never_raise_robust_accuracy_and_find_more() -> None:
    network, (images, labels) = trained(), digits()
    attack = partial(pgd, network, images, labels, epsilon=0.1, step_size=0.1, steps=1, early_exit=False)
    once, often = attack(), attack(restarts=8)
    assert (often.correct_after <= once.correct_after).all()
    assert often.robust_accuracy < once.robust_accuracy
    later = once.correct_after & ~often.correct_after
    assert (often.steps_to_success[later] > 1).all(), "the steps of earlier starts are counted on"


def test_keyed_noise_is_uniform_and_independent_of_the_batch() -> None:
    noise = keyed_uniform(torch.arange(300), 1024, key=-123456789)
    assert torch.equal(noise[[7, 250]], keyed_uniform(torch.tensor([7, 250]), 1024, key=-123456789))
    assert 0 <= float(noise.min()) <= float(noise.max()) < 1
    for sample in (noise.flatten(), noise[0], noise[:, 0], keyed_uniform(torch.arange(300), 1024, key=0).flatten()):
        assert stats.kstest(sample.numpy(), "uniform").pvalue > 1e-3
    neighbours = (noise[:, :-1] - 0.5) * (noise[:, 1:] - 0.5)
    rows = (noise[:-1] - 0.5) * (noise[1:] - 0.5)
    other = (noise - 0.5) * (keyed_uniform(torch.arange(300), 1024, key=-123456788) - 0.5)
    for products in (neighbours, rows, other):  # of independent values: mean 0, deviation 1/12
        assert abs(float(products.mean())) < 5 / 12 / products.numel() ** 0.5
