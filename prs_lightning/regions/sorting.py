"""Exact sorting, counting, grouping and searching of 128-bit keys, in the one order that is used throughout."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The fractional part of the golden ratio, as a signed 64-bit integer: odd, and without pattern in its bits.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64

Counts = tuple[Tensor, Tensor]
"""Distinct keys (R, 2), in order, and how often each occurs, int64 (R,)."""


def sort_words(keys: Any) -> Any:
    """What keys (N, 2) are sorted by first, int64 (N,): different keys hardly ever agree in it. Tensor or array."""
    # Without the shift, two patterns that differ in the last unit of either word would agree.
    mixed = keys[:, 1] * _GOLDEN
    return keys[:, 0] + (mixed ^ (mixed >> 32)) * _GOLDEN


def _in_order(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The indices (N,) that put keys (N, 2) into the one order that is used throughout, and where in it a key differs
    from the one before, boolean (N,). The order is by `sort_words`, then by the first word, then by the second."""
    starts = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    by, order = sort_words(keys).sort()
    second = keys[:, 1][order]
    changes = by[1:] != by[:-1]
    if (~changes & (second[1:] != second[:-1])).any():
        order = keys[:, 1].argsort()
        for column in (keys[:, 0], sort_words(keys)):
            order = order[column[order].argsort(stable=True)]
        changes = (keys[order[1:]] != keys[order[:-1]]).any(dim=1)
    starts[1:] = changes
    return order, starts


def count_keys(keys: Tensor, weights: Tensor | None = None) -> Counts:
    """The distinct keys (R, 2), in order, and how often each occurs, int64 (R,); ``weights`` (N,) count as repetitions.

    >>> count_keys(torch.tensor([[7, 0], [3, 0], [7, 0]]))
    (tensor([[3, 0],
            [7, 0]]), tensor([1, 2]))
    """
    order, starts = _in_order(keys)
    first = starts.nonzero().flatten()
    bounds = F.pad(first, (0, 1), value=len(keys))
    if weights is not None:
        bounds = F.pad(weights[order].cumsum(0), (1, 0))[bounds]
    return keys.index_select(0, order[first]), bounds.diff()


def most_frequent(keys: Tensor) -> tuple[Tensor, int]:
    """The key (2,) that occurs most often among one or more, and how often; of equally frequent ones the first."""
    distinct, counts = count_keys(keys)
    most = counts.max()
    return distinct[(counts == most).nonzero()[0, 0]], int(most)


def group_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct keys (R, 2), in order, and for every given key its place among them, int64 (N,)."""
    order, starts = _in_order(keys)
    places = torch.empty_like(order)
    places[order] = starts.cumsum(0) - 1
    return keys[order[starts]], places


def find_keys(known: Tensor, wanted: Tensor) -> Tensor:
    """The place of each wanted key (M, 2) among distinct keys (R, 2) in order, or -1 where it is absent; int64 (M,)."""
    found = torch.full((len(wanted),), -1, device=wanted.device)
    if not len(known) or not len(wanted):
        return found
    by, sought = sort_words(known), sort_words(wanted)
    first, ends = torch.searchsorted(by, sought), torch.searchsorted(by, sought, right=True)
    # Hardly ever more than one round: several keys would have to agree in what they are sorted by.
    for step in range(int((ends - first).max())):
        places = (first + step).clamp(max=len(known) - 1)
        found = torch.where((known[places] == wanted).all(dim=1), places, found)
    return found
