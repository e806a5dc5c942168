"""What conf/ names by ``_target_``: the keys of our networks, data, callbacks, and of the loggers that we bring along.

Each class has the keys of the constructor that it stands for; a test compares names and defaults with its signature.
"""

from __future__ import annotations

from typing import Annotated, Any

from prs_lightning.schema.values import (
    Count,
    DataName,
    Deviations,
    Epochs,
    Flag,
    FreeText,
    Inside,
    Keys,
    Multiplier,
    Natural,
    NotNegative,
    Part,
    PerChannel,
    Place,
    Positive,
    Radius,
    Seed,
    Size,
    Text,
    Within,
    Workers,
    key,
    only,
)

Samples = Annotated[Any, only(None, why="a data set is given in Python, to callbacks of one's own Trainer")]


class Network(Part):
    """What all networks take."""

    channels: Count | None = key("of the images; null: as in the data", 3)
    classes: Count | None = key("number of outputs; null: as in the data", 10)
    mean: PerChannel | None = key("subtracted from the images, per channel; null: as in the data", (0.0,))
    std: Deviations | None = key("divided into the images, per channel; null: as in the data", (1.0,))
    learning_rate: Positive = key("of Adam", 1e-3)
    seed: Seed = key("of the weights, dropout and so on", 0)
    schedule: Annotated[Any, only("constant", "linear", "cosine")] = key(
        "of the learning rate, which falls to 0 over the steps of the run unless constant", "constant"
    )


class Scaled(Network):
    """CNN-6, VGG-16."""

    width: Count | None = key("penultimate units (CNN-6, VGG-16); null: 128, 4096", None)
    width_multiplier: Multiplier = key("of the channels and the units of all other layers (CNN-6, VGG-16)", 1.0)


class ResNet18(Network):
    """ResNet-18."""

    stem: Annotated[Any, only("imagenet", "cifar")] = key("how it begins: see `ResNet18`", "imagenet")


class AnyNetwork(Scaled, ResNet18):
    """All that a network of ours may take, for the page of all keys."""


class ImageData(Part):
    """A data set of images."""

    batch_size: Count = key("global training batch, divided over the devices")
    seed: Seed = key("of the training order", 0)
    mean: PerChannel | None = key("of the training images in [0, 1], per channel; null: found", None)
    std: Deviations | None = key("of the training images in [0, 1], per channel; null: found", None)
    epsilon: Radius = key("of attacks, in pixel units", 8 / 255)
    step_size: Radius = key("of attacks (alpha), in pixel units", 2 / 255)
    measuring_batch_size: Count = key("per device, for the measuring pass; changes no number", 200)
    name: DataName | None = key("of runs and tables; null: that of the data set, folder or file")
    source: Annotated[Any, only(None, "torchvision", "folder", "npz")] = key(
        "where images come from; null: a data set that is known by its name", None
    )
    root: Place | None = key("folder of the data sets' files; of a folder or .npz, that itself", "data")
    dataset: Text | None = key("class of torchvision, for example CIFAR100", None)
    arguments: Keys | None = key("more of the class's arguments", None)
    size: Size = key("height and width that images are resized to; null: as they are", 32)
    channels: Count | None = key("1 or 3; null: those of the first image", None)
    classes: Count | None = key("how many there are; null: found", None)
    train_limit: Count | None = key("class-balanced subset of the training set; null: all", None)
    test_limit: Count | None = key("class-balanced subset of the test set; null: all", None)
    memory_limit: NotNegative = key("GiB of images that are kept in memory; more stay in their files", 4.0)
    workers: Workers | None = key("processes that read images; null: one per core, at most 8", None)


class Measuring(Part):
    """Scores, logits, sparsity."""

    train: Samples = key("not here", None)
    test: Samples = key("not here", None)


class CosineSimilarity(Measuring):
    """Of the rows of the last layer's weight."""

    layer: Text | None = key("whose weight it is; null: found, the last linear layer", None)


class Regions(Measuring):
    """Regions of the penultimate layer."""

    layer: Text | None = key("whose output are the penultimate pre-activations; null: found", None)
    layers: Annotated[Any, only("penultimate", "all")] | list[Text] = key(
        "penultimate, all, or a list of further layers whose regions are counted", "penultimate"
    )


class WeightNorms(Measuring):
    """Spectral norms of the layers' weights."""

    layers: Annotated[Any, only("all")] | list[Text] | None = key(
        "all, or a list of layers, whose norms are logged too; null: the sum alone", None
    )


class Collapse(Measuring):
    """Neural collapse of the penultimate features."""

    layer: Text | None = key("the final layer, whose inputs they are; null: found", None)


