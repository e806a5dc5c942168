"""The callback's numbers: in fit and validate, on one and two processes, with its audit and its grid."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prs_lightning.attacks import pgd
from prs_lightning.attacks.distance import distances
from prs_lightning.attacks.gradient_noise import gradient_noise
from prs_lightning.attacks.schedule import EpochAttacks
from prs_lightning.attacks.threat_model import ThreatModel
from prs_lightning.bars import attack_bar
from prs_lightning.callbacks.robustness import Robustness
from prs_lightning.data import load, to_unit_range
from prs_lightning.errors import ConfigError
from prs_lightning.seeding import keyed_generator
from tests.conftest import digit_data
from tests.networks import SmallNetwork
from tests.ranks import as_rank, on_two_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # lightning itself uses it

PLAIN = {"epsilon": 0.1, "step_size": 0.02, "steps": 5}


def small() -> Any:
    return digit_data(train_limit=100, test_limit=41)


@pytest.fixture(scope="module")
def trained_weights() -> dict[str, torch.Tensor]:
    train, _ = load("mnist5k", "data")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SmallNetwork(channels=1)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(4):
            for rows in torch.randperm(len(train.labels)).split(100):
                loss = F.cross_entropy(network(to_unit_range(train.images[rows])), train.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def trained_network(trained_weights: dict[str, torch.Tensor]) -> SmallNetwork:
    network = SmallNetwork(channels=1)
    network.load_state_dict(trained_weights)
    network.loaded_epoch = 0
    return network.eval()


def trainer(callback: Robustness | None, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[] if callback is None else [callback],
        enable_checkpointing=False,
        enable_model_summary=False,
        **({"enable_progress_bar": False, "inference_mode": False, "num_sanity_val_steps": 0, "devices": 1} | options),
    )


def validated(network: pl.LightningModule, callback: Robustness, **options: Any) -> dict[str, float]:
    runner = trainer(callback, **options)
    runner.validate(network, small(), verbose=False)
    return {name: float(value) for name, value in runner.callback_metrics.items() if name.startswith("robust/")}


def test_logs_what_pgd_gives(trained_network: SmallNetwork) -> None:
    found = validated(trained_network, Robustness(**PLAIN, seed=3))
    data = small()
    data.setup()
    images, labels = to_unit_range(data.test.images), data.test.labels
    trained_network.eval()
    first = pgd(trained_network, images, labels, **PLAIN, generator=keyed_generator(3, 1))
    again = pgd(
        trained_network,
        images,
        labels,
        **PLAIN,
        generator=keyed_generator(3, 1),
        loss="margin",
        among=first.correct_after,
    )
    assert 0 < first.robust_accuracy < 1
    assert found == pytest.approx(
        {
            "robust/pgd5": first.robust_accuracy,
            "robust/pgd5_audited": again.robust_accuracy,
            "robust/masking_gap": first.robust_accuracy - again.robust_accuracy,
            "robust/zero_gradient": float(first.zero_gradient_clean.double().mean()),
            "robust/gradient_noise": float(gradient_noise(trained_network, images, labels).double().mean()),
        },
        abs=1e-6,
    )


def test_a_saturated_network_looks_robust_until_it_is_audited(trained_network: SmallNetwork) -> None:
    with torch.no_grad():
        trained_network.final.weight *= 1000
        trained_network.final.bias *= 1000
    attacks = {"epsilon": 0.3, "step_size": 0.05, "steps": 8}
    found = validated(trained_network, Robustness(**attacks, grid_epochs=[1], grid_attacks=["dlr"]))

    def after_dlr(network: SmallNetwork, images: torch.Tensor, labels: torch.Tensor) -> float:
        """All samples under the loss, of those the survivors of cross-entropy: no ``among``."""
        of = partial(pgd, network, images, labels, **attacks)
        first, again = (of(loss=loss, generator=keyed_generator(0, 1)) for loss in ("cross_entropy", "dlr"))
        return float((first.correct_after & again.correct_after).double().mean())

    assert found["robust/zero_gradient"] > 0.7
    assert found["robust/gradient_noise"] >= found["robust/zero_gradient"]
    assert found["robust/pgd8"] > 0.7
    assert found["robust/pgd8_audited"] < 0.2
    assert found["robust/masking_gap"] > 0.5
    data = small()
    data.setup()
    images, labels = to_unit_range(data.test.images), data.test.labels
    assert found["robust/dlr"] == pytest.approx(after_dlr(trained_network, images, labels))
    assert found["robust/dlr"] < 0.2


def test_the_temperatures_and_distances_of_the_grid(trained_network: SmallNetwork) -> None:
    """The smallest robust accuracy of all temperatures, and the median distance of the correctly classified."""
    with torch.no_grad():
        trained_network.final.weight *= 100
        trained_network.final.bias *= 100
    entries = ["temperature", "distance", "distance_l2"]
    found = validated(trained_network, Robustness(**PLAIN, seed=3, grid_epochs=[1], grid_attacks=entries))
    data = small()
    data.setup()
    images, labels = to_unit_range(data.test.images), data.test.labels
    trained_network.eval()
    at = {
        each: pgd(trained_network, images, labels, **PLAIN, generator=keyed_generator(3, 1), temperature=each)
        for each in (1.0, 10.0, 100.0, 1000.0)
    }
    accuracies = {each: result.robust_accuracy for each, result in at.items()}
    assert found["robust/pgd5"] == pytest.approx(accuracies[1.0])
    assert found["robust/temperature"] == pytest.approx(min(accuracies.values()))
    assert found["robust/temperature"] < found["robust/pgd5"]
    for norm, name in (("linf", "distance"), ("l2", "distance_l2")):
        apart = distances(trained_network, images, labels, norm=norm, generator=keyed_generator(3, 1))
        assert found[f"robust/{name}"] == pytest.approx(float(np.median(apart.distance[apart.correct])))


def test_grid_attacks_run_at_grid_epochs_only(trained_network: SmallNetwork) -> None:
    attacks = ["fgsm", "bim5", "pgd100", "dlr"]
    at = Robustness(**PLAIN, limit=10, grid_epochs=[1], grid_attacks=attacks)
    found = validated(trained_network, at)
    assert {f"robust/{name}" for name in attacks} <= set(found)
    assert found["robust/dlr"] <= found["robust/pgd5"]
    off = Robustness(**PLAIN, limit=10, audit=False, gradient_noise=None, grid_epochs=[2], grid_attacks=attacks)
    assert set(validated(trained_network, off)) == {"robust/pgd5", "robust/zero_gradient"}
    assert not validated(trained_network, Robustness(**PLAIN, every=2))
    assert not validated(trained_network, Robustness(**PLAIN, epochs=[2]))


def test_training_ends_with_the_same_weights_and_random_states() -> None:
    ends = []
    for callback in (None, Robustness(**PLAIN, limit=10, grid_epochs=[1], grid_attacks=["fgsm"])):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        network = SmallNetwork(channels=1)
        trainer(callback, max_epochs=2).fit(network, small())
        ends.append((network.state_dict(), torch.get_rng_state(), np.random.random(), random.random()))  # noqa: NPY002
        assert all(parameter.requires_grad for parameter in network.parameters())
    (weights, state, *numbers), (other_weights, other_state, *other_numbers) = ends
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    assert torch.equal(state, other_state)
    assert numbers == other_numbers


def test_shows_a_bar_of_its_own(trained_network: SmallNetwork, capsys: pytest.CaptureFixture[str]) -> None:
    from lightning.pytorch.callbacks import TQDMProgressBar

    runner = pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[Robustness(**PLAIN, audit=False), TQDMProgressBar()],
        enable_checkpointing=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    runner.validate(trained_network, small(), verbose=False)
    assert "pgd5" in capsys.readouterr().err


def test_shows_a_task_in_the_default_bar_and_takes_it_away() -> None:
    """Lightning's Rich bar, which the default config uses: the attack's own line counts up to its total."""
    from rich.progress import Progress

    class Bar:
        progress = Progress()

    seen: list[tuple[str, float, float | None]] = []
    with attack_bar(Bar(), "pgd5") as progress:
        assert progress is not None
        for done, withstood in ((10, 5), (41, 7)):
            progress(done, 41, withstood)
            (task,) = Bar.progress.tasks
            seen.append((task.description, task.completed, task.total))
    assert seen == [("pgd5 RA 0.500", 10, 41), ("pgd5 RA 0.171", 41, 41)]
    assert not Bar.progress.tasks


def test_validates_under_the_rich_bar(trained_network: SmallNetwork) -> None:
    from lightning.pytorch.callbacks import RichProgressBar

    bar, told = RichProgressBar(), []
    callback = Robustness(**PLAIN, audit=False)

    class Watching(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            told.extend(task.description for task in bar.progress.tasks)

    runner = pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[callback, bar, Watching()],
        enable_checkpointing=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    runner.validate(trained_network, small(), verbose=False)
    assert 0 < runner.callback_metrics["robust/pgd5"] < 1
    assert told
    assert not any("pgd5" in description for description in told)


def test_autoattack_is_measured_at_grid_epochs(trained_network: SmallNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """ART's AutoAttack with each of its parts cut to a few iterations, in groups of ten."""
    from prs_lightning.attacks import art, schedule
    from tests.test_attacks_art import ShortAutoAttack

    monkeypatch.setattr(art, "auto_attack", partial(art.art_attack, attack=ShortAutoAttack))
    monkeypatch.setattr(schedule, "GROUP", 10)
    options = {**PLAIN, "limit": 30, "seed": 3, "grid_epochs": [1], "grid_attacks": ["autoattack"]}
    found = validated(trained_network, Robustness(**options))
    assert 0 <= found["robust/autoattack"] <= found["robust/pgd5_audited"] + 1 / 30
    # The same number again, whatever else drew random numbers in between.
    assert validated(trained_network, Robustness(**options))["robust/autoattack"] == found["robust/autoattack"]
    hardly = validated(trained_network, Robustness(**options | {"epsilon": 1e-4}))  # ART refuses 0
    assert hardly["robust/autoattack"] > found["robust/autoattack"]


