"""Distances to the decision boundary of CNN-6 on Fashion-MNIST: ours against PGD-100's cost and a library's distances.

python -m benchmarks.distance --root data --weights WEIGHTS        # trains the network first if it is not there
python -m benchmarks.distance --device cuda --batch_size 500 --robust STATE_DICT
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attacks import STEP, Counted, trained
from benchmarks.harness import table, write_section
from prs_lightning.attacks import distances, pgd
from prs_lightning.data import balanced_subset, load, to_unit_range
from prs_lightning.memory import keep_freed_memory
from prs_lightning.models import CNN6
from prs_lightning.regions.logits import median
from tests.attacked import Scaled

COMMAND = "python -m benchmarks.distance"
PACKAGES = ("torch", "foolbox")
EPSILON = 0.1
BASE = "PGD-100, margin"
Way = Callable[[nn.Module, Tensor, Tensor], Tensor | None]
"""Of a network, images and labels; the distances (N,), or None."""


def by_foolbox(network: nn.Module, images: Tensor, labels: Tensor, *, attack: str, steps: int, batch: int) -> Tensor:
    """Of the images that foolbox returns, where our exact pass finds them misclassified."""
    import foolbox

    view = foolbox.PyTorchModel(network, bounds=(0, 1), device=images.device)
    run = getattr(foolbox.attacks, attack)(steps=steps)
    norm = math.inf if attack.startswith("LInf") else 2
    found = []
    for part, truth in zip(images.split(batch), labels.split(batch), strict=True):
        adversarial = run(view, part, truth, epsilons=None)[1].detach()
        with torch.no_grad():
            wrong = network(adversarial).argmax(1) != truth
        length = torch.linalg.vector_norm((adversarial - part).flatten(1), ord=norm, dim=1)
        found.append(torch.where(wrong, length, math.inf))
    return torch.cat(found)


def by_ours(network: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return distances(network, images, labels, keep_adversarial=False, **options).distance


def by_pgd(network: nn.Module, images: Tensor, labels: Tensor, *, early_exit: bool, batch: int) -> None:
    options: dict[str, Any] = {"epsilon": EPSILON, "step_size": STEP, "steps": 100, "loss": "margin"}
    pgd(network, images, labels, **options, early_exit=early_exit, batch_size=batch, keep_adversarial=False,
        diagnose=False)  # fmt: skip


def ways_of(norm: str, batch: int) -> dict[str, Way]:
    ours = partial(by_ours, norm=norm, batch_size=batch)
    library, name = ("LInfFMNAttack", "foolbox FMN") if norm == "linf" else ("DDNAttack", "foolbox DDN")
    theirs = {
        f"{name}, {steps} steps": partial(by_foolbox, attack=library, steps=steps, batch=batch) for steps in (15, 100)
    }
    return {
        BASE: partial(by_pgd, early_exit=True, batch=batch),
        f"{BASE}, last iterate": partial(by_pgd, early_exit=False, batch=batch),
        "ours": ours,
        "ours, targets=2": partial(ours, targets=2),
        **theirs,
    }


def compared(
    name: str, network: nn.Module, images: Tensor, labels: Tensor, norm: str, *, repeats: int, batch: int, strong: int
) -> list[list[object]]:
    """A row per way; the library at full strength on every few of the samples only."""
    ways = ways_of(norm, batch)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, Tensor | None] = {}
    passes: dict[str, float] = {}
    for turn in range(repeats):
        for way, run in ways.items():
            asked = Counted(network) if turn == 0 else network
            start = time.perf_counter()
            found[way] = run(asked, images, labels)
            if images.is_cuda:
                torch.cuda.synchronize()
            seconds[way].append(time.perf_counter() - start)
            if isinstance(asked, Counted):
                passes[way] = asked.passes / len(images)
    taken = {way: statistics.median(times) for way, times in seconds.items()}
    last = list(ways)[-1]
    rows = []
    for way, distance in found.items():
        figures: list[str] = ["", ""]
        if distance is not None:
            least = median(torch.minimum(distance, _given(found[last])))
            figures = [f"{median(distance):.5g}", f"{least:.5g}" if way != last else ""]
        ratios = [f"{taken[way] / taken[other]:.2f}" for other in (BASE, f"{BASE}, last iterate", last)]
        rows.append([f"{name}, {norm}", way, f"{taken[way]:.2f}", *ratios, f"{passes[way]:.0f}", *figures])
    if norm == "linf" and strong:
        every = max(1, len(images) // strong)
        theirs = by_foolbox(network, images[::every], labels[::every], attack="LInfFMNAttack", steps=1000, batch=batch)
        ours = _given(found["ours"])[::every]
        way = f"foolbox FMN, 1000 steps, on {len(theirs)} (ours there: {median(ours):.5g})"
        least = median(torch.minimum(ours, theirs))
        rows.append([f"{name}, {norm}", way, "", "", "", "", "3001", f"{median(theirs):.5g}", f"{least:.5g}"])
    return rows


def _given(distance: Tensor | None) -> Tensor:
    assert distance is not None
    return distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="folder of Fashion-MNIST")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--strong", type=int, default=50, help="images for the library's 1000 steps; 0: none")
    parser.add_argument("--weights", type=Path, help="keep the trained weights in this folder, or take them from it")
    parser.add_argument("--robust", type=Path, help="a state dict of CNN-6 trained adversarially, measured as well")
    parser.add_argument("--device", default="cpu", help="cuda: on the GPU")
    parser.add_argument("--batch_size", type=int, default=128)
    options = parser.parse_args()
    keep_freed_memory()
    warnings.simplefilter("ignore")  # foolbox warns about its own dependencies
    device = torch.device(options.device)
    arguments: dict[str, Any] = {"channels": 1, "mean": [0.286], "std": [0.353]}
    plain = trained(CNN6(**arguments).to(device), options.root, 1, 60000, options.weights)
    networks: dict[str, nn.Module] = {"CNN-6": plain, "its logits x 1000": Scaled(plain, 1000).eval()}
    if options.robust is not None:
        robust = CNN6(**arguments).to(device)
        robust.load_state_dict(torch.load(options.robust, weights_only=True, map_location=device))
        networks["trained adversarially"] = robust.eval()
    _, test = load("fashion_mnist", options.root)
    # More than asked for, as some are misclassified: of each network the first that are not.
    rows = balanced_subset(test.labels, min(len(test.labels), 2 * options.images))
    images, labels = to_unit_range(test.images[rows]).to(device), test.labels[rows].to(device)
    lines = []
    for name, network in networks.items():
        with torch.no_grad():
            right = torch.cat([network(part).argmax(1) for part in images.split(options.batch_size)]) == labels
        first = right.nonzero().flatten()[: options.images]
        for norm in ("linf", "l2") if name != "its logits x 1000" else ("linf",):
            lines += compared(
                name, network, images[first], labels[first], norm,
                repeats=options.repeats, batch=options.batch_size, strong=options.strong,
            )  # fmt: skip
            print(lines[-1][0], "measured", flush=True)
    body = (
        f"Of {options.images} correctly classified Fashion-MNIST test images; CNN-6 after an epoch, batch "
        f"{options.batch_size}, ways taken in turns, median of {options.repeats}. PGD: epsilon {EPSILON}, alpha 2/255, "
        "the worst iterate or the last; *times* is seconds over those of the ways named. *passes* a sample: 1 for a "
        "forward pass, 3 with its gradient. *with library*: the median of the smaller of this distance and that of the "
        "library's 100 steps. foolbox's L2 FMN does not project (its factor is norms / norms), so DDN stands there.\n\n"
        + table(
            [
                "network", "way", "seconds", "times PGD-100", "times PGD-100, last", "times library", "passes",
                "median", "with library",
            ],
            lines,
        )
    )  # fmt: skip
    command, name = (
        f"{COMMAND} --images {options.images} --repeats {options.repeats}",
        "Distance to the decision boundary",
    )
    if device.type != "cpu":
        name, command = f"{name} on a GPU", f"{command} --device {device} --batch_size {options.batch_size}"
    write_section(name, body, command=command, packages=PACKAGES, device=device)


if __name__ == "__main__":
    main()