class LocalComplexity(Measuring):
    """Boundaries of the penultimate units that cross a small ball."""

    grid_epochs: Epochs = key("when it is measured", ())
    samples: Count = key("class-balanced subset of the training set", 500)
    points: Count = key("around each sample; even", 16)
    radius: Radius = key("of the ball (Euclidean), in pixel units of images in [0, 1]", 0.2)
    seed: Seed = key("of the directions", 0)
    layer: Text | None = key("whose output are the penultimate pre-activations; null: found", None)
    mean: PerChannel | None = key("per channel, where the network takes normalised images", None)
    std: Deviations | None = key("likewise", None)


class Robustness(Measuring):
    """The attacks of each epoch, and those of the grid."""

    epsilon: Radius = key("radius of the ball, in pixel units of images in [0, 1]")
    seed: Seed = key("of the random starts", 0)
    every: Count = key("every n-th epoch", 1)
    epochs: Epochs | None = key("at these epochs only", None)
    limit: Count | None = key("class-balanced subset of the test set; null: all", None)
    batch_size: Count | None = key("images attacked at a time; changes no number; null: 128", None)
    audit: Flag = key("attack the survivors again with a margin loss", True)
    gradient_noise: Natural | None = key(
        "how many test samples' loss gradients are compared with float64; 0 or null: none", 100
    )
    grid_epochs: Epochs = key("when the attacks of the grid run", ())
    grid_attacks: Keys | list[Text] = key("entries as in `grid_attacks`, or a list of names", ())
    mean: PerChannel | None = key("per channel, where the network takes normalised images", None)
    std: Deviations | None = key("likewise", None)
    step_size: Radius = key("alpha, in pixel units", 2 / 255)
    steps: Count = key("number of steps", 20)
    norm: Annotated[Any, only("linf", why="l2 is for entries of grid_attacks")] = key("of the ball", "linf")
    loss: Annotated[
        Any, only("cross_entropy", why="others are entries of grid_attacks")
    ] = key("what is maximised", "cross_entropy")  # fmt: skip
    temperature: Annotated[Any, only(1.0, 1, words="1", why="others are entries of grid_attacks")] = key(
        "of the loss", 1.0
    )
    targets: Annotated[Any, only(0, why="others are entries of grid_attacks")] = key("classes that are aimed at", 0)
    random_start: Annotated[
        Any, only(True, why="an attack from the image itself is an entry of grid_attacks")
    ] = key("start somewhere in the ball", True)  # fmt: skip
    restarts: Count = key("how often those that withstood are attacked again", 1)
    early_exit: Flag = key("fooled at any step (worst case); false: at the last step", True)
    precision: Annotated[Any, only("float32", "bfloat16")] = key("of the gradients; successes are verified", "float32")


class Records(Part):
    """The run directory."""

    grid_epochs: Epochs = key("epochs whose weights are kept", ())


class Progress(Part):
    """The bar of each epoch."""

    refresh_rate: Natural = key("in batches; 0: no bar", 100)
    leave: Flag = key("leave the bar of each epoch in the terminal", False)
    theme: Keys = key("an entry with `_target_`: the colours", {})
    console_kwargs: Keys | None = key("of the console of rich", None)


class CsvLogger(Part):
    """A table of all that is logged."""

    save_dir: Inside | None = key("a folder in the run directory")
    name: Within | None = key("of the folder in it", "lightning_logs")
    version: Natural | Within | None = key("of the session; null: the next", None)
    prefix: FreeText = key("of all names", "")
    flush_logs_every_n_steps: Count = key("how often the file is written", 100)


class TensorboardLogger(Part):
    """Event files of TensorBoard."""

    save_dir: Inside | None = key("a folder in the run directory")
    name: Within | None = key("of the folder in it", "lightning_logs")
    version: Natural | Within | None = key("of the session; '': one for all", None)
    log_graph: Flag = key("log the network's graph", False)
    default_hp_metric: Flag = key("log a metric beside the config", True)
    prefix: FreeText = key("of all names", "")
    sub_dir: Inside | None = key("a folder in that of the version", None)


class MlflowLogger(Part):
    """A file or a server of MLflow."""

    experiment_name: Text = key("of the experiment", "lightning_logs")
    run_name: Text | None = key("of the run; null: that of its directory", None)
    tracking_uri: Text | None = key("of a server; null: mlflow.db in the run directory", None)
    tags: Keys | None = key("of the run", None)
    save_dir: Inside | None = key("a folder in the run directory", "./mlruns")
    log_model: Annotated[Any, only(True, False, "all")] = key("upload checkpoints", False)
    prefix: FreeText = key("of all names", "")
    artifact_location: Text | None = key("null: mlruns in the run directory", None)
    run_id: Text | None = key("of a run that goes on", None)
    synchronous: Flag | None = key("wait for the server", None)
