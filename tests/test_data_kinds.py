"""Training data of many kinds: measured as a whole, un-augmented, each sample once, or refused in one line."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torchvision.transforms import v2

from prs_lightning.attacks import pgd
from prs_lightning.callbacks.regions import Regions
from prs_lightning.callbacks.robustness import Robustness
from prs_lightning.callbacks.scores import Scores
from prs_lightning.data.sources import source_of
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.network import PixelNetwork
from prs_lightning.seeding import keyed_generator
from tests.foreign import FEATURES, TEST, TRAIN, Layers, Module, all_measures, by_numpy, fitted, samples

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # Lightning's own
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Your `.*` has `shuffle=True`"),
]
INPUTS, LABELS = TRAIN.tensors


class Listed(Dataset[tuple[Tensor, Any]]):
    """A data set of one's own, with a transform."""

    def __init__(self, transform: Callable[[Tensor], Tensor] = lambda x: x, labels: Any = LABELS) -> None:
        self.transform, self.labels = transform, labels

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.transform(INPUTS[index]), self.labels[index]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(INPUTS, LABELS, strict=True)


class Unsized(Dataset[tuple[Tensor, Tensor]]):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return INPUTS[index], LABELS[index]


class Halves(Sampler[int]):
    """Only the first half, as a user may write it."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(30))

    def __len__(self) -> int:
        return 30


class Own(BatchSampler):
    """A batch sampler of one's own over an ordinary sampler."""


RARE = torch.nn.Sequential(v2.RandomErasing(p=1e-9))
"""To read a few samples again does not show it."""


class Holding(Listed):
    """Has its transforms where nobody looks."""

    def __init__(self, place: str) -> None:
        super().__init__()
        setattr(self, place, Listed(RARE) if place == "inner" else RARE)


def loader(data: Any = TRAIN, **settings: Any) -> DataLoader[Any]:
    return DataLoader(data, **{"batch_size": 8} | settings)


def collated(batch: list[Any]) -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _ in batch]), torch.tensor([int(y) for _, y in batch])


