"""Any data set from the config alone: read as other readers see it; stored or in memory makes no difference."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from prs_lightning.attacks.targets import Targets
from prs_lightning.callbacks.records import Records
from prs_lightning.callbacks.regions import Regions
from prs_lightning.callbacks.robustness import Robustness
from prs_lightning.callbacks.scores import Scores
from prs_lightning.callbacks.sparsity import Sparsity
from prs_lightning.data import DataChoice, ImageData, StoredImages, TrainingBatches, load, load_data
from prs_lightning.data.facts import channel_statistics
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.models import CNN6, VGG16, check_network
from prs_lightning.models.resnet18 import ResNet18
from tests.conftest import RunTrain

COLOURS = ("red", "green", "blue")


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(number: int, height: int = 20, width: int = 24) -> Image.Image:
    """Noise, brighter in the channel of its class."""
    pixels = noise(number, height, width, 3)
    pixels[..., number % 3] |= 128
    return Image.fromarray(pixels)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """10 training and 4 test images of each of three classes, PNG, of differing sizes."""
    for part, count in (("train", 30), ("test", 12)):
        for number in range(count):
            place = tmp_path / "pets" / part / COLOURS[number % 3]
            place.mkdir(parents=True, exist_ok=True)
            picture(number + 100 * (part == "test"), 20 + number % 3, 24 + number % 5).save(place / f"{number:02d}.png")
    return tmp_path / "pets"


def arrays(**changes: Any) -> dict[str, Any]:
    """Six training and three test images of 8 x 9 x 3, two and one of each of three classes."""
    images = {"x_train": noise(0, 6, 8, 9, 3), "x_test": noise(1, 3, 8, 9, 3)}
    return images | {"y_train": np.arange(6) % 3, "y_test": np.array([[0], [1], [2]])} | changes


def npz(folder: Path, **changes: Any) -> str:
    file = folder / "arrays.npz"
    np.savez(file, **{key: value for key, value in arrays(**changes).items() if value is not None})
    return str(file)


def opened(**choice: Any) -> ImageData:
    data = ImageData(batch_size=6, **choice)
    data.setup()
    return data


# --- embedded


def test_digits_are_those_of_scikit_learn() -> None:
    train, test = load("digits", "data", None)
    assert train.images.shape == (1400, 1, 8, 8)
    assert train.labels.bincount().tolist() == [140] * 10
    assert (len(test.labels), int(test.images.max())) == (397, 255)
    oracle = sorted((image.tobytes(), label) for image, label in zip(*load_digits(return_X_y=True), strict=True))
    images = (torch.cat([train.images, test.images]).double() * 16 / 255).round().flatten(1).numpy()
    labels = torch.cat([train.labels, test.labels]).tolist()
    assert sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True)) == oracle


def test_the_size_of_a_known_data_set_can_be_chosen() -> None:
    as_they_are, _ = load("digits", "data", None)
    for size in ((14, 20), (32, 32)):
        assert torch.equal(load("digits", "data", size)[0].images, resize(as_they_are.images, list(size)))
    assert load("digits", "data")[0].images.shape[2:] == (32, 32)


# --- torchvision


def test_fashion_mnist_by_its_class_is_fashion_mnist_by_name(fashion_mnist_root: Path) -> None:
    options = {"root": str(fashion_mnist_root), "train_limit": 2000, "test_limit": 500}
    named = load_data(DataChoice(name="fashion_mnist", **options))
    found = load_data(DataChoice(source="torchvision", dataset="FashionMNIST", **options))
    assert found.classes == 10
    for one, other in ((named.train, found.train), (named.test, found.test)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


class Fake(torchvision.datasets.VisionDataset):
    """As torchvision's own: noise whose class is its number modulo 4."""

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        super().__init__(root)
        if split not in ("train", "val"):
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {{'train', 'val'}}.")
        self.first = 0 if split == "train" else 100

    def __len__(self) -> int:
        return 12

    def target(self, number: int) -> Any:
        return number % 4

    def __getitem__(self, number: int) -> tuple[Image.Image, Any]:
        return picture(self.first + number, 8, 8), self.target(number)


class Boxes(Fake):
    def target(self, number: int) -> Any:
        return {"boxes": [[0, 0, 3, 3]]}


