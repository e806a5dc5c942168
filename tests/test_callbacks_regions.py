"""The callbacks regions, sparsity and cosine similarity in Lightning's own validation loop, on 1 and 2 processes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from prs_lightning.callbacks.cosine_similarity import PIXELS, CosineSimilarity, matrix_picture
from prs_lightning.callbacks.regions import Regions
from prs_lightning.callbacks.sparsity import Sparsity
from prs_lightning.data import ImageData
from prs_lightning.data.sources import source_of
from prs_lightning.errors import ConfigError
from prs_lightning.measuring_pass import Batch, look_at
from prs_lightning.models import CNN6, ResNet18
from prs_lightning.models.base import ImageClassifier
from prs_lightning.network import MeasuredNetwork, as_measured
from prs_lightning.regions.layers import hidden_layers
from tests.conftest import digit_data
from tests.networks import logits_and_pre_activations
from tests.ranks import as_rank, on_two_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # Lightning's own
NAMES = {
    *("prs/ratio", "prs/count", "prs/inclusion_ratio", "prs/dead_units", "prs/entropy", "prs/singleton_share"),
    *("prs/live_units", "prs/purity", "prs/hamming_to_major", "prs/always_positive_units", "prs/mean_positive_units"),
    *("features/sparsity", "weights/cosine_similarity"),
}


def trainer(callbacks: list[pl.Callback], **settings: Any) -> pl.Trainer:
    defaults = {"accelerator": "cpu", "devices": 1, "logger": False, "max_epochs": 1, "num_sanity_val_steps": 0}
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(callbacks=callbacks, use_distributed_sampler=False, **{**defaults, **quiet, **settings})


def three(layers: str | list[str] = "penultimate") -> list[pl.Callback]:
    return [Regions(layers=layers), Sparsity(), CosineSimilarity()]


def small() -> ImageData:
    return digit_data(train_limit=63, test_limit=21)


def validated(network: ImageClassifier, callbacks: list[pl.Callback], data: ImageData, **settings: Any) -> dict:
    """What a validation loop logs under the names of these callbacks."""
    logged = trainer(callbacks, **settings).validate(network, data, verbose=False)[0]
    return {name: value for name, value in logged.items() if name.split("/")[0] in ("prs", "features", "weights")}


def images_of(data: ImageData) -> tuple[Tensor, Tensor, Tensor]:
    assert data.train is not None
    assert data.test is not None
    return data.train.images.float() / 255, data.train.labels, data.test.images.float() / 255


def patterns(z: Tensor) -> list[tuple[bool, ...]]:
    return [tuple(value > 0 for value in row) for row in z.flatten(1).tolist()]


def test_the_numbers_are_those_of_the_network_on_all_images(trained_network: CNN6) -> None:
    data = small()
    found = validated(trained_network, three("all"), data)
    train, labels, test = images_of(data)
    outputs: dict[str, list[Tensor]] = {"relu": []}
    for name, module in trained_network.named_modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _, __, output: outputs["relu"].append(output))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: [output]}))
    with torch.no_grad():
        test_regions = patterns(logits_and_pre_activations(trained_network, test)[1])
        outputs["relu"] = []
        z = logits_and_pre_activations(trained_network, train)[1]
    regions = patterns(z)
    assert found["prs/count"] == len(set(regions))
    assert found["prs/ratio"] == pytest.approx(len(set(regions)) / 63)
    assert found["prs/inclusion_ratio"] == pytest.approx(sum(p in set(regions) for p in test_regions) / 21)
    assert found["prs/dead_units"] == sum(not any(unit) for unit in zip(*regions, strict=True))
    pure = [len({label for label, p in zip(labels.tolist(), regions, strict=True) if p == own}) == 1 for own in regions]
    assert found["prs/purity"] == pytest.approx(sum(pure) / 63)
    assert len(outputs["relu"]) == 8
    zeros = [(output == 0).double().mean().item() for output in outputs["relu"]]
    assert found["features/sparsity"] == pytest.approx(sum(zeros) / 8, abs=1e-5)
    layers = {name for name, module in trained_network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    layers -= {"final"}
    for name in layers:
        assert found[f"prs/ratio/{name}"] == pytest.approx(len(set(patterns(outputs[name][0]))) / 63)
    weight = trained_network.final.weight.detach().double()
    assert found["weights/cosine_similarity"] == pytest.approx((1 - pdist(weight.numpy(), "cosine")).mean(), abs=1e-6)
    assert set(found) == NAMES | {f"prs/ratio/{name}" for name in layers}


def test_fitting_logs_every_epoch_shows_the_ratio_and_removes_all_hooks(tmp_path: Path) -> None:
    network, logger = CNN6(channels=1), CSVLogger(tmp_path)
    fitting = trainer(three(["hidden.1"]), max_epochs=2, logger=logger, log_every_n_steps=1)
    fitting.fit(network, small())
    assert NAMES | {"prs/ratio/hidden.1"} <= set(fitting.logged_metrics)
    shown = {name for name in fitting.progress_bar_metrics if name in NAMES or name.startswith("prs")}
    assert shown == {"prs/ratio"}
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        assert sum(bool(row["prs/ratio"]) for row in csv.DictReader(file)) == 2
    assert not any(module._forward_hooks for module in network.modules())


class Failing(pl.Callback):
    def on_validation_batch_end(self, *_: Any) -> None:
        raise RuntimeError("stop here")


def test_hooks_are_removed_when_the_loop_fails(trained_network: CNN6) -> None:
    with pytest.raises(RuntimeError, match="stop here"):
        trainer([*three("all"), Failing()]).validate(trained_network, small(), verbose=False)
    assert not any(module._forward_hooks for module in trained_network.modules())


def test_measuring_draws_no_random_numbers_and_keeps_the_modes(trained_network: CNN6) -> None:
    data = small()
    data.setup()
    modes = [module.training for module in trained_network.modules()]
    state = torch.get_rng_state()
    validated(trained_network, three("all"), data)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in trained_network.modules()] == modes


def test_a_relu_that_runs_twice_counts_as_two_outputs() -> None:
    network, callback, data = ResNet18(channels=1).eval(), Sparsity(), small()
    shares: list[float] = []
    zeros = {"features/sparsity": validated(network, [callback], data)["features/sparsity"]}
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _, __, output: shares.append((output == 0).double().mean().item()))
    with torch.no_grad():
        network(images_of(data)[0])
    assert len(shares) == 17  # one after the stem, two in each of 8 blocks
    assert zeros["features/sparsity"] == pytest.approx(sum(shares) / 17, abs=1e-5)


def test_layers_of_a_normalised_network_are_measured_behind_the_normalisation() -> None:
    network = ResNet18(channels=1)
    names = hidden_layers(network, network.final)
    assert len(names) == 20  # 17 convolutions of the main path, 3 of the shortcuts
    assert all(isinstance(network.get_submodule(name), nn.BatchNorm2d) for name in names)
    plain = CNN6(channels=1)
    assert [name.split(".")[0] for name in hidden_layers(plain, plain.final)] == ["convolutions"] * 6 + ["hidden"] * 2


def test_unknown_layers_are_refused_with_near_names(trained_network: CNN6) -> None:
    with pytest.raises(ConfigError, match=r"'hiden.1' is not in CNN6: did you mean .*hidden.1"):
        trainer([Regions(layers=["hiden.1"])]).validate(trained_network, small(), verbose=False)
    with pytest.raises(ConfigError, match="expected penultimate, all or a list"):
        Regions(layers="hidden.1")


class Album(CSVLogger):
    """A logger that takes images, as W&B's does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.images: dict[str, Any] = {}

    def log_image(self, key: str, images: list[Any], caption: list[str], step: int | None = None) -> None:
        assert len(images) == len(caption) == 1
        self.images[key] = images[0]


