"""Every number of metrics.csv goes to every logger, in the run directory; a logger that cannot be is one line."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest
import yaml

from prs_lightning.errors import Interrupted
from prs_lightning.runs import RunDirectory
from tests.conftest import SMALL
from tests.test_cli import run_here
from tests.test_training import MEASURES, NETWORK, Cut, fit, measures

NAMED = (NETWORK, *MEASURES, "epochs=2", "data.train_limit=100")
there = importlib.util.find_spec


def numbers(run: RunDirectory) -> dict[str, list[float]]:
    """The numbers of metrics.csv by name, an epoch after the other; what was not measured at an epoch is left out."""
    rows = run.rows()
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0] if "/" in name}


def in_csv(folder: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for file in sorted(folder.glob("version_*/metrics.csv")):
        for row in csv.DictReader(file.read_text().splitlines()):
            for name, value in row.items():
                if value:
                    found.setdefault(name, []).append(float(value))
    return found


def assert_same_numbers(found: dict[str, list[float]], run: RunDirectory) -> None:
    for name, values in numbers(run).items():
        if name.startswith("time/"):
            assert len(found[name]) == len(values), name
        else:
            assert found[name] == pytest.approx(values, rel=1e-6), name


def test_csv_beside_the_runs_own_record(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *NAMED, "logger=csv")
    assert len(numbers(run)) > 15
    assert_same_numbers(in_csv(run.path / "csv"), run)
    assert measures(run) == measures(fit(tmp_path / "unlogged", *NAMED)), "it is another file"
    assert yaml.safe_load((run.path / "csv" / "version_0" / "hparams.yaml").read_text())["batch_size"] == 20
    assert "learning_rate" in (run.path / "csv" / "version_0" / "hparams.yaml").read_text()


def test_a_run_that_goes_on_keeps_what_was_logged(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tmp_path, *NAMED, "logger=csv", "epochs=3", extra=Cut("on_train_batch_end", Interrupted("cut")))
    kept = in_csv(tmp_path / "csv")["train/loss"]
    assert len(kept) == 2
    run = fit(tmp_path, *NAMED, "logger=csv", "epochs=3")
    assert in_csv(tmp_path / "csv")["train/loss"][:2] == kept
    assert_same_numbers(in_csv(tmp_path / "csv"), run)


def test_several_loggers(tmp_path: Path) -> None:
    run = fit(tmp_path, *NAMED, "logger=[csv,wandb]")
    assert_same_numbers(in_csv(tmp_path / "csv"), run)
    assert list(run.path.glob("wandb/offline-run-*/*.wandb"))


def test_the_networks_arguments_are_logged_unless_switched_off(tmp_path: Path) -> None:
    fit(tmp_path, *NAMED, "logger=csv", "trainer.enable_autolog_hparams=false", "callbacks.robustness=null")
    assert "learning_rate" not in yaml.safe_load((tmp_path / "csv" / "version_0" / "hparams.yaml").read_text())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what it imports
def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = fit(tmp_path, *NAMED, "logger=tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert_same_numbers({name: [each.value for each in events.Scalars(name)] for name in events.Tags()["scalars"]}, run)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what it imports
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    run = fit(tmp_path / "run", *NAMED, "logger=mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{run.path / 'mlflow.db'}")
    (kept,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert (kept.info.run_name, kept.info.status) == ("run", "FINISHED")
    found = {name: [each.value for each in client.get_metric_history(kept.info.run_id, name)] for name in numbers(run)}
    assert_same_numbers(found, run)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["logger=wand"], "did you mean wandb?"),
        (["logger=[csv,wand]"], "logger=wand is unknown: did you mean wandb?"),
        (["logger=csv", "+logger.csv.colour=red"], "nothing reads logger.csv.colour"),
        (["+logger.mine._target_=nothing.Here"], "logger.mine._target_=nothing.Here: there is no package nothing"),
        (["+logger.mine.name=there"], "logger.mine has no _target_: expected one, as in conf/logger/csv.yaml"),
        pytest.param(
            ["logger=tensorboard"], "logger=tensorboard needs tensorboard: pip install tensorboard",
            marks=pytest.mark.skipif(there("tensorboard") is not None, reason="it is installed"),
        ),
        pytest.param(
            ["logger=[csv,mlflow]"], "logger=mlflow needs mlflow: pip install mlflow",
            marks=pytest.mark.skipif(there("mlflow") is not None, reason="it is installed"),
        ),
    ],
)  # fmt: skip
def test_a_logger_that_cannot_be_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, overrides: list[str], says: str
) -> None:
    assert run_here(monkeypatch, *SMALL, f"runs={tmp_path}", *overrides) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert says in line
    assert not list(tmp_path.iterdir())
