"""What is found in the images and labels of a data set where the config does not say it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prs_lightning.data.stored import StoredImages
from prs_lightning.errors import ConfigError


def count_classes(train: Tensor, test: Tensor, given: int | None, name: str) -> int:
    """How many classes there are: ``given``, or one more than the largest class number of the training set.

    >>> count_classes(torch.tensor([0, 1, 2]), torch.tensor([1]), None, "pets")
    3

    Raises:
        ConfigError: class numbers that are negative or too high, or, where none is given, a class without an image.
    """
    if (lowest := min(int(train.min()), int(test.min()))) < 0:
        raise ConfigError(f"{name} has labels down to {lowest}: expected class numbers 0, 1, 2 and so on")
    classes = given or int(train.max()) + 1
    if (highest := max(int(train.max()), int(test.max()))) >= classes:
        if given:
            raise ConfigError(f"data.classes={given}, but {name} has labels up to {highest}")
        raise ConfigError(f"{name} has test labels up to {highest}, but training labels up to {classes - 1} only")
    if not given and (empty := (train.bincount(minlength=classes) == 0).nonzero().flatten().tolist()):
        raise ConfigError(
            f"{name} has no training image of class {empty[0]}, but labels up to {classes - 1}: number its classes "
            f"from 0 without a gap, or give data.classes={classes} if that is meant"
        )
    return classes


def channel_statistics(images: Tensor | StoredImages) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of the pixels of uint8 images (N, C, H, W), as values in [0, 1].

    From exact sums: with S1 and S2 the sums of the n pixels and of their squares, mean = S1 / (255 n) and
    std = sqrt(n S2 - S1^2) / (255 n), each rounded to float64 only at the end. Stored images are read once.
    """
    channels = images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for batch in images.split(256):
        for channel in range(channels):
            counts[channel] += batch[:, channel].flatten().bincount(minlength=256).cpu()
    mean, std = [], []
    for histogram in counts.tolist():
        n, first, second = (sum(count * value**power for value, count in enumerate(histogram)) for power in (0, 1, 2))
        mean.append(first / (255 * n))
        std.append(math.sqrt(n * second - first**2) / (255 * n))
    return mean, std
