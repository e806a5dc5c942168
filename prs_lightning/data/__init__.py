"""Image data sets as uint8 tensors on the training device, sliced there: splits, data sets, batches, the DataModule."""

from prs_lightning.data.batches import MeasuringBatches, TrainingBatches
from prs_lightning.data.datasets import NAMES, load
from prs_lightning.data.module import ImageData
from prs_lightning.data.splits import Split, balanced_subset, to_unit_range

__all__ = [
    "NAMES",
    "ImageData",
    "MeasuringBatches",
    "Split",
    "TrainingBatches",
    "balanced_subset",
    "load",
    "to_unit_range",
]
