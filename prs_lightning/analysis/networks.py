"""The pair of networks A and B with their data, for the figures made from checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prs_lightning.analysis.selection import Network, Pair
from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, find_runs
from prs_lightning.runs.data_files import refuse_other_files
from prs_lightning.runs.naming import architecture, differing_keys

if TYPE_CHECKING:  # the checkpoints' paths and the key are asked for without torch
    from torch import nn

    from prs_lightning.data import Split


@dataclass(frozen=True)
class Named:
    """One of the two networks, in eval mode, and how to show it.

    Attributes:
        letter: A or B.
        words: tell them apart in a legend.
        siblings: (seed, checkpoint) of the runs that differ in the seed alone, at the same epoch, with itself.
        seed: its own; None if it is not known.
    """

    letter: str
    network: nn.Module
    words: str
    siblings: tuple[tuple[int, Path], ...] = ()
    seed: int | None = None

    def over_seeds(self) -> Iterator[tuple[int, nn.Module]]:
        """(seed, network) of itself and its siblings, in the order of the seeds, each loaded when its turn comes; 0
        stands for a seed that is not known."""
        from prs_lightning.network import device_of
        from prs_lightning.runs.checkpoints import load_network

        device, own = device_of(self.network), self.seed or 0
        others = {seed: path for seed, path in self.siblings if seed != own and len(self.siblings) > 1}
        for seed in sorted({own, *others}):
            yield seed, load_network(others[seed]).to(device) if seed in others else self.network


@dataclass(frozen=True)
class NetworkPair:
    """Networks A (the larger PRS ratio) and B, and the data that they were trained and tested on.

    Attributes:
        train, test: uint8, with the limits of A's config.
        epsilon, step_size: of A's data config, in pixel units of [0, 1].
    """

    a: Named
    b: Named
    train: Split
    test: Split
    epsilon: float
    step_size: float

    @property
    def both(self) -> tuple[Named, Named]:
        return self.a, self.b

    @property
    def words(self) -> str:
        return f"{self.a.words}; {self.b.words}"


def checkpoint_path(runs: Path, run: str, epoch: int) -> Path | None:
    """The weights of a run after ``epoch``: the grid's, or ``last.ckpt`` if the run ended with that epoch."""
    directory = RunDirectory(runs / run)
    if (kept := directory.checkpoint(epoch)).exists():
        return kept
    last = directory.last_checkpoint
    with suppress(RunError, KeyError, TypeError, ValueError):  # a record or config that is damaged does not say so
        if last.exists() and directory.record()["status"] == "finished" and int(directory.config()["epochs"]) == epoch:
            return last
    return None


def available(runs: Path) -> Callable[[str, int], bool]:
    """Tells of (run, epoch) whether its weights are there."""
    has_weights = cache(lambda run: any((runs / run / "checkpoints").glob("*.ckpt")))
    return lambda run, epoch: has_weights(run) and checkpoint_path(runs, run, epoch) is not None


def pair_key(runs: Path, pair: Pair) -> str:
    """Changes when the pair, or one of its checkpoints, does."""
    paths = [checkpoint_path(runs, network.run, network.epoch) for network in pair]
    return repr((pair, [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path]))


def load_pair(runs: Path, pair: Pair, data_root: str | Path | None = None) -> NetworkPair:
    """Load both networks and their data, from ``data_root`` or else from where A's config has it.

    Raises:
        RunError: a checkpoint that is absent, damaged, or of another architecture than its run says; data not there.
    """
    from prs_lightning.data import DataChoice, load_data

    configs = [RunDirectory(runs / network.run).config() for network in pair]
    a, b = (
        Named(
            letter, loaded(runs, network, config),
            f"{letter}: batch {_known(config['batch_size'])}, seed {_known(config['seed'])}, epoch {network.epoch}, "
            f"PRS ratio {network.prs_ratio:.3g}",
            _siblings(runs, network, config),
            None if config["seed"] is None else int(config["seed"]),
        )
        for letter, network, config in zip("AB", pair, configs, strict=True)
    )  # fmt: skip
    data = configs[0]["data"] | ({"root": str(data_root)} if data_root else {})
    refuse_other_files(RunDirectory(runs / pair[0].run).record(), data)
    train, test, *_ = load_data(DataChoice.of(data))
    return NetworkPair(a, b, train, test, float(data["epsilon"]), float(data["step_size"]))


def _known(value: object) -> object:
    return "unknown" if value is None else value  # of a network that was trained elsewhere


def loaded(runs: Path, network: Network, config: Mapping[str, Any]) -> nn.Module:
    """The network of a run, in eval mode on the CPU.

    Raises:
        RunError: a checkpoint that is absent, damaged, or of another architecture than the config.
    """
    from prs_lightning.runs.checkpoints import load_network

    path = checkpoint_path(runs, network.run, network.epoch)
    if path is None:
        raise RunError(f"{network} has no checkpoint: name another pair, or train with grid_epochs=[{network.epoch}]")
    try:
        return load_network(path, architecture(config["model"]))
    except RuntimeError as error:  # RunError, and torch's own for weights that do not fit
        raise RunError(f"{path} cannot be used: {str(error).splitlines()[0]}") from error


def _siblings(runs: Path, network: Network, config: dict[str, Any]) -> tuple[tuple[int, Path], ...]:
    found = {}
    for run in find_runs(runs):
        try:
            other = run.config()
            alike = all(key.rsplit(".", 1)[-1] == "seed" for key in differing_keys(config, other))
            seed = int(other["seed"])
        except (RunError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a config that cannot be read is listed with the runs already
        if alike and (path := checkpoint_path(runs, run.path.relative_to(runs).as_posix(), network.epoch)):
            found[seed] = path
    return tuple(sorted(found.items()))
