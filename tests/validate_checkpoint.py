"""Measure one checkpoint with every callback on 1 or 2 processes: validate_checkpoint.py CHECKPOINT DEVICES OUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer

sys.path.insert(0, str(Path(__file__).parent.parent))

from prs_lightning.runs.checkpoints import read_checkpoint
from prs_lightning.sweep.cli import CONFIG_FOLDER
from tests.networks import SmallNetwork


def main(path: str, devices: str, out: str) -> None:
    overrides = [
        "data=mnist5k", "data.train_limit=103", "data.test_limit=41", "data.measuring_batch_size=16", "batch_size=2",
        "callbacks.robustness.steps=4", "data.step_size=0.01", "callbacks.progress=null", "data.epsilon=0.02",
        "callbacks.local_complexity.grid_epochs=[4]", "callbacks.local_complexity.samples=31",
        "callbacks.local_complexity.radius=1", "callbacks.robustness.gradient_noise=21",
    ]  # fmt: skip
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        cfg = hydra.compose("train", overrides)
    torch.set_num_threads(1)
    checkpoint = read_checkpoint(path)
    network = SmallNetwork(**checkpoint["hyper_parameters"])
    network.load_state_dict(checkpoint["state_dict"])
    network.loaded_epoch = checkpoint["epoch"]
    trainer = Trainer(
        accelerator="cpu", devices=int(devices), strategy="ddp" if devices != "1" else "auto", logger=False,
        callbacks=[instantiate(each) for name, each in cfg.callbacks.items() if each and name != "records"],
        enable_progress_bar=False, inference_mode=False, default_root_dir=str(Path(out).parent),
    )  # fmt: skip
    trainer.validate(network, instantiate(cfg.data), verbose=False)
    if trainer.is_global_zero:
        measures = {name: value.item() for name, value in trainer.callback_metrics.items()}
        Path(out).write_text(json.dumps({"world": trainer.world_size, "measures": measures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
