"""The golden record: numbers of this project that no change of its structure may move.

    python -m tests.golden.record      # writes tests/golden/*.json anew; say in the commit which number changed and why

Four parts: the records of three two-epoch runs, what every attack does to each sample, the keys of regions, and the
statistics, claims and figures of a planted grid. `tests/test_golden.py` compares: to the bit on the processor and with
the torch of the record, within tolerances elsewhere.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning import models
from prs_lightning.attacks import LOSSES, bim, fgsm, pgd, robustness_curve
from prs_lightning.audit import audit
from prs_lightning.regions import RegionSet, major_regions, region_keys
from tests.attacked import Scaled, digits, trained
from tests.synthetic_runs import write_grid

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parent.parent
NETWORKS = {"cnn6": "CNN6", "vgg16": "VGG16", "resnet18": "ResNet18"}
TRAINED_ON = {"cnn6": 300, "vgg16": 50, "resnet18": 100}
FIGURES = ("2b", "4", "4b", "5", "7b", "8", "10", "12", "14", "15")
STEP = 2 / 255


def machine() -> str:
    """What the last bits hang on: the processor with its instructions, and the version of torch."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processor = [
        line for line in dict.fromkeys(lines) if line.startswith(("model name", "flags", "cpu family", "model\t"))
    ]
    return (
        f"{_hash(chr(10).join(processor).encode())} torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"
    )


def program(script: str, *arguments: str) -> None:
    """Run train.py or analyze.py on one core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, str(PROJECT / script), *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def training(folder: Path) -> dict[str, Any]:
    """Name, config and metrics.csv, times apart, of a run of each network; the runs stay in ``folder``."""
    found: dict[str, Any] = {}
    for name in NETWORKS:
        program(
            "train.py", f"model={name}", "data=mnist5k", "epochs=2", "grid_epochs=[2]", "batch_size=10",
            f"data.train_limit={TRAINED_ON[name]}", "data.test_limit=50", "callbacks.robustness.limit=10",
            "callbacks.regions.layers=all",
            "data.epsilon=0.05", "logger=none", "callbacks.progress=null", "trainer.accelerator=cpu",
            f"runs={folder / name}",
        )  # fmt: skip
        (run,) = (folder / name).iterdir()
        rows = [{k: v for k, v in row.items() if "time/" not in k} for row in _rows(run / "metrics.csv")]
        config = (run / "config.yaml").read_text().replace(str(folder / name), "runs")
        found[name] = {"run": run.name, "config": config, "rows": rows}
    return found


def network_of(run: Path, name: str) -> nn.Module:
    """The network of a run's last epoch of the grid."""
    checkpoint = torch.load(run / "checkpoints" / "epoch-002.ckpt", weights_only=True)
    network = getattr(models, NETWORKS[name])(**checkpoint["hyper_parameters"])
    network.load_state_dict(checkpoint["state_dict"])
    return network.eval()


def digest(tensor: Tensor) -> str:
    """A hash of every bit."""
    return _hash(tensor.contiguous().numpy().tobytes())


def attacks(folder: Path) -> dict[str, Any]:
    """What becomes of each sample, for every loss, meaning of RA and precision; ``folder`` holds the runs."""
    networks: dict[str, tuple[nn.Module, float]] = {
        name: (network_of(next((folder / name).iterdir()), name), 0.02) for name in ("cnn6", "resnet18")
    }
    networks |= {"saturated": (Scaled(trained(), 100.0).eval(), 0.1), "batch_norm": (trained(batch_norm=True), 0.06)}
    found: dict[str, Any] = {}
    for name, (network, epsilon) in networks.items():
        images, labels = digits(20)
        for loss, early_exit, precision in product(LOSSES, (True, False), ("float32", "bfloat16")):
            result = pgd(
                network, images, labels, epsilon=epsilon, step_size=STEP, steps=6, loss=loss, early_exit=early_exit,
                precision=precision, batch_size=8, generator=torch.Generator().manual_seed(5),
            )  # fmt: skip
            found[f"{name} pgd {loss} early_exit={early_exit} {precision}"] = _told(result, images)
        found[f"{name} restarts"] = _told(pgd(network, images, labels, epsilon=epsilon, restarts=3, steps=4), images)
        found[f"{name} pgd60"] = _told(pgd(network, images, labels, epsilon=0.01, step_size=STEP, steps=60), images)
        found[f"{name} plain"] = _told(pgd(network, images, labels, epsilon=epsilon, diagnose=False), images)
        found[f"{name} fgsm"] = _told(fgsm(network, images, labels, epsilon=epsilon), images)
        found[f"{name} bim"] = _told(bim(network, images, labels, epsilon=epsilon, step_size=STEP), images)
        found[f"{name} curve"] = robustness_curve(network, images, labels, pgd, [0.1, 0, 0.01, 0.03])
        if name in ("saturated", "batch_norm"):
            report = audit(network, images, labels, epsilon=epsilon, step_size=STEP, steps=5, square_steps=20)
            found[f"{name} audit"] = str(report).splitlines()
    return found


