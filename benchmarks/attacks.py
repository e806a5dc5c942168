"""Robust accuracy by PGD-20 on CNN-6: our engine against ART and foolbox, at the same epsilon, alpha and batch size.

python -m benchmarks.attacks --root data            # trains both networks on Fashion-MNIST first; 40 minutes on 2 cores
python -m benchmarks.attacks --device cuda --batch_size 500
python -m benchmarks.attacks --before CHECKOUT      # this code against another commit's, in one run
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.before import Before
from benchmarks.harness import table, write_section
from prs_lightning.attacks import AttackResult, pgd, robust_accuracy
from prs_lightning.data import TrainingBatches, balanced_subset, load, to_unit_range
from prs_lightning.memory import keep_freed_memory
from prs_lightning.models import CNN6, ResNet18
from tests.attacked import Scaled

STEP, STEPS = 2 / 255, 20
COMMAND = "python -m benchmarks.attacks"
T = TypeVar("T", bound=nn.Module)


def trained(network: T, root: str, epochs: int, limit: int, folder: Path | None) -> T:
    """The network after ``epochs`` epochs on Fashion-MNIST, or with the weights of an earlier call."""
    weights = None if folder is None else folder / f"{type(network).__name__}.pt"
    if weights is not None and weights.exists():
        network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
        return network.eval()
    torch.manual_seed(0)
    train, _ = load("fashion_mnist", root)
    chosen = balanced_subset(train.labels, limit)
    batches = TrainingBatches(type(train)(train.images[chosen], train.labels[chosen]), 128, seed=0)
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for images, labels in batches:
            images = images.to(device, memory_format=torch.channels_last)
            loss = F.cross_entropy(network(images), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if weights is not None:
        weights.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), weights)
    return network.eval()


def by_art(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int, batch: int) -> float:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    view = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), tuple(images.shape[1:]), 10, clip_values=(0, 1),
        device_type="gpu" if images.is_cuda else "cpu",
    )  # fmt: skip
    attack = ProjectedGradientDescentPyTorch(
        view, eps=epsilon, eps_step=STEP, max_iter=steps, num_random_init=1, batch_size=batch, verbose=False
    )
    adversarial = attack.generate(images.numpy(force=True), labels.numpy(force=True))
    predictions = torch.from_numpy(view.predict(adversarial, batch_size=batch)).argmax(1)
    network.eval()
    return float((predictions == labels.cpu()).double().mean())


def by_foolbox(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int, batch: int) -> float:
    import foolbox

    view = foolbox.PyTorchModel(network, bounds=(0, 1), device=images.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=steps, random_start=True)
    parts = zip(images.split(batch), labels.split(batch), strict=True)
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
    """What is attacked: a network whose logits are multiplied by ``scale``, with every ``every``-th image."""

    name: str
    network: nn.Module
    epsilon: float
    others: Sequence[str] = ()
    steps: int = STEPS
    every: int = 1
    scale: float = 1.0


FORMS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, last iterate": {"early_exit": False},
    "ours, bfloat16": {"precision": "bfloat16"},
}
"""Our own ways: what differs from the default."""


class Counted(nn.Module):
    """Counts passes by what they cost: 1 for an image's forward pass, 3 with the gradient that follows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.passes = network.eval(), 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        self.passes += len(images) * (3 if logits.requires_grad else 1)
        return logits


def passes(network: nn.Module, images: Tensor, labels: Tensor, attack: partial[AttackResult]) -> tuple[float, float]:
    """Passes a sample, and the least that PGD allows: the clean image, a gradient for each step, the end."""
    counted = Counted(network)
    steps = attack.keywords["steps"]
    found = attack(counted, images, labels, diagnose=False)
    early = attack.keywords.get("early_exit", True)
    taken = torch.where(found.steps_to_success < 0, steps, found.steps_to_success) if early else steps
    least = 1 + torch.where(found.correct_before, 3 * torch.as_tensor(taken) + 1, 0)
    return counted.passes / len(images), float(least.double().mean())


def compared(
    case: Case, images: Tensor, labels: Tensor, repeats: int, batch: int, before: Before | None
) -> list[list[object]]:
    """One row per way: seconds, ratios, robust accuracy, passes."""
    images, labels = images[:: case.every], labels[:: case.every]
    network = case.network if case.scale == 1 else Scaled(case.network, case.scale).eval()
    seconds: dict[str, list[float]] = {}
    accuracy: dict[str, float] = {}
    counts: dict[str, str] = {}
    plain = {"epsilon": case.epsilon, "step_size": STEP, "steps": case.steps, "batch_size": batch}
    ways: dict[str, Callable[[], tuple[float, float]]] = {}

    def timed(measure: Callable[[], float]) -> Callable[[], tuple[float, float]]:
        def run() -> tuple[float, float]:
            start = time.perf_counter()
            found = measure()
            return time.perf_counter() - start, found

        return run

    for way in ("ours", *case.others):
        options = plain | FORMS[way]
        attack = partial(pgd, keep_adversarial=False, **options)
        ways[way] = timed(partial(robust_accuracy, network, images, labels, attack))
        ours, least = passes(network, images, labels, attack)
        counts[way] = f"{ours:.1f} / {least:.1f}"
        if before is not None:
            asked = {"network": type(case.network).__name__, "scale": case.scale, "every": case.every}
            ways[f"{way}, before"] = partial(before, asked | {"options": options})
    if before is None:
        ways["ART"] = timed(partial(by_art, network, images, labels, case.epsilon, case.steps, batch))
        ways["foolbox"] = timed(partial(by_foolbox, network, images, labels, case.epsilon, case.steps, batch))
    for _ in range(repeats):  # no warm-up: the count of the passes was one
        for way, run in ways.items():
            taken, accuracy[way] = run()
            seconds.setdefault(way, []).append(taken)
    medians = {way: statistics.median(times) for way, times in seconds.items()}

    def ratio(way: str, other: str) -> str:
        return f"{medians[other] / medians[way]:.2f}" if other in medians and other != way else ""

    return [
        [
            case.name, f"{case.epsilon:.4f}", way, f"{accuracy[way]:.3f}", f"{medians[way]:.2f}", counts.get(way, ""),
            *(
                (ratio(way, f"{way}, before"),) if before is not None else (ratio(way, "ART"), ratio(way, "foolbox"))
            ),
        ]
        for way in ways
    ]  # fmt: skip


