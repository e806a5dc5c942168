"""The engine behind the attacks: who leaves a batch when, what is computed, what is left alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet18

from prs_lightning.attacks import gradient_attack, pgd, robust_accuracy
from prs_lightning.attacks.engine import Attack, AttackResult, Samples, look_at_gradients
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.attacks.threat_model import ThreatModel
from tests.attacked import Scaled, digits, trained

STEP = 2 / 255
RESULTS = ("correct_before", "correct_after", "zero_gradient_clean", "zero_gradient_end", "steps_to_success")


class Counting(nn.Module):
    """Counts the images that were passed with a backward pass to come, and those without."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.gradients, self.judgements = trained(), 0, 0

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        self.gradients += len(images) * logits.requires_grad
        self.judgements += len(images) * (not logits.requires_grad)
        return logits


@pytest.mark.parametrize("early_exit", [True, False])
@pytest.mark.parametrize("random_start", [True, False])
def test_without_diagnosis_only_the_gradients_that_move_a_sample_are_taken(
    early_exit: bool, random_start: bool
) -> None:
    network, (images, labels), steps = Counting().eval(), digits(301), 6
    attack = partial(
        pgd, epsilon=0.1, step_size=STEP, steps=steps, early_exit=early_exit, random_start=random_start, batch_size=50
    )

    def counted(**options: Any) -> tuple[AttackResult, int, int]:
        network.gradients = network.judgements = 0
        result = attack(network, images, labels, **options)
        return result, network.gradients, network.judgements - 8  # of the example that shows the number of classes

    full, with_diagnosis, _ = counted()
    plain, needed, judged = counted(diagnose=False)
    for name in ("adversarial", "correct_before", "correct_after", "steps_to_success"):
        torch.testing.assert_close(getattr(plain, name), getattr(full, name))
    assert not plain.zero_gradient_clean.any()
    assert not plain.zero_gradient_end.any()
    attacked, fooled = full.correct_before, full.correct_before & ~full.correct_after
    looked_at = 301 if random_start else 0
    if early_exit:
        # A gradient for every step that was taken. Of the images that ended the attack most were foreseen, few others.
        taken = int(torch.where(full.steps_to_success < 0, steps, full.steps_to_success)[attacked].sum())
        assert taken <= needed < taken + fooled.sum()
        foreseen = judged - looked_at - int(full.correct_after.sum())
        assert fooled.sum() / 2 < foreseen < 2 * fooled.sum()
    else:
        # A diagnosis takes one at each clean image and at each end; an attack that starts at the clean images also
        # takes one of those that are misclassified.
        assert needed == with_diagnosis - 301 - int(attacked.sum()) + (0 if random_start else int((~attacked).sum()))
        assert judged == looked_at + int(attacked.sum())

    network.gradients = 0
    correct, zero = look_at_gradients(
        AttackedNetwork(network, images.device), Samples(images.__getitem__, labels, torch.arange(301))
    )
    assert torch.equal(correct, full.correct_before)
    assert torch.equal(zero, full.zero_gradient_clean)
    assert network.gradients == 301
    network.gradients = 0
    assert robust_accuracy(network, images, labels, attack) == plain.robust_accuracy
    assert network.gradients == needed, "robust_accuracy asks for no diagnosis"


