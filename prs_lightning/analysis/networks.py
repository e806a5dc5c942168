"""The pair of networks A and B with their data, for the figures made from checkpoints."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prs_lightning.analysis.selection import Network, Pair
from prs_lightning.errors import RunError
from prs_lightning.runs import RunDirectory, find_runs
from prs_lightning.runs.naming import differing_keys

if TYPE_CHECKING:  # the checkpoints' paths and the key are asked for without torch
    from prs_lightning.data import Split
    from prs_lightning.models.base import ImageClassifier


@dataclass(frozen=True)
class NetworkPair:
    """Networks A (the larger PRS ratio) and B in eval mode, and the data that they were trained and tested on.

    Attributes:
        name_a, name_b: what to call them in a figure.
        train, test: uint8, with the limits of A's config.
        epsilon, step_size: of A's data config, in pixel units of [0, 1].
        siblings_a, siblings_b: (seed, checkpoint) of the runs that differ in the seed alone, at the same epoch, with
            the network itself.
    """

    a: ImageClassifier
    b: ImageClassifier
    name_a: str
    name_b: str
    prs_ratio_a: float
    prs_ratio_b: float
    data: str
    train: Split
    test: Split
    epsilon: float
    step_size: float
    siblings_a: tuple[tuple[int, Path], ...]
    siblings_b: tuple[tuple[int, Path], ...]


def checkpoint_path(runs: Path, run: str, epoch: int) -> Path | None:
    """The weights of a run after ``epoch``: the grid's, or ``last.ckpt`` if the run ended with that epoch."""
    directory = RunDirectory(runs / run)
    if (kept := directory.checkpoint(epoch)).exists():
        return kept
    if not directory.last_checkpoint.exists():
        return None
    try:
        ended = directory.record().get("status") == "finished" and int(directory.config()["epochs"]) == epoch
    except (KeyError, TypeError, ValueError):
        return None
    return directory.last_checkpoint if ended else None


def pair_key(runs: Path, pair: Pair) -> str:
    """Changes when the pair, or one of its checkpoints, does."""
    digest = hashlib.sha256()
    for network in (pair.a, pair.b):
        path = checkpoint_path(runs, network.run, network.epoch)
        stat = path.stat() if path else None
        digest.update(repr((network, path, stat and (stat.st_size, stat.st_mtime_ns))).encode())
    return digest.hexdigest()[:16]


def load_pair(runs: Path, pair: Pair, data_root: str | Path | None = None) -> NetworkPair:
    """Load both networks and their data, from ``data_root`` or else from where A's config has it.

    Raises:
        RunError: a checkpoint that is absent, damaged, or of another architecture than its run says; data not there.
    """
    configs = [RunDirectory(runs / network.run).config() for network in (pair.a, pair.b)]
    a, b = (_load(runs, network, pair.model) for network in (pair.a, pair.b))
    train, test = _splits(configs[0], data_root or configs[0]["data"]["root"])
    data = configs[0]["data"]
    return NetworkPair(
        a=a, b=b, name_a=_name(pair.a, configs[0]), name_b=_name(pair.b, configs[1]),
        prs_ratio_a=pair.a.prs_ratio, prs_ratio_b=pair.b.prs_ratio,
        data=pair.data, train=train, test=test, epsilon=float(data["epsilon"]), step_size=float(data["step_size"]),
        siblings_a=_siblings(runs, pair.a, configs[0]), siblings_b=_siblings(runs, pair.b, configs[1]),
    )  # fmt: skip


def _load(runs: Path, network: Network, model: str) -> ImageClassifier:
    from prs_lightning.runs.checkpoints import load_network

    path = checkpoint_path(runs, network.run, network.epoch)
    if path is None:
        raise RunError(f"{network} has no checkpoint: name another pair, or train with grid_epochs=[{network.epoch}]")
    try:
        loaded = load_network(path)
    except RuntimeError as error:  # RunError, and torch's own for weights that do not fit
        raise RunError(f"{path} cannot be used: {str(error).splitlines()[0]}") from error
    if type(loaded).__name__.lower() != model:
        raise RunError(f"{path} holds a {type(loaded).__name__}, but its run's config says {model}")
    return loaded


def _splits(config: dict[str, Any], root: str | Path) -> tuple[Split, Split]:
    from prs_lightning.data import Split, balanced_subset, load

    data = config["data"]
    made = []
    for split, limit in zip(load(data["name"], root), (data["train_limit"], data["test_limit"]), strict=True):
        chosen = slice(None) if limit is None else balanced_subset(split.labels, limit)
        made.append(Split(split.images[chosen], split.labels[chosen]))
    return made[0], made[1]


def _name(network: Network, config: dict[str, Any]) -> str:
    return f"batch {config['batch_size']}, seed {config['seed']}, epoch {network.epoch}"


def _siblings(runs: Path, network: Network, config: dict[str, Any]) -> tuple[tuple[int, Path], ...]:
    found = {}
    for run in find_runs(runs):
        try:
            other = run.config()
            alike = all(key.rsplit(".", 1)[-1] == "seed" for key in differing_keys(config, other))
            seed = int(other["seed"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            continue  # a config that cannot be read is listed with the runs already
        path = checkpoint_path(runs, run.path.relative_to(runs).as_posix(), network.epoch) if alike else None
        if path:
            found[seed] = path
    return tuple(sorted(found.items()))
