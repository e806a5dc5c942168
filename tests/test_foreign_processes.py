"""A user's own module on two processes, with ordinary loaders that Lightning shards: the numbers of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from prs_lightning.callbacks.measuring import Measuring
from prs_lightning.measuring_pass import Watched
from tests.foreign import FEATURES, Layers, Module, by_numpy, fitted
from tests.ranks import as_rank, on_two_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning", "ignore:.*does not have many workers.*")


class Normalised(Layers):
    """Batch normalisation whose buffers each process updates by its own share."""

    def __init__(self) -> None:
        super().__init__()
        self.normalisation = nn.BatchNorm1d(FEATURES)
        generator = torch.Generator().manual_seed(4)  # a head that does not call all samples of one class
        for parameter in (self.head.bias, self.head.weight):
            nn.init.normal_(parameter, generator=generator)

    def forward(self, x: Any) -> Any:
        return super().forward(self.normalisation(x))


class Running(Module):
    """Sees its batches, so that the buffers follow them."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch[0]).square().mean()

    def on_train_batch_end(self, *_: Any) -> None:
        self.network.normalisation.running_mean -= 3 * self.global_rank  # so far that its predictions are others


class Kept(pl.Callback):
    """The network that the first process would save."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.state = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}


class Seen(Measuring):
    """The buffers of the network that is handed to attacks, which take no other."""

    def measured(self, trainer: pl.Trainer, pl_module: pl.LightningModule, watched: Watched) -> None:
        self.buffers = {name: buffer.clone() for name, buffer in watched.network.model.named_buffers()}


def fit_shard(rank: int, port: int, folder: str) -> None:
    as_rank(rank, port, warning="ignore")
    from tests.foreign import TEST, TRAIN, all_measures

    found = {"plain": fitted(Module(Layers()), devices=2, strategy="ddp")}
    kept, seen = Kept(), Seen()
    callbacks = [*all_measures(test=TEST), kept, seen]
    found["normalised"] = fitted(
        Running(Normalised(), learning_rate=1e-3),
        callbacks,
        # No validation loop: DDP would give every process the first one's buffers there.
        fit=lambda trainer, module: trainer.fit(module, DataLoader(TRAIN, batch_size=8, shuffle=True)),
        devices=2,
        strategy="ddp",
    )
    torch.save((found, kept.state, seen.buffers), f"{folder}/{rank}.pt")


def test_two_processes_log_what_numpy_gives(tmp_path: Path) -> None:
    (first, state, attacked), (second, other, attacked_there) = on_two_processes(fit_shard, tmp_path)
    assert {name: first["plain"][name] for name in by_numpy(Layers())} == pytest.approx(by_numpy(Layers()), abs=1e-6)
    assert first["normalised"] == second["normalised"]
    means = "network.normalisation.running_mean"
    assert not torch.equal(state[means], other[means]), "nothing shows which buffers were measured"
    assert torch.equal(attacked[means], state[means])
    assert torch.equal(attacked_there[means], state[means])
    network = Module(Normalised())  # whose steps leave the buffers as they are
    network.load_state_dict(state)
    alone = fitted(network)
    for name in [*by_numpy(Layers()), *(name for name in alone if name.startswith("robust/"))]:
        assert first["normalised"][name] == pytest.approx(alone[name], abs=1e-6), name
