"""The negative control: real checkpoints, their logits times 1000, measured as the runs themselves were."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from prs_lightning.analysis import scaled
from prs_lightning.analysis.arms import SCALED
from prs_lightning.analysis.table import read_runs
from prs_lightning.attacks import pgd
from prs_lightning.data import balanced_subset, load, to_unit_range
from prs_lightning.regions import region_keys
from prs_lightning.runs import RunDirectory, write_text
from prs_lightning.runs.checkpoints import AtomicCheckpointIO, load_network
from prs_lightning.seeding import keyed_generator
from tests.networks import PlainNetwork
from tests.synthetic_runs import write_run

EPOCHS, TRAIN, TEST, ATTACKED = 2, 200, 60, 30
THREAT: dict[str, Any] = {"epsilon": 0.1, "step_size": 0.02, "steps": 5}
MEASURES = ("test/accuracy", "prs/ratio", "logits/gap", "robust/pgd5", "robust/pgd5_audited", "robust/temperature")


def trained(seed: int) -> nn.Module:
    """A small network, fitted to some digits for a moment."""
    network = PlainNetwork(channels=1, classes=10, mean=[0.13], std=[0.31], seed=seed)
    train = load("mnist5k", "data")[0].select(balanced_subset(load("mnist5k", "data")[0].labels, TRAIN))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        loss = F.cross_entropy(network(to_unit_range(train.images)), train.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def write_trained(folder: Path, seed: int) -> RunDirectory:
    """A run directory of such a network: its checkpoint at the last epoch, and the config that it is measured by."""
    rows = {name: np.linspace(0.2, 0.4, EPOCHS) for name in (*MEASURES, "robust/distance", "collapse/nc1")}
    run = write_run(folder, rows, data="mnist5k", batch_size=20, seed=seed, grid=(1, 2))
    model = {
        "_target_": "tests.networks.PlainNetwork", "channels": 1, "classes": 10, "mean": [0.13], "std": [0.31],
        "seed": seed,
    }  # fmt: skip
    config = run.config() | {"model": model}
    config["data"] |= {"train_limit": TRAIN, "test_limit": TEST}
    of = "prs_lightning.callbacks"
    config["callbacks"] = {
        "scores": {"_target_": f"{of}.scores.Scores"},
        "records": {"_target_": f"{of}.records.Records", "grid_epochs": [1, 2]},
        "regions": {"_target_": f"{of}.regions.Regions", "layers": "penultimate"},
        "logits": {"_target_": f"{of}.logits.Logits"},
        "collapse": {"_target_": f"{of}.collapse.Collapse"},
        "robustness": {
            "_target_": f"{of}.robustness.Robustness", **THREAT, "seed": seed, "limit": ATTACKED, "every": 10,
            "grid_epochs": [1], "grid_attacks": ["fgsm", "temperature", "distance"],
        },
    }  # fmt: skip
    write_text(run.config_file, yaml.safe_dump(config))
    content = {"state_dict": trained(seed).state_dict(), "epoch": EPOCHS - 1, "hyper_parameters": {}}
    AtomicCheckpointIO(model).save_checkpoint(content, run.checkpoint(EPOCHS))
    return run


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained networks that were left alone, each with a twin, and one without."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        write_trained(folder, seed)
    for seed in range(2):
        columns = {name: np.full(EPOCHS, 0.3) for name in MEASURES}
        twin = write_run(
            folder, columns, data="mnist5k", batch_size=20, seed=seed, grid=(1, 2), interventions={"low_prs": 1.0}
        )
        own = RunDirectory(folder / f"mnist5k-cnn6-bs20-seed{seed}").config()
        write_text(twin.config_file, yaml.safe_dump(own | {"intervention": {"low_prs": {"strength": 1.0}}}))
    return folder


@pytest.fixture(scope="module")
def control(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, list[str], Path]:
    folder, lines = tmp_path_factory.mktemp("report"), list[str]()
    found, told = scaled.scaled_rows(read_runs(experiment).rows, experiment, folder, progress=lines.append)
    assert found is not None
    assert told == []
    return found, lines, folder


def test_the_numbers_are_those_of_an_attack_by_hand(experiment: Path, control: tuple[pd.DataFrame, Any, Any]) -> None:
    test = load("mnist5k", "data")[1]
    test = test.select(balanced_subset(test.labels, TEST))
    train = load("mnist5k", "data")[0]
    train = train.select(balanced_subset(train.labels, TRAIN))
    chosen = balanced_subset(test.labels, ATTACKED)
    images, labels = to_unit_range(test.images), test.labels
    assert len(control[0]) == 2
    for seed, row in control[0].set_index("seed").iterrows():
        network: Any = load_network(experiment / f"mnist5k-cnn6-bs20-seed{seed}" / "checkpoints" / "epoch-002.ckpt")
        with torch.no_grad():
            before = network(images)
            network.final.weight *= 1000
            network.final.bias *= 1000
            logits = network(images)
            z = network.hidden((to_unit_range(train.images) - network.mean) / network.std)
        assert torch.equal(before.argmax(1), logits.argmax(1))
        right = logits.argmax(1) == labels
        two = logits.topk(2).values
        assert row["test/accuracy"] == pytest.approx(right.double().mean().item(), abs=1e-6)
        assert row["logits/gap"] == pytest.approx(np.median((two[:, 0] - two[:, 1])[right]), rel=1e-4)
        assert row["prs/ratio"] == pytest.approx(len(region_keys(z).unique(dim=0)) / TRAIN, abs=1e-6)

        def attacked(loss: str, among: torch.Tensor | None = None, attacked: Any = network, seed: Any = seed) -> Any:
            return pgd(
                attacked, images[chosen], labels[chosen], **THREAT, loss=loss, random_start=True, indices=chosen,
                generator=keyed_generator(int(seed), EPOCHS), among=among,
            ).correct_after  # fmt: skip

        first = attacked("cross_entropy")
        assert row["robust/pgd5"] == pytest.approx(first.double().mean().item(), abs=1e-6)
        audited = attacked("margin", first).double().mean().item()
        assert row["robust/pgd5_audited"] == pytest.approx(audited, abs=1e-6)
        assert row["robust/pgd5"] > audited + 0.2  # or the control could not tell anything
        own = scaled.measured(
            experiment, f"mnist5k-cnn6-bs20-seed{seed}", EPOCHS, own_config(experiment, seed), factor=1
        )
        assert row["robust/distance"] == pytest.approx(own["robust/distance"], rel=1e-3)
        assert row["robust/pgd5"] > own["robust/pgd5"] + 0.2


def own_config(folder: Path, seed: Any) -> dict[str, Any]:
    return RunDirectory(folder / f"mnist5k-cnn6-bs20-seed{seed}").config()


def test_nothing_stands_for_what_was_not_measured(control: tuple[pd.DataFrame, Any, Any]) -> None:
    rows = control[0]
    assert {*rows["arm"]} == {SCALED}
    assert {*rows["epoch"]} == {EPOCHS}
    assert rows["collapse/nc1"].isna().all()
    assert "robust/fgsm" not in rows
    assert rows[[*MEASURES, "robust/distance"]].notna().all(axis=None)
    assert {*rows["run"]} == {f"mnist5k-cnn6-bs20-seed{seed} x1000" for seed in range(2)}


def test_what_was_measured_is_kept_until_a_checkpoint_changes(
    experiment: Path, control: tuple[pd.DataFrame, list[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, lines, folder = control
    assert [line.rpartition(": ")[2][-1] for line in lines] == ["s", "s"]
    asked: list[str] = []

    def measured(runs: Path, run: str, *_: object, **__: object) -> dict[str, float]:
        asked.append(run)
        return {"robust/pgd5": 0.5}

    monkeypatch.setattr(scaled, "measured", measured)
    table, told = read_runs(experiment).rows, list[str]()
    again, _ = scaled.scaled_rows(table, experiment, folder, progress=told.append)
    assert [line.rpartition(": ")[2] for line in told] == ["kept", "kept"]
    assert again is not None
    pd.testing.assert_frame_equal(again, rows)
    checkpoint = RunDirectory(experiment / "mnist5k-cnn6-bs20-seed1").checkpoint(EPOCHS)
    checkpoint.write_bytes(checkpoint.read_bytes())  # another time of writing
    scaled.scaled_rows(table, experiment, folder, progress=told.append)
    assert asked == ["mnist5k-cnn6-bs20-seed1"]
    scaled.scaled_rows(table, experiment, folder, force=True, progress=told.append)
    assert len(asked) == 3


def test_a_checkpoint_that_is_gone_or_damaged_is_a_line(experiment: Path, tmp_path: Path) -> None:
    runs, table = tmp_path / "runs", read_runs(experiment).rows
    shutil.copytree(experiment, runs)
    for seed, content in enumerate((b"", None)):
        checkpoint = RunDirectory(runs / f"mnist5k-cnn6-bs20-seed{seed}").checkpoint(EPOCHS)
        checkpoint.unlink() if content is None else checkpoint.write_bytes(content)
    found, told = scaled.scaled_rows(table, runs, tmp_path, progress=lambda line: None)
    assert found is None
    assert told[0] == "negative control: 1 of 2 runs have no checkpoint of their last grid epoch"
    assert told[1].startswith("negative control: mnist5k-cnn6-bs20-seed0: ")
    assert "damaged or no checkpoint" in told[1]
    assert len(told) == 2
