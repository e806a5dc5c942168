"""ART's attacks behind our signature: as ours, in the ball, and without a trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoAttack, DeepFool, ProjectedGradientDescent

from prs_lightning.attacks import pgd
from prs_lightning.attacks.art import art_attack, auto_attack, square
from prs_lightning.errors import ConfigError, RunError
from tests.attacked import digits, trained


def test_art_pgd_fools_as_many_as_ours_and_leaves_no_trace() -> None:
    network, (images, labels) = trained(), digits(100)
    network[0].weight.grad = torch.ones_like(network[0].weight)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    options = {"eps_step": 0.02, "max_iter": 10, "num_random_init": 1, "verbose": False}
    found = art_attack(network, images, labels, ProjectedGradientDescent, epsilon=0.08, **options)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert not any(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(network[0].weight.grad, torch.ones_like(network[0].weight))
    network[0].weight.grad = None
    ours = pgd(network, images, labels, epsilon=0.08, step_size=0.02, steps=10, early_exit=False)
    assert abs(found.robust_accuracy - ours.robust_accuracy) <= 0.02
    assert torch.equal(found.correct_before, ours.correct_before)
    with torch.no_grad():
        assert torch.equal(network(found.adversarial).argmax(1) == labels, found.correct_after)
    again = art_attack(network, images, labels, ProjectedGradientDescent, epsilon=0.08, **options)
    assert torch.equal(again.adversarial, found.adversarial)


class ShortAutoAttack(AutoAttack):
    """ART's AutoAttack with all its parts, each cut to a few iterations."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        for part in self.attacks:
            part.max_iter = 5
            part.nb_random_init = part.nb_restarts = 1


def test_square_and_auto_attack_stay_in_the_ball_and_never_gain() -> None:
    network, (images, labels) = trained(), digits(20)
    free = square(network, images, labels, epsilon=0.2, max_iter=20)
    short = art_attack(network, images[:6], labels[:6], ShortAutoAttack, epsilon=0.1, eps_step=0.02)
    for found, clean in ((free, images), (short, images[:6])):
        assert (found.correct_after <= found.correct_before).all()
        assert float((found.adversarial - clean).abs().max()) <= 0.2 + 1e-6
    assert free.robust_accuracy < float(free.correct_before.float().mean())
    white = pgd(network, images[:6], labels[:6], epsilon=0.1, step_size=0.02)
    assert short.robust_accuracy <= white.robust_accuracy + 1 / 6
    assert auto_attack.keywords == {"attack": AutoAttack}


def test_an_art_attack_outside_the_ball_raises() -> None:
    class Unbounded(DeepFool):
        def __init__(self, classifier: object, eps: float, batch_size: int) -> None:
            super().__init__(classifier, epsilon=2.0, max_iter=20, batch_size=batch_size, verbose=False)

    with pytest.raises(RunError, match="leaves the ball"):
        art_attack(trained(), *digits(10), Unbounded, epsilon=1e-3)
    with pytest.raises(ConfigError, match="epsilon=-1"):
        square(trained(), *digits(10), epsilon=-1)


def test_square_computes_each_image_once_and_finds_what_it_did() -> None:
    network, (images, labels) = trained(), digits(20)
    seen = []
    handle = network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found = square(network, images, labels, epsilon=1e-4, max_iter=50)
    handle.remove()
    attacked = int(found.correct_before.sum())
    assert found.robust_accuracy == found.correct_before.double().mean()
    # A query per sample and iteration, the first two, and what is judged before and after: ART asks for thrice as many.
    assert sum(seen) <= 52 * attacked + 3 * len(images)
