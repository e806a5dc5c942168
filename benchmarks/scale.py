"""What the paper's grid of 180 runs costs: GPU hours, disk and memory, from FLOPs and bytes that are measured here.

    python -m benchmarks.scale        writes docs/scale.md

Measured: floating-point operations per image of a forward pass, a training step and an attack step (torch's
FlopCounterMode), bytes of the checkpoints, bytes that autograd keeps per image. Assumed: the constants below.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import machine, table
from prs_lightning.models import CNN6, VGG16, ResNet18
from prs_lightning.models.base import ImageClassifier

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
DATA = {"MNIST": (1, 60_000), "Fashion-MNIST": (1, 60_000), "CIFAR-10": (3, 50_000)}
TEST, EPOCHS, GRID_EPOCHS, BATCHES, SEEDS, LARGEST_BATCH = 10_000, 300, 6, 4, 5, 2048
STEPS, GRID_STEPS = 20 + 20, 1 + 5 + 100  # of a sample that withstands: PGD-20 and its audit; FGSM, BIM-5, PGD-100

# What cannot be measured without a GPU; change them and run this again.
SUSTAINED = {"CNN6": 4e12, "VGG16": 8e12, "ResNet18": 4e12}  # FLOP/s in float32; an A100's peak is 19.5e12
STEPS_OF_THE_FALLEN = 3  # gradient steps until a sample that does not withstand leaves the batch
ROBUST_ACCURACIES = (0.0, 0.5, 1.0)  # mean over epochs and runs: the cost of the attacks hangs on it
ROW_BYTES = 400  # of metrics.csv


@dataclass
class Measured:
    """FLOPs per image of one forward pass, one training step, one attack step; bytes kept."""

    forward: float
    training: float
    attack: float
    weights: int
    resume: int
    kept_per_image: float


def flops(network: ImageClassifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Of a forward and a backward pass, per image, counting a multiplication and an addition as two."""
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(network(images), labels).backward()
    return counter.get_total_flops() / len(labels)