RIGHT: dict[str, Callable[[], DataLoader[Any]]] = {
    "in order": loader,
    "shuffled": lambda: loader(shuffle=True),
    "without the last batch": lambda: loader(drop_last=True, shuffle=True),
    "with a worker": lambda: loader(num_workers=1, shuffle=True),
    "with a worker that lives on": lambda: loader(num_workers=1, persistent_workers=True),
    "subset of more": lambda: loader(Subset(ConcatDataset([TRAIN, TEST]), range(len(TRAIN)))),
    "concatenated": lambda: loader(ConcatDataset([Subset(TRAIN, range(20)), Subset(TRAIN, range(20, len(TRAIN)))])),
    "a data set of one's own": lambda: loader(Listed(), shuffle=True),
    "a transform that is the same each time": lambda: loader(Listed(lambda x: x.clone())),
    "a list as data set": lambda: loader(list(zip(INPUTS, LABELS, strict=True)), shuffle=True),  # type: ignore[arg-type]
    "a collation of one's own": lambda: loader(Listed(), collate_fn=collated),
    "labels as whole floats": lambda: loader(TensorDataset(INPUTS, LABELS.float())),
    "labels as a column": lambda: loader(TensorDataset(INPUTS, LABELS[:, None])),
    "labels as int32": lambda: loader(TensorDataset(INPUTS, LABELS.int())),
    "inputs in float64": lambda: loader(TensorDataset(INPUTS.double(), LABELS)),
    "a random subset sampler of all": lambda: loader(sampler=SubsetRandomSampler(range(len(TRAIN)))),
    "a batch sampler of one's own": lambda: DataLoader(TRAIN, batch_sampler=Own(RandomSampler(TRAIN), 8, False)),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_the_whole_training_set_is_measured(kind: str) -> None:
    found = fitted(Module(Layers()), train=RIGHT[kind]())
    for name, value in by_numpy(Layers()).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_a_subset_sampler_names_the_training_set() -> None:
    chosen = list(range(0, 61, 2))
    found = fitted(Module(Layers()), train=loader(sampler=SubsetRandomSampler(chosen)))
    expected = by_numpy(Layers(), TensorDataset(INPUTS[chosen], LABELS[chosen]))
    assert found["prs/ratio"] == pytest.approx(expected["prs/ratio"])


def noise(x: Tensor) -> Tensor:
    return x + torch.rand(()) / 100


def numpy_noise(x: Tensor) -> Tensor:
    return x + np.random.random() / 100  # noqa: NPY002


def python_noise(x: Tensor) -> Tensor:
    return x + random.random() / 100


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a stream": (lambda: loader(Stream()), "Stream is a stream: .* give train= a data set"),
    "without a length": (lambda: loader(Unsized(), sampler=range(61)), "Unsized has no length; give train="),
    "weights": (
        lambda: loader(sampler=WeightedRandomSampler([1.0] * 61, 61)),
        "WeightedRandomSampler may repeat or leave out samples; give train=",
    ),
    "with replacement": (
        lambda: loader(sampler=RandomSampler(TRAIN, replacement=True)),
        "RandomSampler draws 61 samples, replacement=True, of 61: not each once",
    ),
    "fewer than all": (lambda: loader(sampler=RandomSampler(TRAIN, num_samples=30)), "RandomSampler draws 30 samples"),
    "a sampler of one's own": (lambda: loader(sampler=Halves()), "Halves may repeat or leave out samples"),
    "samples named twice": (lambda: loader(sampler=SubsetRandomSampler([0, 0, 1])), "names samples twice"),
    "a random transform by name": (
        lambda: loader(Listed(v2.Compose([v2.Identity(), v2.RandomApply([v2.Identity()])]))),
        "the training data pass RandomApply: measures need them un-augmented; give train= the same data without",
    ),
    "a rare transform of another name": (lambda: loader(Holding("augment")), "the training data pass RandomErasing"),
    "a rare transform in a Sequential": (
        lambda: loader(Listed(v2.Compose([RARE]))),
        "training data pass RandomErasing",
    ),
    "a rare transform in a Lambda": (lambda: loader(Listed(v2.Lambda(RARE))), "training data pass RandomErasing"),
    "a rare transform in a data set within": (lambda: loader(Holding("inner")), "training data pass RandomErasing"),
    "noise of torch": (lambda: loader(Listed(noise)), "the training data change when they are read again"),
    "noise of numpy": (lambda: loader(Listed(numpy_noise)), "the training data change when they are read again"),
    "noise of Python": (lambda: loader(Listed(python_noise)), "the training data change when they are read again"),
    "noise in the collation": (
        lambda: loader(Listed(), collate_fn=lambda batch: (noise(collated(batch)[0]), collated(batch)[1])),
        "the training data change when they are read again",
    ),
    "one-hot labels": (
        lambda: loader(TensorDataset(INPUTS, torch.eye(3)[LABELS])),
        r"labels .*\(8, 3\), torch.float",
    ),
    "soft labels": (lambda: loader(TensorDataset(INPUTS, LABELS + 0.5)), "expected whole class numbers"),
    "inputs that are not numbers": (
        lambda: loader(TensorDataset(INPUTS * float("nan"), LABELS)),
        "the network returned NaN or infinite logits for the training set",
    ),
    "labels beyond the outputs": (
        lambda: loader(TensorDataset(INPUTS, LABELS + 1)),
        "label 3 of the training set",
    ),
    "labels below 0": (lambda: loader(TensorDataset(INPUTS, LABELS - 1)), "label -1 of the training set"),
    "three parts": (lambda: loader(TensorDataset(INPUTS, LABELS, LABELS)), r"a batch of training data is \(list\)"),
    "a dict": (
        lambda: loader([{"pixels": x, "label": y} for x, y in TRAIN]),
        r"a batch of training data is \(pixels, label\): expected \(inputs, labels\); give train=",
    ),
    "several loaders": (lambda: [loader(), loader()], "the training data are a list"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_shown_to_be_whole_is_refused_before_training(kind: str) -> None:
    build, message = REFUSED[kind]
    module = Module(Layers(), learning_rate=1.0)
    with pytest.raises((ConfigError, RunError), match=message) as refusal:
        fitted(module, [Scores(), Regions()], train=build())
    assert "\n" not in str(refusal.value)
    if "label" not in message:
        assert module.global_step == 0


GIVEN: dict[str, Callable[[], Any]] = {
    "a data set": lambda: TRAIN,
    "a loader": lambda: loader(shuffle=True),
    "a pair of tensors": lambda: (INPUTS, LABELS),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_the_training_set_can_be_given_by_hand(kind: str) -> None:
    found = fitted(Module(Layers()), all_measures(train=GIVEN[kind](), test=TEST), train=loader(Listed(noise)))
    for name, value in by_numpy(Layers()).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_different_sets_by_hand_are_refused() -> None:
    with pytest.raises(ConfigError, match="Scores and Regions were given different train="):
        fitted(Module(Layers()), [Scores(train=TRAIN), Regions(train=TEST)])
    with pytest.raises(ConfigError, match="give train= a data set, a DataLoader"):
        source_of("train.csv", "train")
    with pytest.raises(ConfigError, match="61 inputs and 60 labels"):
        source_of((INPUTS, LABELS[1:]), "train")
    with pytest.raises(ConfigError, match="are empty"):
        source_of((INPUTS[:0], LABELS[:0]), "train")


def test_without_a_test_set_nothing_carries_its_name() -> None:
    """The validation loader that `fitted` gives is no test set."""
    found = fitted(Module(Layers()), [Scores(), Regions()])
    assert {"prs/ratio", "train/loss"} <= found.keys()
    assert not {name for name in found if name.startswith("test/") or name == "prs/inclusion_ratio"}
    with pytest.raises(ConfigError, match="there is no test set to attack: give Robustness test="):
        fitted(Module(Layers()), [Robustness(epsilon=0.1)])


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> Any:
        return loader(shuffle=True)

    def val_dataloader(self) -> Any:
        return loader(samples(9, FEATURES, seed=4))

    def test_dataloader(self) -> Any:
        return loader(TEST)


def test_a_datamodule_brings_training_and_test_set() -> None:
    found = fitted(Module(Layers()), all_measures(), fit=lambda trainer, module: trainer.fit(module, Data()))
    for name, value in by_numpy(Layers()).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_validate_measures_too() -> None:
    found = fitted(
        Module(Layers()),
        all_measures(),
        fit=lambda trainer, module: trainer.validate(module, datamodule=Data(), verbose=False),
        inference_mode=False,
    )
    for name, value in by_numpy(Layers()).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


class Shifting(Module):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + 1, batch[1]


def test_hooks_that_change_batches_are_refused() -> None:
    with pytest.raises(ConfigError, match="Shifting.on_after_batch_transfer may change the training data: give train="):
        fitted(Shifting(Layers()))


def test_normalised_data_are_attacked_in_pixels() -> None:
    images = samples(30, 2, 3, 2, seed=5)
    mean, std = [0.4, 0.6], [0.2, 0.3]
    normalise = v2.Normalize(mean, std)
    normalised = TensorDataset(normalise(images.tensors[0]), images.tensors[1])
    options: dict[str, Any] = {"epsilon": 0.05, "step_size": 0.02, "steps": 4}
    with pytest.raises(ConfigError, match=r"test images lie in .*or give Robustness mean= and std= of the"):
        fitted(Module(Layers()), [Robustness(**options, test=normalised)], train=loader(normalised))
    callback = Robustness(**options, mean=mean, std=std, test=normalised)
    found = fitted(Module(Layers()), [callback], train=loader(normalised))
    network = PixelNetwork(Layers().eval(), mean, std).eval()
    expected = pgd(network, images.tensors[0], images.tensors[1], **options, generator=keyed_generator(0, 1))
    assert found["robust/pgd4"] == pytest.approx(expected.robust_accuracy)
    assert 0 < found["robust/pgd4"] < 1
    with pytest.raises(ConfigError, match="mean and std have 3 channels, the images 2"):
        fitted(
            Module(Layers()),
            [Robustness(**options, mean=[0.1] * 3, std=[1.0] * 3, test=normalised)],
            train=loader(normalised),
        )


def test_reading_the_data_draws_no_random_numbers() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    source = source_of(loader(Listed(lambda x: x), shuffle=True), "train")
    assert sum(len(labels) for _, labels in source.batches()) == 61
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


@pytest.mark.parametrize("world", [2, 3, 7])
def test_processes_share_the_samples_out(world: int) -> None:
    source = source_of(loader(), "train")
    shares = [torch.cat([inputs for inputs, _ in source.batches(rank=rank, world=world)]) for rank in range(world)]
    for rank, share in enumerate(shares):
        assert torch.equal(share, INPUTS[rank::world])
