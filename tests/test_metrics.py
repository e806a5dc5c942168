"""The torchmetrics twins: equal to the functions, over one process and over several with uneven shards."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib
import numpy as np
import pytest
import scipy.stats
import torch
from scipy.spatial.distance import pdist
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities.distributed import gather_all_tensors

from prs_lightning.errors import ConfigError, RunError
from prs_lightning.regions import collapse, inclusion_ratio, prs_ratio
from prs_lightning.regions.collapse import Collapse
from prs_lightning.regions.cosine_similarity import CosineSimilarity
from prs_lightning.regions.logits import LogitScale
from prs_lightning.regions.metrics import PopulatedRegions, RegionStatistics
from prs_lightning.regions.sparsity import Sparsity, count_zeros
from tests.ranks import on_two_processes


def samples(count: int, units: int, seed: int = 0, rows: int = 12) -> tuple[Tensor, Tensor]:
    """Features with few distinct rows, and labels; one class of four has no sample, one unit is dead, one always on."""
    generator = torch.Generator().manual_seed(seed)
    rows_of = torch.randn(rows, units, generator=torch.Generator().manual_seed(5))
    z = rows_of[torch.randint(rows, (count,), generator=generator)]
    z[:, 0], z[:, 1] = -1, 1
    return z, torch.randint(3, (count,), generator=generator)


def oracle(z: Tensor, labels: Tensor) -> dict[str, float]:
    """Every figure from Python tuples; of equally large regions the one that `RegionStatistics` says is not asked."""
    patterns = [tuple(value > 0 for value in row) for row in z.tolist()]
    populations = Counter(patterns)
    classes = {pattern: set() for pattern in populations}
    for pattern, label in zip(patterns, labels.tolist(), strict=True):
        classes[pattern].add(label)
    positive = np.array(patterns)
    return {
        "count": len(populations),
        "ratio": len(populations) / len(z),
        "entropy": scipy.stats.entropy(list(populations.values())),
        "singleton_share": sum(populations[pattern] == 1 for pattern in patterns) / len(z),
        "purity": sum(len(classes[pattern]) == 1 for pattern in patterns) / len(z),
        "dead_units": (~positive.any(axis=0)).sum(),
        "always_positive_units": positive.all(axis=0).sum(),
        "live_units": sum(len(set(unit)) == 2 for unit in positive.T.tolist()),
        "mean_positive_units": positive.sum(axis=1).mean(),
    }


def distances_to_major(z: Tensor, labels: Tensor) -> set[float]:
    """All values that the mean distance can take: one for each choice among equally large regions of a class."""
    totals = {0}
    for label in labels.unique():
        patterns = [tuple(value > 0 for value in row) for row in z[labels == label].tolist()]
        counts = Counter(patterns)
        majors = [pattern for pattern in counts if counts[pattern] == max(counts.values())]
        sums = {sum(sum(a != b for a, b in zip(major, other, strict=True)) for other in patterns) for major in majors}
        totals = {total + further for total in totals for further in sums}
    return {total / len(z) for total in totals}


@pytest.mark.parametrize("units", [5, 128, 300])
@pytest.mark.parametrize("rows", [12, 1000])
def test_statistics_are_those_of_a_set_of_tuples(units: int, rows: int) -> None:
    (z, labels), (test, _) = samples(200, units, rows=rows), samples(50, units, seed=1, rows=rows + 5)
    metric = RegionStatistics(classes=4)
    for part, part_labels in zip(z.split(7), labels.split(7), strict=True):
        metric.update(part, part_labels)
        metric.update(test[:7])
        test = test[7:]
    found = {name: value.item() for name, value in metric.compute().items()}
    distance = found.pop("hamming_to_major")
    test, _ = samples(50, units, seed=1, rows=rows + 5)
    assert found.pop("inclusion_ratio") == inclusion_ratio(z, test)
    assert found == pytest.approx(oracle(z, labels), rel=1e-12)
    assert any(distance == pytest.approx(possible, rel=1e-12) for possible in distances_to_major(z, labels))
    states = [part for state in metric.metric_state.values() if isinstance(state, list) for part in state]
    wide = 200 * (16 + 8 * -(-units // 64)) if units > 128 else 0
    assert sum(part.nbytes for part in states) <= 24 * 200 + 16 * 50 + 4 * units * 8 + wide


def fill(metric: Metric, seed: int = 0, count: int = 60) -> Metric:
    """One update of a metric with random samples."""
    z, labels = samples(count, 140, seed)
    if isinstance(metric, RegionStatistics):
        metric.update(z[: count // 2], labels[: count // 2])
        metric.update(z[count // 2 :])
    elif isinstance(metric, Sparsity):
        metric.update(z.relu(), layer=seed % 2)
    elif isinstance(metric, CosineSimilarity):
        metric.update(z)
    elif isinstance(metric, LogitScale):
        metric.update(z, z.argmax(1))
    elif isinstance(metric, Collapse):
        metric.update(z, labels)
    else:
        metric.update(z)
    return metric


def values(metric: Metric) -> dict[str, float]:
    found = metric.compute()
    return {name: value.item() for name, value in (found if isinstance(found, dict) else {"": found}).items()}


METRICS: list[Callable[[], Metric]] = [
    PopulatedRegions,
    Sparsity,
    CosineSimilarity,
    lambda: RegionStatistics(classes=4),
    LogitScale,
    lambda: Collapse(classes=4),
]
each_metric = pytest.mark.parametrize("make", METRICS)


@each_metric
def test_reset_pickle_and_resume(make: Callable[[], Metric]) -> None:
    whole = fill(fill(make()), seed=1)
    first = fill(make())
    assert values(fill(pickle.loads(pickle.dumps(first)), seed=1)) == values(whole)  # noqa: S301
    first.persistent(True)
    resumed = make()
    resumed.persistent(True)
    resumed.load_state_dict(first.state_dict())
    assert values(fill(resumed, seed=1)) == values(whole)
    whole.reset()
    assert values(fill(whole)) == values(fill(make()))
    assert values(whole) != values(fill(fill(make()), seed=1))


@each_metric
def test_forward_gives_the_batch_and_counts_it_once(make: Callable[[], Metric]) -> None:
    metric, twin = make(), make()
    for seed in (0, 1, 2):
        z, labels = samples(30, 140, seed)
        arguments = {"labels": labels} if isinstance(metric, RegionStatistics | LogitScale | Collapse) else {}
        twin.update(z, **arguments)
        alone = make()
        alone.update(z, **arguments)
        batch = metric(z, **arguments)
        assert str(batch) == str(alone.compute())
    assert values(metric) == pytest.approx(values(twin), rel=0, abs=0, nan_ok=True)


def test_a_collection_computes_them_together() -> None:
    (train, labels), (test, _) = samples(60, 9), samples(20, 9, seed=1, rows=14)
    collection = MetricCollection([PopulatedRegions(), RegionStatistics(classes=4)])
    collection.update(train, labels=labels)
    collection["RegionStatistics"].update(test)
    found = collection.compute()
    assert found["PopulatedRegions_ratio"].item() == found["RegionStatistics_ratio"].item() == prs_ratio(train)
    assert found["RegionStatistics_inclusion_ratio"].item() == inclusion_ratio(train, test)


@each_metric
def test_plot(make: Callable[[], Metric]) -> None:
    matplotlib.use("Agg")
    figure, _ = fill(make()).plot()
    matplotlib.pyplot.close(figure if hasattr(figure, "savefig") else "all")


def test_bad_input_is_refused_when_computing() -> None:
    z = torch.tensor([[1.0, torch.nan]])
    for metric, labels in (
        (PopulatedRegions(), {}),
        (RegionStatistics(classes=2), {}),
        (RegionStatistics(classes=2), {"labels": torch.tensor([0])}),
    ):
        metric.update(z, **labels)
        with pytest.raises(RunError, match="NaN"):
            metric.compute()
    metric = RegionStatistics(classes=2)
    metric.update(torch.zeros(2, 3), torch.tensor([1, 2]))
    with pytest.raises(ConfigError, match="labels from 1 to 2: expected 0 to 1"):
        metric.compute()
    with pytest.raises(ConfigError, match="at least two rows"):
        CosineSimilarity().update(torch.zeros(1, 3))


def test_sparsity_is_the_mean_over_layers_of_the_ratio_of_zeros() -> None:
    metric, outputs = Sparsity(), [torch.randn(8, 3, 4, 4).relu(), torch.zeros(8, 2), torch.randn(8, 7).relu()]
    for half in (slice(0, 3), slice(3, 8)):
        for layer, output in enumerate(outputs):
            metric.update(output[half], layer=layer)
    expected = np.mean([(output.numpy() == 0).mean() for output in outputs])
    assert metric.compute().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zeros_of_both_signs_count_and_nothing_else_does(dtype: torch.dtype) -> None:
    smallest, infinite = torch.finfo(dtype).smallest_normal, torch.inf
    values = [0.0, -0.0, smallest, -smallest, smallest / 4, 1.0, -2.0, infinite, -infinite, torch.nan]
    chosen = torch.tensor(values, dtype=dtype)[torch.randint(len(values), (6, 5, 8, 4))]
    images = chosen.contiguous(memory_format=torch.channels_last)
    for some in (chosen, images, images[:, ::2], chosen[0, 0, 0, 0]):
        assert count_zeros(some).item() == sum(value == 0 for value in some.flatten().tolist())


def test_cosine_similarity_is_that_of_scipy() -> None:
    metric, weight = CosineSimilarity(), torch.randn(10, 30)
    metric.update(weight)
    expected = (1 - pdist(weight.double().numpy(), "cosine")).mean()
    assert metric.compute().item() == pytest.approx(expected, abs=1e-12)


SHARDS = {
    "uneven": [slice(0, 150), slice(150, 211)],
    "one without samples": [slice(0, 211), slice(0, 0)],
}


def measure_shard(rank: int, port: int, folder: str) -> None:
    """Fill every metric with this process's shard, compute, count the bytes that were sent; save what was found."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for name, shards in SHARDS.items():
        for units in (20, 300):
            sent: Counter[str] = Counter()
            found[f"{name} {units}"] = figures(units, shards[rank], sent)
            found[f"{name} {units} sent"] = dict(sent)
    poisoned = PopulatedRegions()
    poisoned.update(torch.full((1, 2), torch.nan if rank else 1.0))
    with pytest.raises(RunError, match="NaN"):
        poisoned.compute()
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def figures(units: int, shard: slice, sent: Counter[str] | None = None) -> dict[str, float]:
    """All figures over the rows of ``shard``, in batches of 9; the test samples are cut the same way.

    The bytes that this process hands over to the others are added up in ``sent``, by metric.
    """

    def counted(name: str) -> dict[str, Any]:
        def gather(tensor: Tensor, group: Any = None) -> list[Tensor]:
            sent[name] += tensor.nbytes
            return gather_all_tensors(tensor, group)

        return {"dist_sync_fn": None if sent is None else gather}

    (z, labels), (test, _) = samples(211, units, rows=40), samples(211, units, seed=1, rows=60)
    regions, statistics = PopulatedRegions(**counted("regions")), RegionStatistics(classes=4, **counted("statistics"))
    sparsity, logits = Sparsity(**counted("sparsity")), LogitScale(**counted("logits"))
    collapsed = Collapse(classes=4, **counted("collapse"))
    for part, part_labels, test_part in zip(
        z[shard].split(9), labels[shard].split(9), test[shard].split(9), strict=True
    ):
        if not len(part):  # a process without samples has had no batch
            continue
        regions.update(part)
        statistics.update(part, part_labels)
        statistics.update(test_part)
        logits.update(9 * part[:, 2:6], part_labels)
        with patch.object(collapse, "ROWS", 50):  # of few units there is a scatter then, of many rows that wait
            collapsed.update(part, part_labels)
        for layer in range(2):
            sparsity.update(part.relu() * layer, layer=layer)
    for metric in (regions, statistics, sparsity, logits, collapsed):
        metric._update_count = 1  # or a process without batches would warn
    return {
        **{f"regions {name}": value for name, value in values(regions).items()},
        **{f"statistics {name}": value for name, value in values(statistics).items()},
        "sparsity": values(sparsity)[""],
        **{f"logits {name}": value for name, value in values(logits).items()},
        **{f"collapse {name}": value for name, value in values(collapsed).items()},
    }


def test_two_processes_find_what_one_finds_and_send_little(tmp_path: Path) -> None:
    first, second = on_two_processes(measure_shard, tmp_path)
    for name in SHARDS:
        for units in (20, 300):
            key = f"{name} {units}"
            alone = figures(units, slice(None))
            assert first[key] == second[key]
            rounded = {name for name in alone if name.startswith("collapse")}  # sums of floats in another order
            assert {figure: alone[figure] for figure in alone.keys() - rounded}.items() <= first[key].items()
            assert first[key] == pytest.approx(alone, rel=1e-5)
            # What does not grow with the samples: counts by class and unit, and one pattern for each class.
            constant = 4 * units * 8 + 4 * (units // 8 + 8) + 200
            limits = {"regions": 40 * 16 + 16, "statistics": 24 * 211 + 16 * 211 + constant}
            limits |= {"logits": 4 * 211 + 16, "collapse": 4 * (units + 1) * 8 + 8}
            for sent in (first[f"{key} sent"], second[f"{key} sent"]):
                assert {metric: sent[metric] for metric in limits if sent[metric] > limits[metric]} == {}
