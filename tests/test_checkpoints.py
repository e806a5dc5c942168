"""Checkpoints (docs/architecture.md, law 6): plain values only, refused when damaged or foreign, or the one before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prs_lightning.errors import RunError
from prs_lightning.models import CNN6
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.checkpoints import (
    AtomicCheckpointIO,
    checkpoint_to_resume,
    load_network,
    load_plain,
    read_checkpoint,
)


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


def test_of_an_absent_checkpoint_no_folder_is_to_be_moved_or_deleted(tmp_path: Path) -> None:
    for path in (Path("last.ckpt"), tmp_path / "weights" / "any.ckpt"):
        with pytest.raises(RunError) as caught:
            writing().load_checkpoint(path)
        assert str(caught.value) == f"{path} does not exist: expected a checkpoint"


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


def same(one: Any, other: Any) -> bool:
    """Whether two contents are the same to the last bit, kinds and shapes included."""
    if isinstance(one, torch.Tensor):
        alike = isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.shape == other.shape
        return alike and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def small() -> dict[str, Any]:
    """The content of a checkpoint, of 2 kB."""
    return {"architecture": "Linear", "state_dict": nn.Linear(6, 3).state_dict(), "epoch": 3, "zeros": torch.zeros(64)}


def changed(content: bytes) -> Iterator[bytes]:
    """The content with one bit flipped, of all those that tell of its last part and of some others; or with a block."""
    chance, entry = random.Random(0), 8 * content.rindex(b"PK\1\2")
    bits = [*range(entry, entry + 8 * 46), *(chance.randrange(8 * len(content)) for _ in range(1200))]
    for bit in bits:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)
    for _ in range(400):
        start, size = chance.randrange(len(content)), chance.choice([1, 16, 512, 4096])
        block = content[start : start + size]
        yield content[:start] + chance.choice([bytes(len(block)), b"P" * len(block), b""]) + content[start + size :]


@pytest.mark.filterwarnings("ignore")  # zipfile's, of names that come twice
def test_what_is_accepted_of_a_changed_checkpoint_is_what_was_written(tmp_path: Path) -> None:
    path, written, accepted = tmp_path / "any.ckpt", small(), []
    torch.save(written, path)
    for content in changed(path.read_bytes()):
        path.write_bytes(content)
        with suppress(RunError):
            accepted.append(load_plain(path))
    assert all(same(each, written) for each in accepted)
    assert 300 < len(accepted) < 1200, "what is not read may be anything; the rest is refused"


def test_files_of_before_archives_are_read_as_ever(tmp_path: Path) -> None:
    torch.save(small()["state_dict"], tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load_plain(tmp_path / "old.pt").keys() == {"weight", "bias"}


def started(path: Path, **config: object) -> RunDirectory:
    run = RunDirectory(path)
    with run.recording(config):
        AtomicCheckpointIO({"_target_": "prs_lightning.models.CNN6"}, run).save_checkpoint(
            checkpoint(1), run.checkpoint(1)
        )
    return run


def test_a_checkpoint_of_another_run_is_none_of_this_one(tmp_path: Path) -> None:
    ours, theirs = started(tmp_path / "ours", seed=0), started(tmp_path / "theirs", seed=0)
    assert read_checkpoint(ours.checkpoint(1))["run"]["wandb_id"] == ours.identity
    ours.checkpoint(1).unlink()
    ours.checkpoint(1).symlink_to(theirs.checkpoint(1))
    with pytest.raises(RunError, match=r"ours/checkpoints/epoch-001.ckpt is a checkpoint of another run"):
        load_network(ours.checkpoint(1))
    assert read_checkpoint(theirs.checkpoint(1))["epoch"] == 1
    moved = tmp_path / "kept.ckpt"
    moved.write_bytes(theirs.checkpoint(1).read_bytes())
    assert read_checkpoint(moved)["epoch"] == 1, "a file outside of a run directory is whose it says"


def test_a_checkpoint_of_another_config_is_none_of_this_run(tmp_path: Path) -> None:
    run = started(tmp_path, seed=0)
    run.config_file.write_text("seed: 0\nruns: moved\n")
    assert read_checkpoint(run.checkpoint(1))["epoch"] == 1, "where it lies does not matter"
    run.config_file.write_text("seed: 1\n")
    with pytest.raises(RunError, match="was trained with another config than .*config.yaml has"):
        read_checkpoint(run.checkpoint(1))


def test_without_checkpoints_a_run_of_more_than_an_epoch_is_not_begun_anew(run: RunDirectory) -> None:
    run.write_rows([{"epoch": 1}])
    assert checkpoint_to_resume(run) is None, "killed before the first checkpoint"
    run.write_rows([{"epoch": 1}, {"epoch": 2}])
    with pytest.raises(RunError, match=r"are gone, but 2 epochs were trained: restore one of them"):
        checkpoint_to_resume(run)
    run.write_rows([])
    run.checkpoint(50).touch()
    with pytest.raises(RunError, match="50 epochs were trained"):
        checkpoint_to_resume(run)
