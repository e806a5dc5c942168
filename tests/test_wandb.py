"""W&B offline: the scalars under the names of metrics.csv, the similarity matrix, config, group and job type."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from wandb.proto import wandb_internal_pb2

from prs_lightning.runs import RunDirectory
from tests.conftest import RunTrain
from tests.test_training import MEASURES, NETWORK

BLOCK, HEADER = 32_768, struct.Struct("<IHB")


def chunks(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file, which is a LevelDB log behind a header of 7 bytes: blocks of 32 kB, in each
    fragments (checksum, length, kind: 1 whole, 2 first, 3 middle, 4 last) and padding of less than a header."""
    position, parts = HEADER.size, b""
    while position + HEADER.size <= len(content):
        if BLOCK - position % BLOCK < HEADER.size:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, position)
        parts += content[position + HEADER.size : position + HEADER.size + length]
        position += HEADER.size + length
        if kind in (1, 4):
            yield parts
            parts = b""


def records(run: RunDirectory) -> list[Any]:
    """Everything that W&B kept of the offline runs of a run directory."""
    files = sorted(run.path.glob("wandb/offline-run-*/*.wandb"))
    return [wandb_internal_pb2.Record.FromString(chunk) for file in files for chunk in chunks(file.read_bytes())]


def starts(found: list[Any]) -> list[Any]:
    """What the run said of itself each time it began."""
    return [record.run for record in found if record.WhichOneof("record_type") == "run"]


def history(found: list[Any]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for record in found:
        for item in record.history.item:
            values.setdefault("/".join(item.nested_key) or item.key, []).append(json.loads(item.value_json))
    return values


def test_an_offline_run_holds_what_metrics_csv_holds(run_train: RunTrain, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    arm = ("intervention=[logit_penalty,label_smoothing]", "intervention.logit_penalty.strength=0.5")
    run_train(NETWORK, *MEASURES, *arm, "logger=wandb", "wandb.tags=[trial]", f"run_dir={run.path}")
    found = records(run)
    started = starts(found)[0]
    assert started.run_id == run.record()["wandb_id"]
    assert started.run_group == "mnist5k-smallnetwork"
    assert (started.job_type, list(started.tags)) == ("train", ["trial"])
    config = {item.key: json.loads(item.value_json) for record in found for item in record.config.update}
    config |= {item.key: json.loads(item.value_json) for item in started.config.update}
    assert "batch_size" in config or any(key.startswith("batch_size") for key in config)
    assert (config["arm"], config["strength"]) == ("logit_penalty+label_smoothing", "0.5+0.1")
    values = history(found)
    for name, last in run.rows()[-1].items():
        if "/" in name and last:
            assert values[name][-1] == pytest.approx(float(last), rel=1e-3, abs=1e-3), name
    assert values["weights/cosine_matrix/_type"] == ["images/separated"] * 2
    assert set(values["trainer/global_step"]) == {4, 9}  # one row an epoch
    assert any(record.WhichOneof("record_type") == "exit" for record in found), "wandb.finish was not called"


def test_the_runs_of_a_sweep_are_one_group_and_a_resumed_one_goes_on(run_train: RunTrain, tmp_path: Path) -> None:
    small = ("callbacks=none", "logger=wandb", "data.train_limit=100", "data.test_limit=20", "seed=4", "batch_size=50")
    run_train(NETWORK, *small, "epochs=1", "sweep=digits", f"runs={tmp_path}")
    (folder,) = (tmp_path / "digits").iterdir()
    run = RunDirectory(folder)
    first = starts(records(run))[0]
    assert (first.run_group, first.display_name) == ("digits", folder.name)
    assert folder.name.startswith("mnist5k-smallnetwork-bs50-seed4")
    run.update_record(status="interrupted", reason="killed")
    run_train(NETWORK, *small, "epochs=1", "sweep=digits", f"runs={tmp_path}")
    found = starts(records(run))
    assert len(found) == 2
    assert {each.run_id for each in found} == {run.record()["wandb_id"]}


def is_service(process: Path) -> bool:
    """Whether that is W&B's own process, started by this one."""
    try:
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        return parent == os.getpid() and "wandb-core" in (process / "cmdline").read_text()
    except OSError:  # it is gone
        return False


class KillService(Callback):
    """Kills W&B's own process after the first epoch, as the system does where memory is short."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 0:
            services = [each for each in Path("/proc").glob("[0-9]*") if is_service(each)]
            assert len(services) == 1
            os.kill(int(services[0].name), signal.SIGKILL)


def test_a_service_that_dies_leaves_the_run_whole(
    run_train: RunTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # or it would use that of the tests
    killing = "+callbacks.kill={_target_: tests.test_wandb.KillService}"
    done = run_train(NETWORK, "callbacks=none", "logger=wandb", killing, f"run_dir={tmp_path / 'run'}")
    run = RunDirectory(tmp_path / "run")
    assert (run.status, len(run.rows())) == ("finished", 2)
    assert "warning: WandbLogger logs no more (Connection lost); the run goes on" in done.stderr
    assert "Traceback" not in done.stderr
    assert "test/accuracy" in done.stdout, "what was measured is shown"