class Attributes(Fake):
    def target(self, number: int) -> Any:
        return torch.zeros(40, dtype=torch.int64)


class OneBased(Fake):
    """Its list of labels is not what it gives."""

    @property
    def targets(self) -> list[int]:
        return [number % 4 + 1 for number in range(12)]


class Without:
    def __init__(self, root: str, download: bool = False) -> None: ...


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Fake, Boxes, Attributes, OneBased, Without):
        monkeypatch.setattr(torchvision.datasets, kind.__name__, kind, raising=False)
    names = ("Fake", "Boxes", "Attributes", "OneBased", "Without", *torchvision.datasets.__all__)
    monkeypatch.setattr(torchvision.datasets, "__all__", names)


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("name", ["Fake", "OneBased"])
def test_a_split_argument_is_found_and_labels_are_those_of_the_samples(name: str, tmp_path: Path) -> None:
    train, test, classes, _ = load_data(DataChoice(source="torchvision", dataset=name, root=str(tmp_path), size=None))
    assert classes == 4
    assert train.labels.tolist() == [number % 4 for number in range(12)]
    assert torch.equal(test.images[3], pil_to_tensor(picture(103, 8, 8)))


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar100", "data.dataset=cifar100 is no data set of torchvision: did you mean CIFAR100 or CIFAR10"),
        ("Boxes", "gives a target of type dict: expected one class number for each image, not boxes"),
        ("Attributes", "gives a target of type Tensor: expected one class number"),
        ("VOCDetection", "has no train= or split="),
        ("Without", "has no train= or split= that tells its test images"),
        (None, "data.dataset is not given: name a class of torchvision"),
    ],
)
def test_what_is_no_classification_data_set_is_refused(name: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_data(DataChoice(source="torchvision", dataset=name, root=str(tmp_path)))


@pytest.mark.filterwarnings("ignore:.*unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
def test_detection_data_of_torchvision_itself_are_refused(tmp_path: Path) -> None:
    for part in ("training", "testing"):
        for folder in ("image_2", "label_2"):
            (tmp_path / "Kitti" / "raw" / part / folder).mkdir(parents=True)
        picture(1).save(tmp_path / "Kitti" / "raw" / part / "image_2" / "000000.png")
        box = "Car 0.0 0 0.0 1.0 1.0 5.0 5.0 1.0 1.0 1.0 1.0 1.0 1.0 0.0\n"
        (tmp_path / "Kitti" / "raw" / part / "label_2" / "000000.txt").write_text(box)
    with pytest.raises(ConfigError, match="data.dataset=Kitti gives a target of type list"):
        load_data(DataChoice(source="torchvision", dataset="Kitti", root=str(tmp_path)))


def test_an_unknown_argument_and_files_that_are_not_there_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = {"source": "torchvision", "root": str(tmp_path)}
    with pytest.raises(ConfigError, match="data.arguments.letters: EMNIST has no such argument, only download, split"):
        load_data(DataChoice(dataset="EMNIST", arguments={"letters": True}, **choice))

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    for name in ("CIFAR100", "SVHN", "EuroSAT", "ImageNet"):
        with pytest.raises((ConfigError, RunError), match=f"data.dataset={name} ") as error:
            load_data(DataChoice(dataset=name, **choice))
        assert "\n" not in str(error.value)


# --- folder


def test_a_folder_holds_what_image_folder_of_torchvision_sees(pets: Path) -> None:
    data = opened(source="folder", root=str(pets), size=[16, 20])
    for part, split in (("train", data.train), ("test", data.test)):
        oracle = ImageFolder(pets / part)
        assert split.labels.tolist() == oracle.targets
        expected = torch.stack([resize(pil_to_tensor(image.convert("RGB")), [16, 20]) for image, _ in oracle])
        assert torch.equal(split.images, expected)
    assert data.found()["class_names"] == sorted(COLOURS)
    assert (data.channels, data.classes, data.facts["size"]) == (3, 3, [16, 20])


def test_what_is_found_is_exact(pets: Path) -> None:
    data = opened(source="folder", root=str(pets))
    pixels = data.train.images.numpy().astype(np.float64) / 255
    assert data.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), rel=1e-13)
    assert data.std == pytest.approx(pixels.std(axis=(0, 2, 3)), rel=1e-13)
    stored = opened(source="folder", root=str(pets), memory_limit=0)
    assert (stored.mean, stored.std) == (data.mean, data.std)
    three = torch.tensor([0, 0, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    assert channel_statistics(three) == ([1 / 3], [pytest.approx(2**0.5 / 3, rel=1e-15)])


@pytest.mark.parametrize(
    ("mode", "channels", "convert"),
    [("1", 1, "L"), ("L", 1, "L"), ("LA", 1, "L"), ("P", 3, "RGB"), ("RGBA", 3, "RGB"), ("CMYK", 3, "RGB")],
)
def test_images_of_every_mode_become_one_or_three_channels(
    mode: str, channels: int, convert: str, tmp_path: Path
) -> None:
    image = picture(5).convert(mode)
    ending = "tif" if mode == "CMYK" else "png"
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        image.save(tmp_path / part / "a" / f"0.{ending}")
    choice = {"source": "folder", "root": str(tmp_path), "size": None}
    assert torch.equal(load_data(DataChoice(**choice)).train.images[0], pil_to_tensor(image.convert(convert)))
    for asked, mode_asked in ((1, "L"), (3, "RGB")):
        found = load_data(DataChoice(channels=asked, **choice)).train.images[0]
        assert torch.equal(found, pil_to_tensor(image.convert(mode_asked)))


def test_classes_of_the_test_set_are_numbered_as_those_of_the_training_set(pets: Path) -> None:
    (pets / "test").rename(pets / "val")
    for file in (pets / "val" / "blue").iterdir():
        file.unlink()
    (pets / "val" / "blue").rmdir()
    test = load_data(DataChoice(source="folder", root=str(pets))).test
    assert test.labels.tolist() == [1] * 4 + [2] * 4


Change = Callable[[Path], object]


def corrupt(root: Path) -> None:
    (root / "train" / "red" / "03.png").write_bytes((root / "train" / "red" / "03.png").read_bytes()[:200])


def sixteen_bits(root: Path) -> None:
    Image.fromarray(np.full((20, 24), 40_000, dtype=np.uint16)).save(root / "train" / "red" / "03.png")


def moved(part: str, name: str, target: str) -> Change:
    return lambda root: (root / part / name).rename(root / part / target)


def colour_after_grey(root: Path) -> None:
    for file in (root / "train" / "blue").iterdir():
        Image.open(file).convert("L").save(file)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (corrupt, {}, r"train/red/03.png cannot be read as an image \(.*\): mend it, or take it out of the folder"),
        (sixteen_bits, {}, r"train/red/03.png has mode I;16: expected 8 bits"),
        (colour_after_grey, {}, r"green/01.png has colour, but the first image has none: give data.channels=3"),
        (lambda root: (root / "test").rename(root / "tests"), {}, "pets/test is missing: expected train/ and test/"),
        (lambda root: (root / "train").rename(root / "training"), {}, "pets/train is missing"),
        (moved("test", "red", "yellow"), {}, "pets/test/yellow is a class that .*train does not have"),
        (lambda root: (root / "train" / "empty").mkdir(), {}, "train/empty has no image: expected files that end"),
        (None, {"size": None}, r"blue/05.png is 22 x 24, but the first image is 22 x 26: give data.size"),
        (None, {"root": "nowhere"}, "data.root=nowhere is no folder"),
        (None, {"root": None}, "data.root is not given: name the folder"),
        (None, {"channels": 2}, "data.channels=2: images of folder can have 1 or 3"),
        (None, {"size": [3, 4, 5]}, r"data.size=\[3, 4, 5\]: expected a number of pixels"),
        (None, {"size": 0}, "data.size=0 must be an integer of 1"),
        (None, {"classes": 2}, "data.classes=2, but pets has labels up to 2"),
        (None, {"train_limit": 31}, "data.train_limit=31 exceeds the 30 samples"),
        (None, {"memory_limit": -1}, "data.memory_limit=-1 must be a number of GiB"),
    ],
)
@pytest.mark.parametrize("memory_limit", [4, 0])
def test_what_a_folder_cannot_give_is_one_line(
    change: Change | None, options: dict[str, Any], message: str, memory_limit: float, pets: Path
) -> None:
    if change:
        change(pets)
    with pytest.raises((ConfigError, RunError), match=message) as error:
        opened(**{"name": "pets", "source": "folder", "root": str(pets), "memory_limit": memory_limit, **options})
    assert "\n" not in str(error.value)


