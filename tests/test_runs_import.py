"""A network that was trained elsewhere becomes a run: all measures, its weights, and nothing that does not fit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from analyze import analyze
from prs_lightning.data import Split, balanced_subset, to_unit_range
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.__main__ import main
from prs_lightning.runs.checkpoints import load_network
from tests.any_networks import Convolutional
from tests.conftest import RunTrain
from tests.test_analysis_report import config

FGSM_ALONE = "grid_attacks={fgsm: {steps: 1, step_size: null, random_start: false}}"
SMALL = (
    "--data", "mnist5k", "--train-limit", "100", "--test-limit", "40", "--overrides", "trainer.accelerator=cpu",
    "callbacks.progress=null", "callbacks.robustness.steps=2", "callbacks.robustness.limit=10",
    FGSM_ALONE,
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def brought(weights: Path, into: Path, *given: str, network: str = "tests.any_networks:Convolutional") -> int | None:
    return main(["import", str(weights), "--network", network, "--epoch", "7", "--into", str(into), *given, *SMALL])


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Convolutional(1, 10).state_dict()


@pytest.fixture
def weights(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_an_imported_run_measures_as_the_run_that_trained_it(run_train: RunTrain, tmp_path: Path) -> None:
    run_train(
        "model._target_=tests.any_networks.Convolutional", "epochs=1", "grid_epochs=[1]", FGSM_ALONE,
        "callbacks.robustness.steps=2", "callbacks.robustness.limit=10",
    )  # fmt: skip
    (record,) = (tmp_path / "runs").rglob("run.json")
    trained = RunDirectory(record.parent)
    kept = torch.load(trained.checkpoint(1), weights_only=True)["state_dict"]
    inner = {key.removeprefix("network."): value for key, value in kept.items()}
    torch.save(inner, tmp_path / "w.pth")
    given = ["--network", "tests.any_networks:Convolutional", "--epoch", "1", "--batch-size", "20", "--seed", "0"]
    assert main(["import", str(tmp_path / "w.pth"), *given, "--into", str(tmp_path / "foreign"), *SMALL]) is None
    run = RunDirectory(tmp_path / "foreign" / "mnist5k-convolutional-w")
    (row,), (expected,) = run.rows(), trained.rows()
    without = ("step", "time/train_s", "time/measure_s")
    names = [name for name in expected if name not in without]
    assert {name: row[name] for name in names} == {name: expected[name] for name in names}
    assert {"robust/fgsm", "robust/pgd2_audited", "prs/ratio", "features/sparsity"} <= {*names}
    assert (run.config()["batch_size"], run.config()["seed"]) == (20, 0)


def test_what_is_kept_of_it(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brought(weights, tmp_path / "foreign", "--name", "mine", "--mean", "0.5", "--std", "0.25") is None
    run = RunDirectory(tmp_path / "foreign" / "mine")
    record = json.loads(run.record_file.read_text())
    assert (record["status"], record["imported"], record["seed"]) == ("finished", True, None)
    assert record["source"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    kept = yaml.safe_load(run.config_file.read_text())
    assert (kept["batch_size"], kept["seed"], kept["epochs"], kept["grid_epochs"]) == (None, None, 7, [7])
    assert (kept["model"]["_target_"], kept["model"]["mean"]) == ("tests.any_networks.Convolutional", [0.5])
    images = torch.rand(3, 1, 32, 32)
    network = Convolutional(1, 10)
    network.load_state_dict(torch.load(weights, weights_only=True))
    torch.testing.assert_close(load_network(run.checkpoint(7))(images), network((images - 0.5) / 0.25))
    said = capsys.readouterr().out
    assert "normalised with mean=[0.5], std=[0.25]" in said
    assert said.rstrip().endswith(f"run: {run.path}")
    before = run.metrics_file.read_bytes()
    assert brought(weights, tmp_path / "foreign", "--name", "mine") == 1
    assert "mine holds a run that is finished" in capsys.readouterr().err
    assert run.metrics_file.read_bytes() == before
    assert main(["status", str(tmp_path)]) is None
    assert "1 finished" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_wrappers_and_containers_are_recognised(
    state: dict[str, torch.Tensor], tmp_path: Path, prefix: str, container: str | None
) -> None:
    from prs_lightning.runs.importing import fitting, read_weights

    named = {prefix + key: value for key, value in state.items()}
    torch.save(named if container is None else {container: named, "epoch": 3, "args": {"lr": 0.1}}, tmp_path / "w.pth")
    found = fitting(read_weights(tmp_path / "w.pth"), Convolutional(1, 10), tmp_path / "w.pth")
    torch.testing.assert_close(found, dict(state), rtol=0, atol=0)


def test_what_does_not_fit_leaves_no_trace(
    state: dict[str, torch.Tensor], weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        "less.pth": {key: value for key, value in state.items() if not key.startswith("head")},
        "more.pth": state | {"extra.weight": torch.zeros(2)},
        "code.pth": Convolutional(1, 10),
        "other.pth": {"epoch": 3},
    }
    for name, content in bad.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "half.pth").write_bytes(weights.read_bytes()[:2000])
    cases = [
        ("less.pth", [], "does not fit Convolutional: it lacks head.weight, head.bias"),
        ("more.pth", [], "it has also extra.weight"),
        ("code.pth", [], "other things than tensors and plain values, which could run code"),
        ("other.pth", [], "holds epoch: expected a state dict, alone or under state_dict, "),
        ("half.pth", [], "half.pth is damaged or no checkpoint"),
        ("absent.pth", [], "absent.pth does not exist"),
        (
            "weights.pth",
            ["--arguments", "width=5", "num_classes=10"],
            "differs in shape: hidden.weight is (12, 400), expected (5, 400), hidden.bias",
        ),
        ("weights.pth", ["--arguments", "width"], "--arguments width: expected key=value"),
        (
            "weights.pth",
            ["--arguments", "depth=1"],
            "model.depth: tests.any_networks.Convolutional has no such argument: did you mean width?",
        ),
        ("weights.pth", ["--data", "mnist6k"], "data=mnist6k is unknown: did you mean mnist5k"),
        ("weights.pth", ["--epoch", "0"], "epoch=0 must be an integer of 1 or more"),
        ("weights.pth", ["--overrides", "epochs=3"], "--overrides epochs=3: give --epoch"),
        (
            "weights.pth",
            ["--overrides", "wandb.mode=online"],
            "--overrides wandb.mode=online: expected a key of data, ",
        ),
        ("weights.pth", ["--overrides", "trainer"], "--overrides trainer: expected a key"),
        ("weights.pth", ["--overrides", "trainer=["], "'trainer=[' cannot be read"),
        (
            "weights.pth",
            ["--overrides", "callbacks.robustnes.limit=3"],
            "no key 'callbacks.robustnes.limit': did you mean",
        ),
        ("weights.pth", ["--overrides", "trainer.devices=0"], "trainer.devices=0: expected a number of 1 or more"),
        ("weights.pth", ["--overrides", "callbacks.robustness.limit=41"], "limit=41 exceeds the 40 test samples"),
    ]
    for file, given, words in cases:
        place = ["import", str(tmp_path / file), "--network", "tests.any_networks:Convolutional", "--epoch", "7"]
        assert main([*place, "--into", str(tmp_path / "foreign"), *SMALL[:6], *given]) == 1
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ")
        assert words in said
        assert "\n" not in said
    assert brought(weights, tmp_path / "foreign", network="gone:Net") == 1
    assert "there is no package gone" in capsys.readouterr().err
    assert not (tmp_path / "foreign").exists()


def taught(split: Split, seed: int) -> Convolutional:
    """A network that learned 300 digits for a moment."""
    torch.manual_seed(seed)
    network = Convolutional(1, 10)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    chosen = balanced_subset(split.labels, 300)
    images, labels = (to_unit_range(split.images[chosen]) - 0.1307) / 0.3081, split.labels[chosen]
    for index in torch.cat([torch.randperm(300) for _ in range(6)]).split(50):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images[index]), labels[index]).backward()
        optimizer.step()
    return network


def test_tables_and_figures_take_runs_whose_batch_size_and_seed_are_not_known(
    digits: tuple[Split, Split], tmp_path: Path
) -> None:
    for number in range(2):
        torch.save(taught(digits[0], number).state_dict(), tmp_path / f"w{number}.pth")
        assert brought(tmp_path / f"w{number}.pth", tmp_path / "runs") is None
    sizes = [f"sizes.{name}=20" for name in ("plane", "layers", "curve", "attacked", "group", "embedded", "scaled")]
    pair = [f"pair.{letter}=mnist5k-convolutional-w{number}@7" for letter, number in (("a", 0), ("b", 1))]
    analyze(config(tmp_path / "runs", "figures=[2a,2b,3,4,5,7a,9,11,13]", *pair, *sizes, "thresholds.mnist5k=0"))
    page = (tmp_path / "runs" / "report" / "report.html").read_text()
    assert "Not made" not in page
    assert "batch unknown, seed unknown, epoch 7" in page
    table = pd.read_csv(tmp_path / "runs" / "report" / "table.csv")
    assert table["model"].unique().tolist() == ["tests.any_networks.Convolutional"]
    assert table["batch_size"].isna().all()
    layers = pd.read_csv(tmp_path / "runs" / "report" / "figures" / "fig-2a.csv")
    assert layers["layer"].unique().tolist() == ["network.maps", "network.hidden"]