def _told(result: Any, images: Tensor) -> dict[str, Any]:
    return {
        "correct_before": "".join(str(int(flag)) for flag in result.correct_before),
        "correct_after": "".join(str(int(flag)) for flag in result.correct_after),
        "zero_gradient_clean": "".join(str(int(flag)) for flag in result.zero_gradient_clean),
        "zero_gradient_end": "".join(str(int(flag)) for flag in result.zero_gradient_end),
        "steps_to_success": result.steps_to_success.tolist(),
        "adversarial": digest(result.adversarial),
        "moved": round(float((result.adversarial - images).abs().double().mean()), 9),
    }


def regions(folder: Path) -> dict[str, Any]:
    """Keys of patterns that whole numbers make, so that they are the same on every machine."""
    found: dict[str, Any] = {}
    for units in (1, 64, 65, 128, 129, 1000, 4096):
        words = torch.arange(600 * units, dtype=torch.int64).view(600, units)
        z = ((words * 2654435761 % 2**32) // 2**20 - 2048).float()
        z[300:] = z[:300].roll(7, dims=0)
        keys, major = region_keys(z), major_regions(z, torch.arange(600) % 3)
        found[str(units)] = {
            "keys": digest(keys),
            "first": keys[0].tolist(),
            "regions": len(RegionSet.from_pre_activations(z)),
            "major": {str(label): [region.count, digest(region.pattern)] for label, region in major.items()},
        }
    return found


def analysis(folder: Path) -> dict[str, Any]:
    """What analyze.py says of a planted grid of 40 runs."""
    runs = folder / "grid"
    write_grid(runs, data=("mnist", "cifar10"), epochs=12, grid=(4, 8, 12), after_audit=0.5, collapsed=(7,), seed=3)
    program(
        "analyze.py", f"runs={runs}", f"figures=[{','.join(FIGURES)}]", "wandb.mode=disabled", "bootstrap.draws=300"
    )
    report = runs / "report"
    markdown = _lasting((report / "report.md").read_text(), runs)
    page = re.sub(r"<style.*?</style>|<[^>]*>", " ", (report / "report.html").read_text(), flags=re.DOTALL)
    scoreboard, figures = markdown.split("## Figures")
    return {
        "claims": _rows(report / "claims.csv"),
        "statistics": _rows(report / "statistics.csv"),
        "figures": {file.stem: _hash(file.read_bytes()) for file in sorted(report.rglob("figures/*.csv"))},
        "table": _hash((report / "table.csv").read_bytes()),
        "scoreboard": scoreboard.splitlines(),
        "captions": [line for line in figures.splitlines() if line and not line.startswith("|")],
        "page": _hash(" ".join(_lasting(page, runs).split()).encode()),
    }


def _rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def _lasting(text: str, runs: Path) -> str:
    """A report without what hangs on the day and the machine."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC, prs-lightning [\w-]+", "DAY", text.replace(str(runs), "RUNS"))
    return text[: text.rindex("Environment")]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "training": training,
    "attacks": attacks,
    "regions": regions,
    "analysis": analysis,
}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        for part, make in PARTS.items():
            start = time.perf_counter()
            content = {"machine": machine()} | make(Path(name))
            print(f"{part}: {time.perf_counter() - start:.0f} s")
            (FOLDER / f"{part}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
