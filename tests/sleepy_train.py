"""train.py without a network: the same command line, run directory and resume, with epochs that sleep.

The tests of the sweep's machinery start it dozens of times; importing torch each time would take minutes.
``data.train_limit`` says what happens: 666 fails at the second epoch, 667 kills its own process there, 668 fails before
there is a record, 669 meets a signal then, 670 is refused then.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from prs_lightning.signals import stand

if __name__ == "__main__":
    stand()

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from prs_lightning.errors import ConfigError
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.naming import place
from prs_lightning.sweep import cli

FAILING, DYING, BROKEN, SIGNALLED, REFUSED = 666, 667, 668, 669, 670


def train(cfg: DictConfig) -> None:
    """Write a row per epoch that follows from the seed; a resumed run goes on after its last row."""
    seconds = float(os.environ.get("SLEEPY_SECONDS", "0.05"))
    path, config = place(cfg, HydraConfig.get())
    run = RunDirectory(path)
    if cfg.data.train_limit == BROKEN:
        raise InstantiationException("Error in call to target 'Trainer':\nValueError('no room')\nfull_key: trainer")
    if cfg.data.train_limit == SIGNALLED:
        os.kill(os.getpid(), signal.SIGUSR1)
    if cfg.data.train_limit == REFUSED:
        raise ConfigError("nothing is at hand")
    with run.recording(config, seed=cfg.seed), (run.path / "trained.txt").open("a") as trained:
        (run.path / "gpus.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
        rows: list[dict[str, Any]] = [dict(row) for row in run.rows()]
        for epoch in range(len(rows) + 1, cfg.epochs + 1):
            time.sleep(seconds)
            if epoch == 2 and cfg.data.train_limit == FAILING:
                raise ValueError("this one [/always] fails")
            if epoch == 2 and cfg.data.train_limit == DYING:
                os.kill(os.getpid(), signal.SIGKILL)
            rows.append({"epoch": epoch, "test/accuracy": cfg.seed + epoch, "time/train_s": time.time()})
            run.write_rows(rows)
            trained.write(f"{epoch}\n")
            trained.flush()


if __name__ == "__main__":
    cli.run(train, "train")