@pytest.mark.parametrize("diagnose", [True, False])
def test_where_the_fast_network_is_blind_the_exact_one_gives_the_gradient(diagnose: bool) -> None:
    class Blind(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return trained()(images) * (0.0 if torch.is_autocast_enabled("cpu") else 1.0)

    images, labels = digits(60)
    attack = partial(pgd, Blind().eval(), images, labels, epsilon=0.1, step_size=STEP, steps=5, diagnose=diagnose)
    exact, fast = attack(), attack(precision="bfloat16")
    assert 0 < exact.robust_accuracy < 0.9
    torch.testing.assert_close(fast.adversarial, exact.adversarial)
    assert torch.equal(fast.steps_to_success, exact.steps_to_success)


def test_where_the_fast_network_sees_again_at_the_last_iterate_no_step_follows() -> None:
    """Under autocast its gradient is zero until the first pixel has made all five steps."""
    network, steps = trained(), 5

    class Recovering(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            first = images[:, 0, 0, 0]
            logits = network(images) + first[:, None] * torch.arange(10) / 10
            blind = ((first - 0.5).abs() < (steps - 0.5) * STEP) & torch.is_autocast_enabled("cpu")
            return torch.where(blind[:, None], 0.0, 1.0) * logits

    images, labels = digits(60)
    images = images.clone()
    images[:, 0, 0, 0] = 0.5
    attack = partial(pgd, Recovering().eval(), images, labels, epsilon=0.1, step_size=STEP, steps=steps)
    exact, fast = (attack(random_start=False, precision=precision) for precision in ("float32", "bfloat16"))
    assert 0 < exact.robust_accuracy < 0.95
    torch.testing.assert_close(fast.adversarial, exact.adversarial)
    assert torch.equal(fast.steps_to_success, exact.steps_to_success)


def test_a_success_is_checked_once_where_the_last_iterate_counts() -> None:
    network, (images, labels) = Counting().eval(), digits(100)
    attack = partial(pgd, network, images, labels, epsilon=0.1, step_size=STEP, steps=10, diagnose=False)
    found = attack(precision="bfloat16", early_exit=False)
    fooled_on_the_way = int((found.steps_to_success[found.correct_before] >= 0).sum())
    assert fooled_on_the_way > 50
    assert network.judgements - 8 <= 100 + int(found.correct_before.sum()) + fooled_on_the_way + 5


@pytest.mark.parametrize("early_exit", [True, False])
def test_samples_at_a_zero_gradient_leave_the_batch(early_exit: bool) -> None:
    seen = []
    network = Scaled(trained(), 1e4).eval()
    images, labels = digits(50)
    handle = network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    result = pgd(network, images, labels, steps=20, early_exit=early_exit)
    handle.remove()
    assert result.zero_gradient_end.float().mean() > 0.9
    assert sum(seen) < 50 * 4


def test_a_false_alarm_costs_a_judgement_and_changes_nothing() -> None:
    """The loss hardly looks at the sample's own logit, so that its gradient promises a hundred times the margin."""

    def promising(logits: Tensor, labels: Tensor) -> Tensor:
        own = logits.gather(1, labels[:, None]).squeeze(1)
        return logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1) - 0.01 * own

    network, (images, labels) = Counting().eval(), digits(100)
    attack = partial(pgd, network, images, labels, epsilon=0.05, step_size=STEP, steps=8, loss=promising, batch_size=30)
    alarmed = attack(diagnose=False)
    visited_after_all = network.judgements - 8 - 100 - int(alarmed.correct_before.sum())
    assert visited_after_all > 5 * alarmed.correct_after.sum()
    plain = attack(diagnose=True)
    for name in ("adversarial", "correct_before", "correct_after", "steps_to_success"):
        torch.testing.assert_close(getattr(alarmed, name), getattr(plain, name))
    assert 0 < alarmed.correct_after.sum() < alarmed.correct_before.sum()


@pytest.mark.parametrize("early_exit", [True, False])
def test_whole_rounds_of_a_circle_are_skipped(early_exit: bool) -> None:
    network, (images, labels) = Counting().eval(), digits(100)
    attack = partial(pgd, network, images, labels, epsilon=0.012, step_size=STEP, early_exit=early_exit, diagnose=False)
    needed = []
    for steps in (3, 100):
        network.gradients = 0
        withstood = int(attack(steps=steps).correct_after.sum())
        needed.append(network.gradients / steps / withstood)
    assert withstood > 80
    assert 0.9 < needed[0] < 1.1
    assert needed[1] < 0.25


@pytest.mark.parametrize(("early_exit", "diagnose"), [(True, True), (False, True), (True, False)])
def test_results_do_not_depend_on_batches_or_shards(early_exit: bool, diagnose: bool) -> None:
    network, (images, labels) = trained(), digits(101)
    attack = partial(
        pgd, network, epsilon=0.1, step_size=STEP, steps=6, early_exit=early_exit, restarts=2, diagnose=diagnose
    )
    whole = attack(images, labels)
    for batch_size in (1, 3, 7, 128):
        other = attack(images, labels, batch_size=batch_size)
        assert all(torch.equal(getattr(whole, name), getattr(other, name)) for name in RESULTS)
    for rank in (0, 1):
        rows = torch.arange(rank, 101, 2)
        shard = attack(images[rows], labels[rows], indices=rows)
        assert all(torch.equal(getattr(whole, name)[rows], getattr(shard, name)) for name in RESULTS)
    moved = attack(images, labels, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(moved.adversarial, whole.adversarial)


def test_bfloat16_reports_what_float32_sees() -> None:
    network, (images, labels) = trained(), digits(100)
    attack = partial(pgd, network, images, labels, epsilon=0.08, step_size=STEP, steps=8)
    exact, fast = attack(), attack(precision="bfloat16")
    with torch.no_grad():
        right = network(fast.adversarial).argmax(1) == labels
    assert torch.equal(right, fast.correct_after)
    assert torch.equal(exact.correct_before, fast.correct_before)
    assert torch.equal(exact.zero_gradient_clean, fast.zero_gradient_clean)
    assert abs(fast.robust_accuracy - exact.robust_accuracy) <= 0.03
    assert not torch.equal(fast.adversarial, exact.adversarial)
    early = [(result.steps_to_success[exact.correct_before] < 8).float().mean() for result in (exact, fast)]
    assert abs(early[0] - early[1]) <= 0.03, "successes are seen on the way, not at the end only"
    exact, fast = attack(random_start=False), attack(random_start=False, precision="bfloat16")
    assert torch.equal(exact.correct_before, fast.correct_before)
    assert torch.equal(exact.zero_gradient_clean, fast.zero_gradient_clean)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("diagnose", [True, False])
def test_the_host_waits_once_a_pass(precision: str, diagnose: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes the host wait for a GPU: reading a value, and indexing by a mask, whose size is not known before."""
    waiting, waits, passes = {"nonzero", "masked_select", "_local_scalar_dense", "equal", "unique"}, [], []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert operator.__name__.split(".")[0] not in waiting, operator
            return operator(*args, **(kwargs or {}))

    def counted(tensor: Tensor, tolist: Callable[[Tensor], Any] = Tensor.tolist) -> Any:
        waits.append(len(tensor))
        return tolist(tensor)

    def watched(attack: Attack, *arguments: Any, run: Callable[..., None] = Attack.run) -> None:
        with Watch(), monkeypatch.context() as context:
            context.setattr(Tensor, "tolist", counted)
            handle = network.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
            run(attack, *arguments)
            handle.remove()

    network, (images, labels) = nn.Sequential(trained(batch_norm=True)).eval(), digits(100)
    monkeypatch.setattr(Attack, "run", watched)
    found = pgd(network, images, labels, epsilon=0.1, steps=5, precision=precision, diagnose=diagnose, batch_size=16)
    assert 0 < found.robust_accuracy < 0.9
    assert len(waits) == len(passes) > 100 / 16


def test_any_module_can_be_attacked_and_keeps_its_state() -> None:
    network = resnet18(num_classes=10).eval()
    network.fc.weight.requires_grad_(False)
    network.fc.bias.grad = torch.ones(10)
    images, labels = torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2])
    state = {name: value.clone() for name, value in network.state_dict().items()}
    layouts = {name: value.stride() for name, value in network.state_dict().items()}
    randomness = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    pgd(network, images, labels, steps=2)
    assert torch.equal(torch.get_rng_state(), randomness[0])
    assert (np.random.get_state()[1] == randomness[1]).all()  # noqa: NPY002
    assert random.getstate() == randomness[2]
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(value.stride() == layouts[name] for name, value in network.state_dict().items())
    assert not network.fc.weight.requires_grad
    assert network.fc.bias.requires_grad
    assert torch.equal(network.fc.bias.grad, torch.ones(10))
    assert all(parameter.grad is None for parameter in network.conv1.parameters())


def test_images_are_gathered_a_batch_at_a_time() -> None:
    images, labels = digits(100)
    gathered = []

    def gather(rows: Tensor) -> Tensor:
        gathered.append(len(rows))
        return images[rows]

    threat = ThreatModel(epsilon=0.1, step_size=STEP, steps=3)
    network, seen = nn.Sequential(trained()).eval(), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    lazy = gradient_attack(network, Samples(gather, labels, torch.arange(100)), threat, batch_size=16)
    assert max(gathered) <= 16
    assert max(seen) <= 16
    assert lazy.adversarial is None
    eager = pgd(trained(), images, labels, epsilon=0.1, step_size=STEP, steps=3)
    assert torch.equal(lazy.correct_after, eager.correct_after)


def test_progress_tells_samples_done_and_withstanding() -> None:
    told: list[tuple[int, int, int]] = []
    images, labels = digits(50)
    found = pgd(trained(), images, labels, steps=3, epsilon=0.1, progress=lambda *counts: told.append(counts))
    assert told[-1] == (50, 50, int(found.correct_after.sum()))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    told.clear()
    nobody = torch.zeros(50, dtype=torch.bool)
    pgd(trained(), images, labels, steps=3, among=nobody, progress=lambda *counts: told.append(counts))
    assert not told, "a share of no samples cannot be shown"


def test_losses_are_summed_so_that_no_gradient_shrinks_with_the_batch() -> None:
    """A gradient just above the smallest float32 survives in a batch of 64, where a mean would lose it."""

    class Faint(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            value = images.flatten(1).sum(1, keepdim=True) * 4e-45
            return torch.cat([value, -value], 1)

    images, labels = torch.full((64, 1, 2, 2), 0.5), torch.zeros(64, dtype=torch.int64)
    found = pgd(Faint().eval(), images, labels, epsilon=0.1, steps=1, loss="margin")
    assert not found.zero_gradient_clean.any()
