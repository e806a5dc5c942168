"""What the command audits: a network with its weights, from a file or a run, and the images that it is attacked on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from prs_lightning.analysis.figures.inference import first_samples
from prs_lightning.analysis.networks import checkpoint_path
from prs_lightning.data import DataChoice, ImageData, Split, load_data, to_unit_range
from prs_lightning.errors import ConfigError, RunError, at_least
from prs_lightning.models import check_network
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.checkpoints import load_network
from prs_lightning.runs.importing import composed_config, parsed, with_weights


@dataclass(frozen=True)
class Subject:
    """A network in eval mode that takes images in [0, 1], and the file that its weights are from."""

    network: nn.Module
    name: str
    weights: Path

    def provenance(self) -> dict[str, str]:
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return {"network": self.name, "weights": str(self.weights), "sha256": digest}


@dataclass(frozen=True)
class TestSet:
    """A test set, uint8, with the radius and the step size of attacks on it, in pixel units."""

    __test__ = False
    name: str
    split: Split
    epsilon: float
    step_size: float

    def images(self, limit: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """At most so many, balanced over the classes where these allow it: in [0, 1], and their labels."""
        at_least("images", limit, 1)
        chosen = first_samples(self.split, limit)
        return to_unit_range(chosen.images[:].to(device)), chosen.labels.to(device)


def checkpoint_of(network: str) -> Path | None:
    """The checkpoint that ``RUN@EPOCH`` or the path of a .ckpt names; None for what names no checkpoint.

    Raises:
        RunError: there is no such run, or it kept no weights of that epoch.
    """
    if network.endswith(".ckpt"):
        return Path(network)
    if not (named := re.fullmatch(r"(.+)@(\d{1,9})", network)):
        return None
    run, epoch = Path(named[1]), int(named[2])
    if not (run / "checkpoints").is_dir():
        raise RunError(f"{network}: {run} is no run directory: expected RUN@EPOCH, as runs/mnist5k-cnn6-bs20-seed0@8")
    if (found := checkpoint_path(run.absolute().parent, run.absolute().name, epoch)) is None:
        kept = ", ".join(sorted(path.name for path in (run / "checkpoints").glob("epoch-*.ckpt"))) or "none"
        raise RunError(f"{network}: the run kept no weights of epoch {epoch} (there are: {kept})")
    return found


def load(
    network: str,
    weights: Path | None,
    data: str | None,
    *,
    arguments: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> tuple[Subject, TestSet]:
    """A network, and the test set that it is audited on.

    Args:
        network: ``package.module:factory``, one of the study's as ``cnn6``, ``RUN@EPOCH``, or a checkpoint of a run.
        weights: a state dict, alone or among other things; None for a checkpoint, which holds them.
        data: an option of the group ``data``; None for a checkpoint: that of its run.
        arguments: ``key=value`` for the factory.
        overrides: keys of the config, as ``data.root=...``.

    Raises:
        ConfigError: a value that cannot work, a network that does not fit the data.
        RunError: weights or data that cannot be read, or do not fit.
    """
    checkpoint = checkpoint_of(network)
    if checkpoint is not None:
        if given := [name for name, value in (("--weights", weights), ("--arguments", arguments)) if value]:
            raise ConfigError(f"{given[0]}: {network} is a checkpoint, which holds its weights: leave it out")
        made = _from_checkpoint(checkpoint)
        if data is None:
            test = _of_run(checkpoint, overrides)
            check_network(made, test.images(2, torch.device("cpu"))[0], classes=_classes(test.split), data=test.name)
        else:
            _, datamodule = _composed(None, data, (), overrides)
            test = _test_set(datamodule)
            check_network(made, datamodule.some_images(), classes=datamodule.facts["classes"], data=test.name)
        return Subject(made.eval(), network, checkpoint), test
    for name, value in (("--weights", weights), ("--data", data)):
        if value is None:
            raise ConfigError(f"{name} is not given: {network} is no checkpoint (RUN@EPOCH, or a file .ckpt)")
    assert weights is not None
    assert data is not None
    if not weights.is_file():
        raise RunError(f"{weights} does not exist: expected a file of torch.save(network.state_dict(), ...)")
    model, datamodule = _composed(network, data, arguments, overrides)
    made = with_weights(model | datamodule.for_network(model), weights, datamodule)
    return Subject(made.eval(), network, weights), _test_set(datamodule)


def _composed(
    network: str | None, data: str, arguments: Sequence[str], overrides: Sequence[str]
) -> tuple[dict[str, Any], ImageData]:
    """The config ``model`` of a network, and the data, prepared."""
    with composed_config(network, data, arguments=arguments, overrides=overrides) as (composed, _):
        config: Any = OmegaConf.to_container(composed, resolve=True)
    values = {key: value for key, value in config["data"].items() if key != "_target_"}
    datamodule = ImageData(**values)
    datamodule.prepare_data()
    return config["model"], datamodule


def _test_set(data: ImageData) -> TestSet:
    assert data.prepared is not None
    return TestSet(data.data_name, data.prepared.test, data.epsilon, data.step_size)


def _from_checkpoint(path: Path) -> Any:
    try:
        return load_network(path)
    except RunError:
        raise
    except RuntimeError as error:  # torch's own for weights that do not fit
        raise RunError(f"{path} cannot be used: {str(error).splitlines()[0]}") from error


def _of_run(checkpoint: Path, overrides: Sequence[str]) -> TestSet:
    """The test set of the run that a checkpoint lies in."""
    run = RunDirectory(checkpoint.absolute().parent.parent)
    config: Mapping[str, Any] = run.config().get("data") or {}
    if not {"epsilon", "step_size"} <= config.keys():
        raise ConfigError(f"--data is not given, and {run.config_file} tells no data: name the data set")
    changes = parsed(overrides, "--overrides")
    if wrong := [key for key in changes if not key.startswith("data.")]:
        raise ConfigError(f"--overrides {wrong[0]}=...: a checkpoint has its network: expected a key of data")
    config = {**config, **{key.removeprefix("data."): value for key, value in changes.items()}}
    choice = DataChoice.of(config)
    return TestSet(choice.called, load_data(choice).test, float(config["epsilon"]), float(config["step_size"]))


def _classes(split: Split) -> int:
    return int(split.labels.max()) + 1
