"""Populated decision regions: patterns and keys, sets, statistics, torchmetrics, and a measure of any layer."""

from prs_lightning.regions.region_set import (
    MajorRegion,
    RegionSet,
    inclusion_ratio,
    major_regions,
    measure,
    prs_ratio,
    region_keys,
    sign_patterns,
)

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
