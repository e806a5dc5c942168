"""Robust accuracy by PGD-20 on CNN-6: our engine against ART and foolbox, at the same epsilon, alpha and batch size.

python -m benchmarks.attacks --root data            # trains CNN-6 on Fashion-MNIST first; half an hour on 2 cores
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness import interleaved_medians, table, write_section
from prs_lightning.attacks import pgd, robust_accuracy
from prs_lightning.data import TrainingBatches, balanced_subset, load, to_unit_range
from prs_lightning.measuring import keep_freed_memory
from prs_lightning.models.cnn6 import CNN6
from tests.attacked import Scaled

STEP, STEPS, BATCH = 2 / 255, 20, 128
COMMAND = "python -m benchmarks.attacks"


def trained(root: str, epochs: int, limit: int, weights: Path | None) -> CNN6:
    """CNN-6 after ``epochs`` epochs on Fashion-MNIST, or with the weights of an earlier call."""
    network = CNN6(channels=1, mean=[0.286], std=[0.353]).eval()
    if weights is not None and weights.exists():
        network.load_state_dict(torch.load(weights, weights_only=True))
        return network
    train, _ = load("fashion_mnist", root)
    chosen = balanced_subset(train.labels, limit)
    batches = TrainingBatches(type(train)(train.images[chosen], train.labels[chosen]), BATCH, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for images, labels in batches:
            loss = F.cross_entropy(network(images.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if weights is not None:
        torch.save(network.state_dict(), weights)
    return network


def by_art(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int) -> float:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    view = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), tuple(images.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
    )
    attack = ProjectedGradientDescentPyTorch(
        view, eps=epsilon, eps_step=STEP, max_iter=steps, num_random_init=1, batch_size=BATCH, verbose=False
    )
    adversarial = attack.generate(images.numpy(), labels.numpy())
    predictions = torch.from_numpy(view.predict(adversarial, batch_size=BATCH)).argmax(1)
    network.eval()
    return float((predictions == labels).double().mean())


def by_foolbox(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int) -> float:
    import foolbox

    view = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=steps, random_start=True)
    parts = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    fooled = torch.cat([attack(view, part, truth, epsilons=epsilon)[2] for part, truth in parts])
    return 1 - float(fooled.double().mean())


def epsilon_near(network: nn.Module, images: Tensor, labels: Tensor, target: float) -> float:
    """The epsilon, to a twentieth of a step, where PGD-20 leaves about ``target`` robust accuracy."""
    low, high = 0.0, 0.1
    while high - low > STEP / 20:
        middle = (low + high) / 2
        found = robust_accuracy(network, images, labels, partial(pgd, epsilon=middle, step_size=STEP, steps=STEPS))
        low, high = (middle, high) if found > target else (low, middle)
    return (low + high) / 2


class Case(NamedTuple):
    """What is attacked; ours in further forms, if named in ``others``, stand beside the default."""

    name: str
    network: nn.Module
    epsilon: float
    others: Sequence[str] = ()
    steps: int = STEPS
    images: slice = slice(None)


def compared(case: Case, images: Tensor, labels: Tensor, repeats: int) -> list[list[object]]:
    """One row per way: seconds, ratios, robust accuracy."""
    _, network, epsilon, _, steps, some = case
    images, labels = images[some], labels[some]
    accuracy: dict[str, float] = {}

    def timed(way: str, measure: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            accuracy[way] = measure()

        return run

    ours = partial(pgd, epsilon=epsilon, step_size=STEP, steps=steps, batch_size=BATCH, keep_adversarial=False)
    all_ways = {
        "ART": lambda: by_art(network, images, labels, epsilon, steps),
        "foolbox": lambda: by_foolbox(network, images, labels, epsilon, steps),
        "ours": lambda: robust_accuracy(network, images, labels, ours),
        "ours, last iterate": lambda: robust_accuracy(network, images, labels, partial(ours, early_exit=False)),
        "ours, bfloat16": lambda: robust_accuracy(network, images, labels, partial(ours, precision="bfloat16")),
    }
    ways = {way: measure for way, measure in all_ways.items() if way in ("ART", "foolbox", "ours", *case.others)}
    # No warm-up: the search for epsilon was one.
    seconds = interleaved_medians({way: timed(way, measure) for way, measure in ways.items()}, repeats, warm_ups=0)
    return [
        [
            case.name,
            f"{epsilon:.4f}",
            way,
            f"{accuracy[way]:.3f}",
            f"{seconds[way]:.2f}",
            f"{seconds['ART'] / seconds[way]:.1f}",
            f"{seconds['foolbox'] / seconds[way]:.1f}",
        ]
        for way in ways
    ]


def convolutions(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float, precision: str) -> float:
    """Share of our time that is spent in convolutions and their gradients: what no order of passes can save."""
    attack = partial(pgd, epsilon=epsilon, step_size=STEP, steps=STEPS, batch_size=BATCH, precision=precision)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        robust_accuracy(network, images, labels, attack)
    times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    inside = ("aten::mkldnn_convolution", "aten::convolution_backward")
    return sum(times[name] for name in inside) / sum(times.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="folder of Fashion-MNIST")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--train_limit", type=int, default=60000)
    parser.add_argument("--weights", type=Path, help="keep the trained weights in this file, or take them from it")
    options = parser.parse_args()
    keep_freed_memory()  # as train.py does; for all ways alike
    warnings.simplefilter("ignore")  # foolbox and ART warn about their own dependencies
    torch.manual_seed(0)
    network = trained(options.root, options.epochs, options.train_limit, options.weights)
    _, test = load("fashion_mnist", options.root)
    rows = balanced_subset(test.labels, options.images)
    images, labels = to_unit_range(test.images[rows]), test.labels[rows]
    some = slice(None, None, max(1, options.images // 100))
    high = epsilon_near(network, images[some], labels[some], 0.8)
    saturated = Scaled(network, 1e4).eval()
    all_ways = ["ours, last iterate", "ours, bfloat16"]
    cases = [
        Case("epsilon of Fashion-MNIST", network, 0.1, all_ways),
        Case("epsilon of MNIST", network, 0.3, ["ours, bfloat16"]),
        Case("high robust accuracy", network, high, all_ways),
        Case(f"the same, PGD-100, {len(labels[some])} images", network, high, all_ways, 100, some),
        Case("zero gradients", saturated, high),
    ]
    lines = [line for case in cases for line in compared(case, images, labels, options.repeats)]
    stuck = pgd(saturated, images, labels, epsilon=high, step_size=STEP, steps=1).zero_gradient_clean
    share = float(stuck.double().mean())
    shares = [convolutions(network, images, labels, high, precision) for precision in ("float32", "bfloat16")]
    header = ["network", "epsilon", "way", "RA", "seconds", "times ART", "times foolbox"]
    body = (
        f"PGD-{STEPS}, alpha 2/255, batch {BATCH}, CNN-6, {options.images} Fashion-MNIST test images; ways taken in "
        f"turns, median of {options.repeats}. *ours* counts the worst iterate (`early_exit=True`), others the last. "
        f"*zero gradients*: the same network with its logits times 10,000, {share:.0%} of the images without a "
        f"gradient. At the high robust accuracy {shares[0]:.0%} of our time is spent in the convolutions and their "
        f"gradients ({shares[1]:.0%} in bfloat16), of which the samples that withstand need {STEPS} each.\n\n"
        + table(header, lines)
    )
    command = f"{COMMAND} --images {options.images} --repeats {options.repeats} --epochs {options.epochs}"
    write_section("Robust accuracy", body, command=command, packages=PACKAGES)


PACKAGES = ("torch", "adversarial-robustness-toolbox", "foolbox")

if __name__ == "__main__":
    main()