def measure(architecture: type[ImageClassifier], channels: int) -> Measured:
    """Count on a few random images; the counts do not hang on their values."""
    network = architecture(channels=channels, mean=[0.5] * channels, std=[0.25] * channels)
    images, labels = torch.rand(8, channels, 32, 32), torch.arange(8)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(images)
    training = flops(network, images, labels)
    network.requires_grad_(False)
    attack = flops(network, images.clone().requires_grad_(), labels)
    network.requires_grad_(True)

    storages: dict[int, int] = {}
    parameters = {parameter.data_ptr() for parameter in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            storages[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    network.zero_grad()
    optimizer = torch.optim.Adam(network.parameters())
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = F.cross_entropy(network(images), labels)
    loss.backward()
    optimizer.step()
    weights = {"state_dict": network.state_dict()}
    return Measured(
        forward=forward.get_total_flops() / len(labels),
        training=training,
        attack=attack,
        weights=saved_bytes(weights),
        resume=saved_bytes(weights | {"optimizer_states": [optimizer.state_dict()]}),
        kept_per_image=sum(storages.values()) / len(labels),
    )


def saved_bytes(content: object) -> int:
    """Size of the file that torch.save makes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getbuffer().nbytes


def work(measured: Measured, train: int, robust_accuracy: float) -> dict[str, float]:
    """FLOPs of one run by what they are for."""
    fallen = (1 - robust_accuracy) * STEPS_OF_THE_FALLEN
    return {
        "training": EPOCHS * train * measured.training,
        "measuring pass": EPOCHS * (train + TEST) * measured.forward,
        "attack every epoch": EPOCHS * TEST * (robust_accuracy * STEPS + fallen) * measured.attack,
        "attacks of the grid": GRID_EPOCHS * TEST * (robust_accuracy * GRID_STEPS + fallen) * measured.attack,
    }


def main() -> None:
    """Measure, add up, and write the page."""
    torch.manual_seed(0)
    architectures = {network.__name__: network for network in (CNN6, VGG16, ResNet18)}
    measured = {(name, c): measure(network, c) for name, network in architectures.items() for c in (1, 3)}
    runs = [(name, data) for name in architectures for data in DATA for _ in range(BATCHES * SEEDS)]

    def hours(name: str, data: str, robust_accuracy: float) -> float:
        channels, train = DATA[data]
        return sum(work(measured[name, channels], train, robust_accuracy).values()) / SUSTAINED[name] / 3600

    per_image = table(
        ("network (3 channels)", "forward", "training step", "attack step", "weights, MB", "to resume, MB", "kept, MB"),
        [
            (name, *(f"{value / 1e9:.3f}" for value in (m.forward, m.training, m.attack)),
             *(f"{value / 1e6:.2f}" for value in (m.weights, m.resume, m.kept_per_image)))
            for (name, channels), m in measured.items() if channels == 3
        ],
    )  # fmt: skip
    totals = {ra: sum(hours(name, data, ra) for name, data in runs) for ra in ROBUST_ACCURACIES}
    longest = {ra: max(hours(name, data, ra) for name, data in runs) for ra in ROBUST_ACCURACIES}
    time = table(
        ("mean robust accuracy", "one GPU, h", "eight GPUs, h", "longest run, h", *work(measured["CNN6", 1], 1, 0)),
        [
            (f"{ra:.1f}", f"{totals[ra]:.0f}", f"{max(totals[ra] / 8, longest[ra]):.0f}", f"{longest[ra]:.1f}",
             *(f"{share:.0%}" for share in shares(runs, measured, ra)))
            for ra in ROBUST_ACCURACIES
        ],
    )  # fmt: skip
    per_model = table(
        ("GPU hours at mean robust accuracy 0.5", *DATA),
        [(name, *(f"{BATCHES * SEEDS * hours(name, data, 0.5):.1f}" for data in DATA)) for name in architectures],
    )
    kept = {
        name: GRID_EPOCHS * measured[name, 3].weights + 2 * measured[name, 3].resume + EPOCHS * ROW_BYTES
        for name in architectures
    }
    disk = table(
        ("network", "a run, MB", "60 runs, GB"),
        [(name, f"{size / 1e6:.0f}", f"{size * 60 / 1e9:.1f}") for name, size in kept.items()],
    )
    written = sum(EPOCHS * measured[name, 3].resume for name, _ in runs)
    memory = table(
        ("network", f"batch {LARGEST_BATCH}, GB"),
        [
            (name, f"{(m.kept_per_image * LARGEST_BATCH + 4 * m.weights + 154e6 + 41e6) / 1e9:.2f}")
            for (name, channels), m in measured.items()
            if channels == 3
        ],
    )
    PAGE.write_text(
        PROSE.format(
            machine=machine(), per_image=per_image, time=time, per_model=per_model, disk=disk, memory=memory,
            sustained=", ".join(f"{name} {rate / 1e12:g}" for name, rate in SUSTAINED.items()),
            fallen=STEPS_OF_THE_FALLEN, total_disk=sum(kept[name] for name, _ in runs) / 1e9, written=written / 1e12,
        )
    )  # fmt: skip
    print(PAGE.read_text())


def shares(runs: list[tuple[str, str]], measured: dict[tuple[str, int], Measured], ra: float) -> list[float]:
    """Share of the GPU time of all runs, by what it is for."""
    spent: dict[str, float] = {}
    for name, data in runs:
        channels, train = DATA[data]
        for kind, operations in work(measured[name, channels], train, ra).items():
            spent[kind] = spent.get(kind, 0) + operations / SUSTAINED[name]
    return [value / sum(spent.values()) for value in spent.values()]


PROSE = """# What the paper's grid costs

180 runs: 3 networks x 3 data sets x 4 batch sizes x 5 seeds, 300 epochs each, every measure at every epoch, and six
epochs with the grid's attacks. These are estimates: FLOPs and bytes are measured, the GPU's speed is assumed, and no
part of the grid has been timed on a GPU. Written by `python -m benchmarks.scale` on {machine}.

## Measured, per image

GFLOP of a forward pass, a training step (forward and gradient of the weights) and an attack step (forward and gradient
of the image, weights frozen); size of the weights' file and of the file to resume from (with Adam's two moments); what
autograd keeps for the backward pass.

{per_image}

## GPU hours

Assumed: sustained float32 speed in TFLOP/s: {sustained} (an A100 peaks at 19.5;
small images and small networks stay far below it, more so at batch 64, where starting kernels costs more than
computing). A sample that withstands costs
40 attack steps an epoch (PGD-20, then the audit's 20), one that does not costs {fallen}, since it leaves the batch; so
the cost hangs on the robust accuracy, averaged over epochs and runs. The last columns say what the time goes into.

{time}

{per_model}

Eight GPUs share 180 independent runs evenly, so they need an eighth, and never less than the longest run.

**What dominates.** If few samples withstand, training does. If most do, attacking the whole test set at every epoch
does: `callbacks.robustness.every=10` or `callbacks.robustness.limit=1000` takes nine tenths of that away, and
`callbacks.robustness.precision=bfloat16` shortens it where robust accuracy is low. Of the networks VGG-16 does.

## Disk

A run keeps six files of weights, two to resume from (the last and the one before), and 300 rows of measures.

{disk}

Together {total_disk:.0f} GB, three quarters of it VGG-16's. The resume file is written after every epoch,
{written:.0f} TB in the whole grid: use a local disk rather than a network share.

## GPU memory

Activations kept at the largest batch, weights, gradients and Adam's moments, and both sets of CIFAR-10 as uint8. The
measuring pass and the attacks use batches of 200 and need less. CUDA's own context adds about 0.5 GB.

{memory}

Several jobs fit on one GPU (`hydra.launcher.jobs_per_gpu`); a small network alone leaves it partly idle.

## Reading the runs

`status` and `analyze.py` are timed on 2,000 run directories of 300 epochs by `python -m benchmarks.many_runs`, in
[benchmarks.md](benchmarks.md#analysis-of-2000-runs).

## What was left out

Start-up of each job (about 10 s), reading and resizing images (once a run), W&B, and AutoAttack, which is not among the
grid's default attacks.
"""


if __name__ == "__main__":
    main()