def test_a_worker_that_meets_a_corrupt_image_says_so_in_one_line(pets: Path) -> None:
    data = opened(source="folder", root=str(pets), memory_limit=0, workers=2)
    corrupt(pets)
    with pytest.raises(RunError, match=r"^.*train/red/03.png cannot be read as an image [^\n]*$"):
        list(data.train_dataloader())


def test_files_that_are_no_images_are_told(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pets / "train" / "red" / "notes.txt").write_text("good dogs")
    assert len(load_data(DataChoice(source="folder", root=str(pets))).train.labels) == 30
    assert "1 files" in caplog.text
    assert "notes.txt" in caplog.text


def test_an_image_that_is_the_same_everywhere_needs_statistics(tmp_path: Path) -> None:
    blank = {"x_train": np.zeros((6, 8, 9, 3), np.uint8)}
    with pytest.raises(ConfigError, match=r"data.std: channel 0 is the same in all training images .*give data.mean"):
        opened(source="npz", root=npz(tmp_path, **blank))


# --- npz


def test_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    expected = arrays()
    data = opened(source="npz", root=npz(tmp_path), size=None)
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), expected["x_train"])
    assert data.test.labels.tolist() == [0, 1, 2]
    assert (data.channels, data.classes, data.facts["size"]) == (3, 3, [8, 9])
    first = {"x_train": expected["x_train"].transpose(0, 3, 1, 2), "x_test": expected["x_test"].transpose(0, 3, 1, 2)}
    assert torch.equal(opened(source="npz", root=npz(tmp_path, **first), size=None).train.images, data.train.images)
    grey = {"x_train": noise(0, 6, 8, 9), "x_test": noise(1, 3, 8, 9)}
    assert opened(source="npz", root=npz(tmp_path, **grey)).train.images.shape == (6, 1, 32, 32)


