"""Checkpoints (docs/architecture.md, law 6): plain values only, refused when damaged or foreign, or the one before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prs_lightning.errors import RunError
from prs_lightning.models import CNN6
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.checkpoints import AtomicCheckpointIO, checkpoint_to_resume, load_network, read_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    return run


def checkpoint(epoch: int) -> dict:
    return {"state_dict": {"weight": torch.full((1000,), epoch)}, "epoch": epoch}


def writing(architecture: str = "CNN6") -> AtomicCheckpointIO:
    return AtomicCheckpointIO({"_target_": f"prs_lightning.models.{architecture}"})


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_truncated_checkpoint_gives_way_to_the_one_before_it(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    io = writing()
    io.save_checkpoint(checkpoint(1), run.previous_checkpoint)
    io.save_checkpoint(checkpoint(2), run.last_checkpoint)
    assert io.load_checkpoint(run.last_checkpoint)["epoch"] == 2
    damage(run.last_checkpoint)
    assert io.load_checkpoint(run.last_checkpoint)["epoch"] == 1
    assert f"warning: {run.last_checkpoint} is damaged" in capsys.readouterr().err


def test_without_an_earlier_one_the_damaged_file_is_named(run: RunDirectory) -> None:
    io = writing()
    io.save_checkpoint(checkpoint(1), run.last_checkpoint)
    damage(run.last_checkpoint)
    with pytest.raises(RunError, match=r"last.ckpt is damaged .*restore it, or move .* away to train anew"):
        io.load_checkpoint(run.last_checkpoint)


def test_a_checkpoint_of_another_network_is_refused(run: RunDirectory) -> None:
    writing("VGG16").save_checkpoint(checkpoint(1), run.last_checkpoint)
    with pytest.raises(RunError, match=r"last.ckpt holds a VGG16, expected a CNN6"):
        writing().load_checkpoint(run.last_checkpoint)


def test_a_file_that_would_run_code_is_refused(run: RunDirectory) -> None:
    torch.save({"architecture": "CNN6", "state_dict": print}, run.last_checkpoint)
    with pytest.raises(RunError, match="damaged or no checkpoint"):
        read_checkpoint(run.last_checkpoint)


def test_a_foreign_file_is_refused(run: RunDirectory) -> None:
    torch.save({"weights": torch.zeros(3)}, run.last_checkpoint)
    with pytest.raises(RunError, match="names no architecture"):
        read_checkpoint(run.last_checkpoint)
    with pytest.raises(RunError, match="does not exist"):
        read_checkpoint(run.checkpoint(50))


def test_between_the_two_renames_of_a_save_the_previous_one_is_found(run: RunDirectory) -> None:
    assert checkpoint_to_resume(run) is None
    run.previous_checkpoint.write_bytes(b"")
    assert checkpoint_to_resume(run) == run.previous_checkpoint
    run.last_checkpoint.write_bytes(b"")
    assert checkpoint_to_resume(run) == run.last_checkpoint


def test_a_network_comes_back_with_its_weights(run: RunDirectory, trained_network: CNN6) -> None:
    saved = {
        "architecture": "CNN6",
        "state_dict": trained_network.state_dict(),
        "hyper_parameters": dict(trained_network.hparams),
    }
    torch.save(saved, run.checkpoint(1))
    loaded = load_network(run.checkpoint(1))
    images = torch.rand(4, 1, 32, 32)
    assert torch.equal(loaded(images), trained_network(images))
    assert not loaded.training
