"""The attacks of another checkout, in a process that loads its networks once and then answers a case at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

# Runs in the other checkout: nothing but the oldest public names.
ANSWER = """
import json, sys, time
from functools import partial
import torch
from prs_lightning import models
from prs_lightning.attacks import pgd, robust_accuracy
from prs_lightning.memory import keep_freed_memory
from tests.attacked import Scaled
keep_freed_memory()
kept = torch.load(sys.argv[1], weights_only=True)
print("ready", flush=True)
for line in sys.stdin:
    case = json.loads(line)
    network = getattr(models, case["network"])(**kept[case["network"]]["arguments"]).eval()
    network.load_state_dict(kept[case["network"]]["weights"])
    if case["scale"] != 1:
        network = Scaled(network, case["scale"]).eval()
    images, labels = (kept[name][:: case["every"]] for name in ("images", "labels"))
    start = time.perf_counter()
    accuracy = robust_accuracy(network, images, labels, partial(pgd, **case["options"]))
    print(json.dumps([time.perf_counter() - start, accuracy]), flush=True)
"""


class Before:
    """``Before(checkout, kept)(case)`` gives the seconds and the robust accuracy of that checkout's attack.

    ``kept`` holds the images, the labels and, by class name, each network's arguments and weights.
    """

    def __init__(self, checkout: Path, kept: dict[str, Any], file: Path) -> None:
        torch.save(kept, file)
        self.process = subprocess.Popen(
            [sys.executable, "-c", ANSWER, str(file)], cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self._read()

    def __call__(self, case: dict[str, Any]) -> tuple[float, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(case) + "\n")
        seconds, accuracy = json.loads(self._read())
        return seconds, accuracy

    def _read(self) -> str:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise RuntimeError("the other checkout's process has ended: its message stands above")
        return line