def test_the_names_of_medmnist_are_known(tmp_path: Path) -> None:
    given = arrays()
    names = {"x_train": "train_images", "y_train": "train_labels", "x_test": "test_images", "y_test": "test_labels"}
    file = tmp_path / "pathmnist.npz"
    np.savez(file, **{names[key]: value for key, value in given.items()})
    assert opened(source="npz", root=str(file)).train.labels.tolist() == given["y_train"].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": noise(0, 6, 8, 9, 3) / 255}, r"x_train of .* float64: expected uint8 pixels of 0 to 255"),
        ({"x_train": noise(0, 6, 8)}, r"x_train of .*: expected images \(N, H, W\)"),
        ({"x_train": noise(0, 6, 8, 9, 7)}, "expected 1 to 4 channels on the last axis"),
        ({"x_test": noise(0, 3, 8, 9)}, r"x_train of .* has images \(3, 32, 32\), x_test \(1, 32, 32\)"),
        ({"y_train": np.arange(5)}, r"y_train of .*: expected a whole class number for each of the 6 images"),
        ({"y_train": np.arange(6) / 2}, r"y_train of .* float64: expected a whole class number"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -1])}, "arrays has labels down to -1: expected class numbers 0, 1, 2"),
        ({"y_train": np.array([0, 2, 2, 0, 2, 2])}, "arrays has no training image of class 1, but labels up to 2"),
        ({"y_train": np.arange(1, 7)}, "no training image of class 0, but labels up to 6: number its classes from 0"),
        ({"y_test": np.array([0, 1, 3])}, "test labels up to 3, but training labels up to 2 only"),
        ({"y_test": None}, "holds x_train, x_test, y_train: expected x_train, y_train, x_test, y_test or train_images"),
        ({"y_train": np.array([{}] * 6, dtype=object)}, r"cannot be read as an .npz of plain arrays \(.*allow_pickle"),
    ],
)
def test_arrays_that_cannot_be_meant_are_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, RunError), match=message) as error:
        opened(name="arrays", source="npz", root=npz(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_npz_is_one_line(tmp_path: Path) -> None:
    for content, message in ((b"PK\x03\x04 no zip", "cannot be read as an .npz"), (None, "does not exist")):
        file = tmp_path / f"{message.split()[0]}.npz"
        if content:
            file.write_bytes(content)
        with pytest.raises(RunError, match=message):
            opened(source="npz", root=str(file))
    np.save(tmp_path / "one.npy", noise(0, 4))
    with pytest.raises(RunError, match="one.npy holds one array"):
        opened(source="npz", root=str(tmp_path / "one.npy"))


# --- stored or in memory


def in_batches(batches: TrainingBatches, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    batches.set_epoch(epoch)
    images, labels = zip(*batches, strict=True)
    assert len(images) == len(batches)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_stored_images_come_in_the_same_batches(workers: int, pets: Path) -> None:
    choice = {"source": "folder", "root": str(pets), "train_limit": 20}
    memory, stored = opened(**choice), opened(memory_limit=0, workers=workers, **choice)
    assert isinstance(stored.train.images, StoredImages)
    before = torch.random.get_rng_state()
    for epoch in (0, 3):
        for one, other in zip(
            in_batches(memory.train_dataloader(), epoch), in_batches(stored.train_dataloader(), epoch), strict=True
        ):
            assert torch.equal(one, other)
    for one, other in ((memory.train_source(), stored.train_source()), (memory.test_source(), stored.test_source())):
        for rank in (0, 1):
            pairs = zip(one.batches(rank=rank, world=2), other.batches(rank=rank, world=2), strict=True)
            assert all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))
        rows = torch.tensor([7, 0, 7])
        assert all(torch.equal(a, b) for a, b in zip(one.gather(rows), other.gather(rows), strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_stored_shares_of_a_global_batch_make_it_up(world: int, pets: Path) -> None:
    stored = opened(source="folder", root=str(pets), memory_limit=0, size=4).train
    whole = list(TrainingBatches(stored, 12, seed=1))
    shares = [list(TrainingBatches(stored, 12, seed=1, rank=rank, world=world)) for rank in range(world)]
    for (images, labels), *parts in zip(whole, *shares, strict=True):
        assert len({len(share[1]) for share in parts}) == 1
        assert torch.equal(torch.cat([share[0] for share in parts]).sort(0).values, images.sort(0).values)
        assert sorted(torch.cat([share[1] for share in parts]).tolist()) == sorted(labels.tolist())


def test_the_limit_of_memory_is_that_of_both_sets_in_bytes(pets: Path) -> None:
    size = (30 + 12) * 3 * 16 * 16
    for limit, stored in ((size, False), (size - 1, True)):
        data = opened(source="folder", root=str(pets), size=16, memory_limit=limit / 2**30)
        assert isinstance(data.train.images, StoredImages) is stored
        assert data.facts["in_memory"] is not stored


def test_attacked_images_are_read_once(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = opened(source="folder", root=str(pets), memory_limit=0)
    targets = Targets(nn.Identity(), stored.test_source(), torch.device("cpu"))
    memory = opened(source="folder", root=str(pets)).test
    monkeypatch.setattr(StoredImages, "__getitem__", lambda *_: pytest.fail("read again"))
    assert torch.equal(targets.gather(torch.tensor([2, 1])), memory.images[[2, 1]] / 255)
    assert torch.equal(targets.labels, memory.labels)


def trained(folder: Path, data: ImageData, epochs: int, resume: Path | None = None) -> list[dict[str, str]]:
    """The rows of metrics.csv of a CNN-6, without times."""
    torch.manual_seed(0)
    assert data.mean is None
    data.prepare_data()
    network = CNN6(**data.for_network(dict.fromkeys(("channels", "classes", "mean", "std"))))
    attack = Robustness(epsilon=0.01, step_size=0.005, steps=3)
    measures = [Scores(), Regions(), Sparsity(), attack, Records()]
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=measures, logger=False, enable_model_summary=False, enable_progress_bar=False,
        accelerator="cpu", default_root_dir=folder, inference_mode=False,
    )  # fmt: skip
    trainer.fit(network, data, ckpt_path=resume, weights_only=True)
    return rows_of((folder / "metrics.csv").read_text())


def rows_of(text: str) -> list[dict[str, str]]:
    rows: Sequence[dict[str, str]] = list(csv.DictReader(io.StringIO(text)))
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*lr_scheduler")
def test_stored_images_train_and_measure_as_those_in_memory_do(pets: Path, tmp_path: Path) -> None:
    choice = {"source": "folder", "root": str(pets), "batch_size": 7}
    memory = trained(tmp_path / "memory", ImageData(**choice), 2)
    assert len(memory) == 2
    assert {"prs/ratio", "test/accuracy", "features/sparsity", "robust/pgd3_audited"} <= memory[1].keys()
    half = tmp_path / "stored"
    assert trained(half, ImageData(memory_limit=0, workers=2, **choice), 1) == memory[:1]
    assert trained(half, ImageData(memory_limit=0, **choice), 2, half / "checkpoints" / "last.ckpt") == memory


def test_a_run_that_goes_on_keeps_to_its_data(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = {"source": "folder", "root": str(pets), "batch_size": 7, "memory_limit": 0}
    before = ImageData(**choice).found(files="30 files")
    assert ImageData(**choice).found(files="30 files", before=before) == before
    with pytest.raises(RunError, match=r"pets is not what this run was begun with: train 30 then, 21 now"):
        ImageData(**choice, train_limit=21).found(before=before)
    with pytest.raises(RunError, match=r"begun with: files 30 files then, 31 files now"):
        ImageData(**choice).found(files="31 files", before=before)
    monkeypatch.setattr("prs_lightning.data.module.channel_statistics", lambda _: pytest.fail("read again"))
    assert ImageData(**choice).found(files="30 files", before=before)["mean"] == before["mean"]


def test_a_recorded_config_gives_the_same_data_again(pets: Path) -> None:
    choice = {"source": "folder", "root": str(pets), "name": "pets", "train_limit": 12, "size": [20, 24]}
    data = opened(**choice)
    recorded = {"_target_": "x", "batch_size": 6, "epsilon": 0.1, "measuring_batch_size": 200, "mean": None, **choice}
    train, test, classes, _ = load_data(DataChoice.of(recorded))
    assert torch.equal(train.images, data.train.images)
    assert torch.equal(test.labels, data.test.labels)
    assert classes == 3
    original = DataChoice.of(recorded, size="original", name="mnist5k", source=None)
    assert original.height_and_width is None


# --- sizes


@pytest.mark.parametrize(
    ("model", "size", "fits"),
    [(CNN6, 32, True), (CNN6, 28, False), (CNN6, [32, 64], False), (VGG16, 64, False), (ResNet18, [20, 50], True)],
)
def test_a_size_that_a_network_cannot_take_is_one_line(model: Any, size: Any, fits: bool) -> None:
    data = ImageData(name="digits", batch_size=5, train_limit=20, test_limit=20, size=size)
    network = model(**data.for_network(dict.fromkeys(("channels", "mean", "std"))))
    facts = {"classes": data.facts["classes"], "data": data.data_name}
    if fits:
        check_network(network, data.some_images(), **facts)
        return
    with pytest.raises(ConfigError, match=rf"{model.__name__} cannot take images of 1 x .*: give data.size=32"):
        check_network(network, data.some_images(), **facts)


# --- a run from the command line


def test_a_folder_is_trained_recorded_resumed_and_told_from_others(pets: Path, run_train: RunTrain) -> None:
    small = ("data=folder", "data.train_limit=21", "data.test_limit=9", "callbacks=none")
    run_train(*small, f"data.root={pets}", "epochs=1")
    (run,) = (pets.parent / "runs").iterdir()
    assert run.name.startswith("pets-cnn6-bs20-seed0-")
    record = json.loads((run / "run.json").read_text())
    assert (record["data"]["classes"], record["data"]["train"], record["data"]["files"][:8]) == (3, 21, "42 files")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["mean"] == record["data"]["mean"]
    other = pets.parent / "other" / "pets"
    other.parent.mkdir()
    (pets / "train" / "red" / "03.png").unlink()
    pets.rename(other)
    both = run_train(*small, f"data.root={other},{pets}", "dry_run=true", "runs=elsewhere", "-m", check=False)
    assert "jobs that differ in data.root alone share" in both.stderr
    done = run_train(*small, f"data.root={other}", "epochs=1", check=False)
    assert done.returncode == 1
    assert "holds 41 files" in done.stderr
    assert "give these data a name of their own" in done.stderr
