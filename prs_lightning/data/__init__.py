"""Image data sets as uint8 tensors on the training device, sliced there: splits, data sets, batches, the DataModule."""

from typing import TYPE_CHECKING, Any

from prs_lightning.data.batches import MeasuringBatches, TrainingBatches
from prs_lightning.data.datasets import NAMES, load
from prs_lightning.data.splits import Split, balanced_subset, to_unit_range

if TYPE_CHECKING:
    from prs_lightning.data.module import ImageData

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


def __getattr__(name: str) -> Any:
    """`ImageData` brings Lightning along, which regions and attacks, who only need a `Split`, do not wait for."""
    if name != "ImageData":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prs_lightning.data.module import ImageData

    return ImageData
