"""The one pass that all measures share: the training set, then the test set, through the network as it is now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from prs_lightning.data.sources import SETS, Source
from prs_lightning.errors import ConfigError, RunError, in_one_line
from prs_lightning.network import MeasuredNetwork, for_network, refuse_probabilities
from prs_lightning.regions.layers import Tap, tapping
from prs_lightning.regions.tracing import Ends, Relus, find_ends

Advance = Callable[[int], None]
Bar = Callable[[str, int], AbstractContextManager[Advance]]
"""Called with a title and a number of samples; gives what is told of samples that are done."""


@dataclass(frozen=True)
class Watched:
    """What is measured.

    ``network`` in eval mode, on ``device``; ``train`` and ``test``, the sets that it is measured on, ``test`` None
    where there is none; ``classes``, how many logits it gives; ``probe``, a few inputs to run it on.
    """

    network: MeasuredNetwork
    train: Source
    test: Source | None
    device: torch.device
    classes: int
    probe: Tensor

    def __str__(self) -> str:
        text = f"measures: {len(self.train)} training samples"
        text += ", no test set" if self.test is None else f", {len(self.test)} test samples"
        if "ends" in vars(self):  # somebody asked for them
            text += f"; penultimate pre-activations: {self.ends.penultimate}, final layer: {self.ends.final}"
        return text

    @cached_property
    def ends(self) -> Ends:
        """The final linear layer, and where the penultimate pre-activations are read."""
        return find_ends(self.network, self.probe)


@dataclass(frozen=True)
class Batch:
    """Samples of ``split``, ``"train"`` or ``"test"``, with their ``labels``, int64 (n,)."""

    split: str
    labels: Tensor


class Observer:
    """What looks on at a measuring pass: each method does nothing unless a measure needs it."""

    def start(self, watched: Watched) -> Sequence[Tap]:
        """Forget the pass before; returns the taps whose tensors are to be shown."""
        return ()

    def see_tap(self, tap: Tap, tensor: Tensor, batch: Batch) -> None:
        """The tensor at one of its taps."""

    def see_relu(self, place: int, output: Tensor, batch: Batch) -> None:
        """The output of the ReLU that runs as number ``place`` of a forward pass."""

    def see_logits(self, logits: Tensor, batch: Batch) -> None:
        """Logits (n, classes) of a batch."""


def look_at(network: MeasuredNetwork, train: Source, test: Source | None, device: torch.device) -> Watched:
    """What can be seen of a network and its data before the pass, in the state of `as_measured`.

    Raises:
        ConfigError: a network that gives no logits, or probabilities.
    """
    inputs, _ = train.gather(torch.arange(min(8, len(train))))
    probe = for_network(inputs, device)
    try:
        logits = network(probe.clone())
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        if isinstance(error, ConfigError | RunError):
            raise
        kind, shape = str(probe.dtype).removeprefix("torch."), tuple(inputs.shape)
        raise ConfigError(
            f"{type(network.model).__name__}.forward cannot take training inputs as they are, {shape} in {kind} "
            f"({in_one_line(error)}): expected forward(inputs), with what a step does to them inside"
        ) from error
    refuse_not_finite(logits.isfinite().all(), "train")
    refuse_probabilities(logits)
    return Watched(network, train, test, device, logits.shape[1], probe[:2])


def try_out(watched: Watched, observers: Sequence[Observer]) -> None:
    """Start the observers, and run the network once on a few inputs, so that layers are refused before training."""
    taps = [tap for observer in observers for tap in observer.start(watched)]
    runs = dict.fromkeys(taps, 0)

    def count(tap: Tap, tensor: Tensor) -> None:
        runs[tap] += 1

    with tapping(watched.network.model, list(runs), count):
        watched.network(watched.probe.clone())
    refuse_repeated(runs)


def refuse_repeated(runs: Mapping[Tap, int]) -> None:
    """Raise ConfigError for a layer that did not run once in a forward pass."""
    for tap, count in runs.items():
        if count != 1:
            raise ConfigError(f"layer {tap} ran {count} times in a forward pass: expected once")


def measuring_pass(watched: Watched, observers: Sequence[Observer], *, rank: int, world: int, bar: Bar) -> None:
    """Show this process's share of every sample to the observers, in the state of `as_measured`.

    Raises:
        ConfigError: a layer that does not run once in each forward pass, or labels beyond the network's classes.
    """
    wanted: dict[Tap, list[Observer]] = {}
    for observer in observers:
        for tap in observer.start(watched):
            wanted.setdefault(tap, []).append(observer)
    runs, relus = dict.fromkeys(wanted, 0), 0
    batch = Batch("train", torch.empty(0))

    def at_tap(tap: Tap, tensor: Tensor) -> None:
        runs[tap] += 1
        for observer in wanted[tap]:
            observer.see_tap(tap, tensor, batch)

    def at_relu(output: Tensor) -> None:
        nonlocal relus
        for observer in observers:
            observer.see_relu(relus, output, batch)
        relus += 1

    sees_relus = any(type(observer).see_relu is not Observer.see_relu for observer in observers)
    with tapping(watched.network.model, list(wanted), at_tap):
        for split, source in (("train", watched.train), ("test", watched.test)):
            if source is None:
                continue
            finite = torch.ones((), dtype=torch.bool, device=watched.device)
            with bar(f"measuring the {SETS[split]} set", len(range(rank, len(source), world))) as advance:
                for inputs, labels in source.batches(rank=rank, world=world):
                    if not len(labels):
                        continue
                    refuse_labels(labels, watched.classes, split)
                    batch = Batch(split, labels.to(watched.device))
                    runs, relus = dict.fromkeys(wanted, 0), 0
                    inputs = for_network(inputs, watched.device)
                    with Relus(at_relu) if sees_relus else nullcontext():
                        logits = watched.network(inputs)
                    refuse_repeated(runs)
                    for observer in observers:
                        observer.see_logits(logits, batch)
                    finite &= logits.isfinite().all()  # kept on the device: asking the host each time would stall a GPU
                    advance(len(labels))
            refuse_not_finite(finite, split)


def refuse_labels(labels: Tensor, classes: int, split: str) -> None:
    """Raise ConfigError for labels without an output; on an accelerator, where asking stalls it, nothing is asked."""
    if labels.device.type == "cpu" and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise ConfigError(
            f"label {wrong} of the {SETS[split]} set: the network has {classes} outputs, 0 to {classes - 1}"
        )


def refuse_not_finite(finite: Tensor, split: str) -> None:
    """Raise RunError unless ``finite``: whether all logits of a set are."""
    if not bool(finite):
        raise RunError(f"the network returned NaN or infinite logits for the {SETS[split]} set: expected finite ones")