def convolutions(
    network: nn.Module, images: Tensor, labels: Tensor, epsilon: float, precision: str, batch: int
) -> float:
    """Share of our time that is spent in convolutions and their gradients: what no order of passes can save."""
    attack = partial(pgd, epsilon=epsilon, step_size=STEP, steps=STEPS, batch_size=batch, precision=precision)
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
    parser.add_argument("--weights", type=Path, help="keep the trained weights in this folder, or take them from it")
    parser.add_argument("--device", default="cpu", help="cuda: attack on the GPU")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--before", type=Path, help="another checkout, compared instead of ART and foolbox")
    options = parser.parse_args()
    keep_freed_memory()  # as train.py does; for all ways alike
    warnings.simplefilter("ignore")  # foolbox and ART warn about their own dependencies
    arguments: dict[str, Any] = {"channels": 1, "mean": [0.286], "std": [0.353]}
    device = torch.device(options.device)
    network = trained(CNN6(**arguments).to(device), options.root, options.epochs, options.train_limit, options.weights)
    residual = trained(
        ResNet18(**arguments).to(device), options.root, options.epochs, options.train_limit, options.weights
    )
    _, test = load("fashion_mnist", options.root)
    rows = balanced_subset(test.labels, options.images)
    images, labels = to_unit_range(test.images[rows]).to(device), test.labels[rows].to(device)
    every = max(1, options.images // 100)
    high, half = (epsilon_near(each, images[::every], labels[::every], 0.8) for each in (network, residual))
    all_ways = ["ours, last iterate", "ours, bfloat16"]
    cases = [
        Case("epsilon of Fashion-MNIST", network, 0.1, all_ways),
        Case("epsilon of MNIST", network, 0.3, ["ours, bfloat16"]),
        Case("high robust accuracy", network, high, all_ways),
        Case(f"the same, PGD-100, {len(labels[::every])} images", network, high, all_ways, 100, every),
        Case("zero gradients", network, high, scale=1e4),
        Case("ResNet-18", residual, 0.1, ["ours, bfloat16"]),
        Case("ResNet-18, high robust accuracy", residual, half, ["ours, bfloat16"]),
    ]
    with tempfile.TemporaryDirectory() as folder:
        before = None
        if options.before is not None:
            kept: dict[str, Any] = {"images": images, "labels": labels}
            for each in (network, residual):
                kept[type(each).__name__] = {"arguments": arguments, "weights": each.state_dict()}
            before = Before(options.before, kept, Path(folder) / "kept.pt")
        lines = [
            line
            for case in cases
            for line in compared(case, images, labels, options.repeats, options.batch_size, before)
        ]
    header = ["network", "epsilon", "way", "RA", "seconds", "passes a sample / least"]
    if before is not None:
        print(table([*header, "times before"], lines))
        return
    stuck = pgd(Scaled(network, 1e4).eval(), images, labels, epsilon=high, step_size=STEP, steps=1).zero_gradient_clean
    share = float(stuck.double().mean())
    if device.type == "cpu":
        inside = [convolutions(network, images, labels, high, form, options.batch_size) for form in PRECISIONS]
        limit = (
            f"At the high robust accuracy {inside[0]:.0%} of our time is spent in the convolutions and their gradients "
            f"({inside[1]:.0%} in bfloat16), of which the samples that withstand need {STEPS} each."
        )
    else:
        limit = "ART and foolbox leave torch's default, TensorFloat-32 in convolutions; ours are true float32."
    body = (
        f"PGD-{STEPS}, alpha 2/255, batch {options.batch_size}, CNN-6 and ResNet-18, {options.images} Fashion-MNIST "
        f"test images; ways taken in turns, median of {options.repeats}. *ours* counts the worst iterate "
        "(`early_exit=True`), other ways the last. *zero gradients*: the same network, its logits times 10,000; "
        f"{share:.0%} of the images have "
        "no gradient. *passes*: 1 for an image's forward pass, 3 with its gradient; least: the clean image, a gradient "
        "for each step that PGD takes, and the end (circles of iterates are skipped, so that ours may be fewer). "
        f"{limit}\n\n" + table([*header, "times ART", "times foolbox"], lines)
    )
    command = f"{COMMAND} --images {options.images} --repeats {options.repeats} --epochs {options.epochs}"
    name = "Robust accuracy"
    if device.type != "cpu":
        name, command = "Robust accuracy on a GPU", f"{command} --device {device} --batch_size {options.batch_size}"
    write_section(name, body, command=command, packages=PACKAGES, device=device)


PRECISIONS = ("float32", "bfloat16")
PACKAGES = ("torch", "adversarial-robustness-toolbox", "foolbox")

if __name__ == "__main__":
    main()
