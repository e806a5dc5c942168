"""Image data sets as uint8, on the training device or stored: splits, data sets, batches, the DataModule."""

from prs_lightning.data.batches import MeasuringBatches, TrainingBatches
from prs_lightning.data.choice import DataChoice, load_data
from prs_lightning.data.datasets import NAMES, load
from prs_lightning.data.module import ImageData
from prs_lightning.data.splits import Split, balanced_subset, spread_subset, to_unit_range
from prs_lightning.data.stored import StoredImages

__all__ = [
    "NAMES",
    "DataChoice",
    "ImageData",
    "MeasuringBatches",
    "Split",
    "StoredImages",
    "TrainingBatches",
    "balanced_subset",
    "load",
    "load_data",
    "spread_subset",
    "to_unit_range",
]