def test_the_matrix_of_cosines_goes_to_loggers_that_take_images(trained_network: CNN6, tmp_path: Path) -> None:
    album = Album(tmp_path)
    validated(trained_network, [CosineSimilarity()], small(), logger=[CSVLogger(tmp_path / "plain"), album])
    assert album.images["weights/cosine_matrix"].shape == (10 * PIXELS, 10 * PIXELS, 3)


def test_the_picture_is_blue_for_opposite_white_for_square_and_red_for_like() -> None:
    picture = matrix_picture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]))
    colours = [picture[PIXELS // 2 :: PIXELS, PIXELS // 2 :: PIXELS].tolist()][0]
    assert colours == [[[255, 0, 0], [255, 255, 255]], [[0, 0, 255], [255, 128, 128]]]


def validate_shard(rank: int, port: int, folder: str) -> None:
    """One of two processes of a validation loop under DDP."""
    as_rank(rank, port)
    network = CNN6(channels=1, mean=[0.13], std=[0.31])
    network.load_state_dict(torch.load(f"{folder}/weights.pt", weights_only=True))
    found = validated(network, three("all"), small(), devices=2, strategy="ddp")
    torch.save(found, f"{folder}/{rank}.pt")


def test_two_processes_log_what_one_logs(trained_network: CNN6, tmp_path: Path) -> None:
    torch.save(trained_network.state_dict(), tmp_path / "weights.pt")
    alone = validated(trained_network, three("all"), small())
    first, second = on_two_processes(validate_shard, tmp_path)
    assert first == second
    # Batches of other sizes add in another order: a unit within rounding of zero may change its sign.
    assert first == pytest.approx(alone, abs=2 / 63)
    assert first["prs/count"] == pytest.approx(alone["prs/count"], abs=2)


class Counted(Tensor):
    """Pre-activations that count how often signs are taken of them: each time they are detached first."""

    looks = 0

    def detach(self) -> Tensor:
        self.looks += 1
        return self.as_subclass(Tensor).detach()


def test_each_batch_is_keyed_once(trained_network: CNN6) -> None:
    callback, device, images = Regions(), torch.device("cpu"), torch.rand(18, 1, 32, 32)
    source = source_of((images, torch.arange(18) % 10), "train")
    with as_measured(trained_network, device):
        (tap,) = callback.start(look_at(MeasuredNetwork(trained_network, device), source, source, device))
    batches = [torch.randn(9, 128).as_subclass(Counted) for _ in range(4)]
    for number, z in enumerate(batches):
        callback.see_tap(tap, z, Batch("train" if number < 2 else "test", torch.arange(9)))
    assert [z.looks for z in batches] == [1] * 4
    first, second = (patterns(torch.cat(half).as_subclass(Tensor)) for half in (batches[:2], batches[2:]))
    found = callback.values()
    assert found["prs/count"] == len(set(first))
    assert found["prs/inclusion_ratio"] == sum(pattern in set(first) for pattern in second) / 18
