"""Populated decision regions: patterns and keys, sets, statistics, torchmetrics, and a measure of any layer."""

from prs_lightning.regions.keys import region_keys
from prs_lightning.regions.region_set import MajorRegion, RegionSet, inclusion_ratio, major_regions, prs_ratio
from prs_lightning.regions.signs import sign_patterns
from prs_lightning.regions.tracing import measure

__all__ = [
    "MajorRegion",
    "RegionSet",
    "inclusion_ratio",
    "major_regions",
    "measure",
    "prs_ratio",
    "region_keys",
    "sign_patterns",
]
