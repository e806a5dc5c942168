"""Interventions on two processes: patterns of the whole batch, gradients that agree, the weights of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from prs_lightning.callbacks import (
    Adversarial,
    LabelSmoothing,
    LogitPenalty,
    LowPRS,
    Published,
    WeightDecay,
    WeightNorm,
)
from tests.intervened import Own, fitted, planted
from tests.ranks import as_rank, on_two_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")


class Gradients(pl.Callback):
    """Those of the last step, as the optimizer meets them; one that is not there counts as NaN."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        missing = torch.full((1,), torch.nan, device=pl_module.device)
        gradients = [missing if each.grad is None else each.grad for each in pl_module.parameters()]
        self.last = torch.cat([gradient.flatten() for gradient in gradients])


def slow(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """Steps so small that no rounding turns a sign."""
    return torch.optim.Adam(parameters, lr=lr / 100)


def trained(**options: Any) -> dict[str, Any]:
    """What three epochs of three steps leave, with all interventions in the last."""
    low, published, gradients = LowPRS(warmup=1), Published(warmup=2), Gradients()
    adversarial = Adversarial(epsilon=0.1, steps=2, warmup=2, random_start=False)  # starts differ between processes
    others = LabelSmoothing(), LogitPenalty(strength=0.1), WeightDecay(), WeightNorm()
    module = fitted(Own(slow), [low, published, adversarial, *others, gradients], **options)
    return {
        "weights": module.state_dict(),
        "states": [each.state_dict() for each in (low, published)],
        "gradients": gradients.last,
    }


def train_shard(rank: int, port: int, folder: str) -> None:
    as_rank(rank, port, warning="ignore")
    own = [each[rank::2] for each in planted()]  # Lightning's own sampler would shuffle
    found = trained(data=own, batch_size=8, devices=2, strategy="ddp", use_distributed_sampler=False)
    torch.save(found, f"{folder}/{rank}.pt")


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    first, second = on_two_processes(train_shard, tmp_path)
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    assert first["gradients"].isnan().sum() == 2, "of the final layer alone, which is frozen"
    alone = trained()
    torch.testing.assert_close(first, alone, rtol=1e-3, atol=1e-5, equal_nan=True)
    counted = [each["states"][0]["counts"][:, :-1] for each in (first, alone)]
    assert torch.equal(*counted)
