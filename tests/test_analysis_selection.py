"""The candidate models and the pair of networks, against counting by hand and brute force."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prs_lightning.analysis.networks import checkpoint_path, pair_key
from prs_lightning.analysis.selection import Network, choose_pair, matched_pair, named_pair, select
from prs_lightning.analysis.table import read_runs
from prs_lightning.errors import ConfigError
from tests.synthetic_runs import write_grid, write_run


def test_the_counts_tell_how_the_candidates_become_the_models(tmp_path: Path) -> None:
    write_grid(tmp_path, batch_sizes=(64, 128), seeds=range(2), epochs=6, grid=(2, 4, 6), collapsed=(3,))
    cut = {"test/accuracy": np.array([0.9, np.nan, 0.9]), "prs/ratio": np.full(3, 0.5)}
    write_run(tmp_path, cut, seed=9, grid=(2, 3), status="interrupted", epochs=6)
    selection = select(read_runs(tmp_path).rows, thresholds={"mnist": 0.5})
    assert selection.counts["models"].tolist() == [4 * 6 + 3, 4 * 3 + 2, 4 * 3 + 1, 3 * 3 + 1]
    assert selection.counts["runs"].tolist() == [5, 5, 5, 4]
    assert sorted(selection.models["epoch"].unique()) == [2, 3, 4, 6]
    (collapsed,) = selection.collapsed.to_dict("records")
    assert collapsed == {
        "run": "mnist-cnn6-bs128-seed1", "lost": 3, "candidates": 3, "lowest": 0.1, "threshold": 0.5
    }  # fmt: skip
    assert selection.thresholds == {"mnist": 0.5}
    assert selection.grids == {"mnist": (2, 3, 4, 6)}


def test_thresholds_go_by_data_set_and_a_value_on_the_threshold_passes(tmp_path: Path) -> None:
    accuracy = {"test/accuracy": np.array([0.6, 0.7, 0.8])}
    for data in ("mnist", "cifar10"):
        write_run(tmp_path, accuracy, data=data, grid=(1, 2, 3))
    rows = read_runs(tmp_path).rows
    models = select(rows, thresholds={"mnist": 0.8, "default": 0.7}).models
    assert models.groupby("data")["epoch"].apply(list).to_dict() == {"mnist": [3], "cifar10": [2, 3]}
    assert select(rows).collapsed.empty
    assert len(select(rows).models) == 6
    collapsed = select(rows, thresholds={"default": 0.65}).collapsed
    assert (collapsed["lost"] < collapsed["candidates"]).tolist() == [True, True]


def test_a_grid_of_the_config_overrules_the_runs_own(tmp_path: Path) -> None:
    write_run(tmp_path, {"test/accuracy": np.ones(5)}, grid=(2, 4))
    rows = read_runs(tmp_path).rows
    assert select(rows).models["epoch"].tolist() == [2, 4]
    assert select(rows, [1, 5, 99]).models["epoch"].tolist() == [1, 5]


def test_only_a_finished_run_that_is_shorter_than_its_grid_stands_with_its_last_epoch(tmp_path: Path) -> None:
    write_run(tmp_path, {"test/accuracy": np.ones(3)}, seed=0)
    write_run(tmp_path, {"test/accuracy": np.ones(3)}, seed=1, status="interrupted", epochs=300)
    models = select(read_runs(tmp_path).rows).models
    assert models[["seed", "epoch"]].to_numpy().tolist() == [[0, 3]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"thresholds": {"mnist": 97}}, r"thresholds=\{'mnist': 97\}"), ({"grid_epochs": [0]}, "counted from 1")],
)
def test_values_that_cannot_work_are_refused(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    write_run(tmp_path, {"test/accuracy": np.ones(1)})
    with pytest.raises(ConfigError, match=message):
        select(read_runs(tmp_path).rows, **arguments)


MODELS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.floats(0, 1), st.floats(0.9, 1), st.booleans()),
    min_size=0,
    max_size=12,
)


@given(MODELS)
@settings(max_examples=100, deadline=None)
def test_the_pair_is_the_one_of_brute_force(models: list[tuple[str, str, float, float, bool]]) -> None:
    frame = pd.DataFrame(models, columns=["data", "model", "prs/ratio", "test/accuracy", "there"])
    frame = frame.assign(run=[f"r{position}" for position in range(len(frame))], epoch=1)
    there = set(frame["run"][frame["there"].astype(bool)])
    pairs = [(a, b) for a, b in product(models, models) if a[:2] == b[:2] and a[2] > b[2] and a[4] and b[4]]
    allowed = max(0.02, min((abs(a[3] - b[3]) for a, b in pairs), default=0))
    gaps = [a[2] - b[2] for a, b in pairs if abs(a[3] - b[3]) <= allowed]
    pair, why = choose_pair(frame, 0.02, lambda run, epoch: run in there)
    assert why
    if not gaps:
        assert pair is None
    else:
        assert pair is not None
        assert pair[0].prs_ratio - pair[1].prs_ratio == max(gaps)
        assert {network.run for network in pair} <= there
        chosen = [frame[frame["run"] == network.run].iloc[0] for network in pair]
        assert (chosen[0]["data"], chosen[0]["model"]) == (chosen[1]["data"], chosen[1]["model"])
        assert abs(chosen[0]["test/accuracy"] - chosen[1]["test/accuracy"]) <= allowed
        assert ("as none are within 0.02" in why) == (allowed > 0.02)


def test_the_pair_of_many_models_is_the_one_of_brute_force() -> None:
    """More models than are compared at a time."""
    rng = np.random.default_rng(0)
    prs, accuracy = rng.random(700).round(3), rng.random(700).round(2)
    models = pd.DataFrame({
        "run": [f"run-{number}" for number in range(700)], "epoch": 1, "data": "mnist", "model": "cnn6",
        "prs/ratio": prs, "test/accuracy": accuracy,
    })  # fmt: skip
    pair, _ = choose_pair(models, 0.02)
    assert pair is not None
    best = max(
        (prs[a] - prs[b], -a, -b) for a in range(700) for b in range(700) if abs(accuracy[a] - accuracy[b]) <= 0.02
    )
    assert [network.run for network in pair] == [f"run-{-number}" for number in best[1:]]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1), st.floats(0.9, 1), st.floats(0, 50)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_pair_at_equal_gap_is_the_one_of_brute_force(models: list[tuple[str, float, float, float]]) -> None:
    frame = pd.DataFrame(models, columns=["data", "prs/ratio", "test/accuracy", "logits/gap"])
    frame = frame.assign(run=[f"r{position}" for position in range(len(frame))], epoch=1, model="m")
    differences = [
        a[1] - b[1]
        for a, b in product(models, models)
        if a[0] == b[0] and a[1] > b[1] and abs(a[2] - b[2]) <= 0.02 and abs(a[3] - b[3]) <= 0.1 * max(a[3], b[3])
    ]
    pair, why = matched_pair(frame, 0.02, 0.1)
    assert why
    assert (pair is None) == (not differences)
    if pair is not None:
        assert pair[0].prs_ratio - pair[1].prs_ratio == max(differences)
        one, other = (frame[frame["run"] == network.run].iloc[0] for network in pair)
        assert abs(one["logits/gap"] - other["logits/gap"]) <= 0.1 * max(one["logits/gap"], other["logits/gap"])


def test_no_pair_at_equal_gap_says_why() -> None:
    frame = pd.DataFrame({"run": ["r0", "r1"], "epoch": 1, "data": "d", "model": "m", "test/accuracy": [0.9, 0.9]})
    assert matched_pair(frame) == (None, "prs/ratio was not measured")
    frame["prs/ratio"] = [0.5, 0.1]
    assert matched_pair(frame) == (None, "logits/gap was not measured")
    frame["logits/gap"] = [5.0, np.nan]
    assert "lie within 0.02 of test accuracy and 10% of logit gap" in matched_pair(frame)[1]
    frame["logits/gap"] = [5.0, 5.4]
    pair, why = matched_pair(frame)
    assert [network.run for network in pair or ()] == ["r0", "r1"]
    assert why.startswith("the largest difference in PRS ratio (0.4) among models within")


def test_no_pair_says_why() -> None:
    frame = pd.DataFrame({"run": ["r0", "r1"], "epoch": 1, "data": "d", "model": "m", "test/accuracy": [0.5, 0.9]})
    assert choose_pair(frame)[1] == "fewer than two models have a prs/ratio"
    frame["prs/ratio"] = [0.5, 0.5]
    assert choose_pair(frame)[1] == "no two models of one architecture and data set differ in PRS ratio"
    assert choose_pair(frame.iloc[:1])[1] == "1 model passed the selection"
    assert choose_pair(frame, 0.5, lambda run, epoch: False)[1].startswith("0 of 2 models have a checkpoint")


def test_a_named_pair_is_found_or_refused(tmp_path: Path) -> None:
    columns = {"test/accuracy": np.ones(2), "prs/ratio": np.array([0.5, 0.2])}
    write_run(tmp_path, columns, seed=0)
    write_run(tmp_path, columns, data="cifar10")
    rows = read_runs(tmp_path).rows
    a, b = named_pair(rows, "mnist-cnn6-bs128-seed0@1", "mnist-cnn6-bs128-seed0@2")
    assert (a.prs_ratio, b.prs_ratio, b.epoch) == (0.5, 0.2, 2)
    for name, message in {
        "mnist-cnn6-bs128-seed0": "expected RUN@EPOCH",
        "mnist-cnn6-bs128-seed0@7": "has epochs 1 to 2",
        "other@1": "no run is called other",
        "cifar10-cnn6-bs128-seed0@1": "pair.a is of data mnist and pair.b of cifar10",
    }.items():
        with pytest.raises(ConfigError, match=message):
            named_pair(rows, "mnist-cnn6-bs128-seed0@1", name)


def test_the_checkpoint_is_the_grids_or_the_last_one_of_a_finished_run(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"test/accuracy": np.ones(4)})
    name = run.path.name
    assert checkpoint_path(tmp_path, name, 4) is None
    run.checkpoints.mkdir(exist_ok=True)
    run.last_checkpoint.write_bytes(b"last")
    assert checkpoint_path(tmp_path, name, 4) == run.last_checkpoint
    assert checkpoint_path(tmp_path, name, 3) is None
    run.checkpoint(4).write_bytes(b"grid")
    assert checkpoint_path(tmp_path, name, 4) == run.checkpoint(4)
    network = Network(name, 4, "cnn6", 0.5, 1.0)
    key = pair_key(tmp_path, (network, network))
    run.checkpoint(4).write_bytes(b"another")
    assert pair_key(tmp_path, (network, network)) != key
    run.checkpoint(4).unlink()
    run.update_record(status="interrupted")
    assert checkpoint_path(tmp_path, name, 4) is None