def validate_shard(rank: int, port: int, folder: str) -> None:
    """One of two processes of a validation loop under DDP."""
    as_rank(rank, port)
    network = SmallNetwork(channels=1)
    network.load_state_dict(torch.load(f"{folder}/weights.pt", weights_only=True))
    network.loaded_epoch = 0
    found = validated(network, Robustness(**PLAIN), devices=2, strategy="ddp")
    torch.save(found, f"{folder}/{rank}.pt")


def test_two_processes_log_what_one_logs(trained_network: SmallNetwork, tmp_path: Path) -> None:
    torch.save(trained_network.state_dict(), tmp_path / "weights.pt")
    first, second = on_two_processes(validate_shard, tmp_path)
    assert first == second == validated(trained_network, Robustness(**PLAIN))


def epoch_attacks(**changes: Any) -> EpochAttacks:
    return EpochAttacks(ThreatModel(**({"epsilon": 0.1, "step_size": 0.02, "steps": 20} | changes)))


def test_warns_of_a_ball_that_cannot_be_crossed() -> None:
    assert epoch_attacks().warning() is None
    warning = epoch_attacks(epsilon=0.3, step_size=2 / 255).warning()
    assert warning is not None
    assert "0.157 < epsilon = 0.3" in warning
    assert "\n" not in warning


def test_refuses_what_cannot_work(trained_network: SmallNetwork) -> None:
    with pytest.raises(ConfigError, match="grid_attacks='pgdx'"):
        Robustness(**PLAIN, grid_attacks=["pgdx"])
    with pytest.raises(ConfigError, match=r"every=0"):
        Robustness(**PLAIN, every=0)
    with pytest.raises(ConfigError, match=r"limit=0"):
        Robustness(**PLAIN, limit=0)
    with pytest.raises(ConfigError, match=r"inference_mode=False"):
        validated(trained_network, Robustness(**PLAIN), inference_mode=True)
