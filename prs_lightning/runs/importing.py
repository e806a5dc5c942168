"""A network that was trained elsewhere as a run directory: its weights, and one row of all measures."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from lightning.pytorch import LightningModule
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from prs_lightning.bars import quiet_lightning
from prs_lightning.data import ImageData
from prs_lightning.errors import ConfigError, RunError, at_least
from prs_lightning.measuring import shortest
from prs_lightning.models import Wrapped, check_network, network_of
from prs_lightning.runs import RunDirectory, Status, options
from prs_lightning.runs.checkpoints import AtomicCheckpointIO, load_plain
from prs_lightning.runs.data_files import files_digest
from prs_lightning.runs.naming import CONFIG_FOLDER, model_name, place
from prs_lightning.runs.wording import one_line
from prs_lightning.schema import check_samples, check_training

CONTAINERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
"""Under which of these names a file may keep the state dict among other things."""
OVERRIDES = ("data", "model", "callbacks", "trainer", "grid_attacks")
"""What of the config an imported network has."""
INSTEAD = {
    "epochs": "give --epoch", "grid_epochs": "give --epoch", "batch_size": "give --batch-size", "seed": "give --seed",
    "runs": "give --into", "run_dir": "give --into and --name", "sweep": "give --into",
}  # fmt: skip
MODEL = "cnn6"
"""The option from which the config of a foreign one starts: keys of every network, and usual widths."""


def import_network(
    weights: Path,
    *,
    network: str,
    data: str,
    epoch: int,
    into: Path,
    name: str | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    arguments: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> RunDirectory:
    """Make a run directory of a state dict: config, record, checkpoint, and a row of measures at ``epoch``.

    Args:
        weights: a file of ``torch.save``: the state dict, alone or among other things under a usual name.
        network: ``package.module:factory``, as ``model._target_`` names it, or one of the study's, as ``cnn6``.
        data: an option of the group ``data``.
        into: folder of the run.
        name: of the run; None: from data, network and file.
        batch_size, seed: that it was trained with; None: not known.
        arguments: ``key=value`` for the factory.
        overrides: any others of train.py, for example ``data.train_limit=1000``.

    Raises:
        ConfigError: a value that cannot work, a network that does not fit the data.
        RunError: the run is there already; weights that cannot be read or do not fit.
    """
    quiet_lightning()
    at_least("epoch", epoch, 1)
    if not weights.is_file():
        raise RunError(f"{weights} does not exist: expected a file of torch.save(network.state_dict(), ...)")
    given = {"epochs": epoch, "grid_epochs": [epoch], "batch_size": batch_size or 1, "seed": seed or 0}
    with composed_config(network, data, arguments=arguments, overrides=overrides, given=given) as (composed, of_hydra):
        _, config = place(composed, of_hydra)
    run = RunDirectory(into / (name or f"{config['data']['name']}-{model_name(config)}-{weights.stem}"))
    if outer := next((each for each in run.path.absolute().parents if (each / "run.json").exists()), None):
        raise RunError(f"{outer} is a run itself, and no folder of runs: choose another --into or --name")
    if run.status not in (None, Status.FAILED):
        raise RunError(f"{run.path} holds a run that is {run.status}: choose another --name or --into")
    datamodule = options.made("data", composed.data, name=config["data"]["name"])
    facts = datamodule.found(files=files_digest(config["data"]))
    check_samples(config, train=facts["train"], test=facts["test"])
    datamodule.check_test_limit((config["callbacks"].get("robustness") or {}).get("limit"))
    model = config["model"] | datamodule.for_network(config["model"])
    made = with_weights(model, weights, datamodule)
    made.loaded_epoch = epoch - 1  # type: ignore[assignment]
    source = {"file": str(weights.absolute()), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    unknown = {"run_dir": str(run.path), "batch_size": batch_size, "seed": seed}
    config = config | unknown | {"data": config["data"] | {"batch_size": batch_size}}
    with run.recording(config, seed=seed, imported=True, source=source, data=facts):
        measures = measured(composed, made, datamodule, run.path)
        run.write_rows([{"epoch": epoch, "step": ""} | measures])
        content = {"state_dict": made.state_dict(), "epoch": epoch - 1, "hyper_parameters": dict(made.hparams)}
        AtomicCheckpointIO(model, run).save_checkpoint(content, run.checkpoint(epoch))
    return run


@contextmanager
def composed_config(
    network: str | None,
    data: str,
    *,
    arguments: Sequence[str] = (),
    overrides: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
) -> Iterator[tuple[DictConfig, HydraConf]]:
    """The config of train.py for a network that was trained elsewhere, and Hydra's part of it, while Hydra runs.

    Args:
        network: ``package.module:factory``, or an option of the group ``model``, as ``cnn6``; None: any, of no use.
        data, arguments, overrides: as for `import_network`.
        given: more keys with their values.

    Raises:
        ConfigError: a value that cannot work.
    """
    foreign = network is not None and (":" in network or "." in network)
    values = {"model._target_": str(network).replace(":", ".")} if foreign else {}
    values |= {f"model.{key}": value for key, value in parsed(arguments).items()}
    with _in_our_words(), hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        chosen = [
            f"model={MODEL if foreign or network is None else network}",
            f"data={data}",
            "logger=none",
            *_read(overrides),
        ]
        whole = hydra.compose("train", chosen, return_hydra_config=True)
        composed = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        for key, value in {**(given or {}), **values}.items():
            OmegaConf.update(composed, key, value, force_add=True)
        plain: Any = OmegaConf.to_container(composed, resolve=True)
        check_training(plain)
        yield composed, whole.hydra


def with_weights(model: Mapping[str, Any], weights: Path, data: ImageData) -> LightningModule:
    """The network of a config ``model`` with the state dict in a file, once the data are prepared.

    Raises:
        ConfigError: a network that does not fit the data.
        RunError: weights that cannot be read or do not fit.
    """
    made = network_of(model)
    inner = made.network if isinstance(made, Wrapped) else made
    inner.load_state_dict(fitting(read_weights(weights), inner, weights))
    check_network(made, data.some_images(), classes=data.facts["classes"], data=data.data_name)
    return made


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Errors about what was typed as ConfigError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ConfigError | RunError) or (line := one_line(error, "train")) is None:
            raise
        raise ConfigError(line) from error


def _read(overrides: Sequence[str]) -> Sequence[str]:
    """The overrides, if each is of something that an imported network has.

    Raises:
        ConfigError: one that another argument stands for, or that would be ignored.
    """
    for text in overrides:
        part = re.split(r"[.=]", text.lstrip("+~"))[0]
        if part not in OVERRIDES or "=" not in text.lstrip("~"):
            where = INSTEAD.get(part, f"expected a key of {', '.join(OVERRIDES)}, as trainer.accelerator=cpu")
            raise ConfigError(f"--overrides {text}: {where}")
    return overrides


def parsed(arguments: Sequence[str], option: str = "--arguments") -> dict[str, Any]:
    """``key=value`` as Hydra reads it: numbers, lists and mappings are what they look like.

    >>> parsed(["width=16", "name=small"])
    {'width': 16, 'name': 'small'}
    """
    if wrong := [text for text in arguments if "=" not in text]:
        raise ConfigError(f"{option} {wrong[0]}: expected key=value")
    with _in_our_words():
        return {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides([*arguments])}


def measured(composed: DictConfig, network: LightningModule, data: Any, folder: Path) -> dict[str, str]:
    """Every measure of the config's callbacks, as it stands in metrics.csv, and how long they took."""
    trainer = instantiate(
        composed.trainer,
        default_root_dir=str(folder),
        callbacks=[
            options.made(f"callbacks.{key}", each)
            for key, each in composed.callbacks.items()
            if each and key != "records"
        ],
        logger=False,
        enable_checkpointing=False,
    )
    start = time.perf_counter()
    trainer.validate(network, data, verbose=False)
    measures = {name: shortest(value) for name, value in trainer.callback_metrics.items() if "/" in name}
    return measures | {"time/measure_s": f"{time.perf_counter() - start:.3f}"}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file.

    Raises:
        RunError: the file is damaged, would run code, or holds none.
    """
    content = load_plain(path)
    inside = [content[key] for key in CONTAINERS if isinstance(content, Mapping) and key in content]
    for found in [content, *inside]:
        if isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values()):
            return dict(found)
    kind = f"{', '.join(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
    raise RunError(f"{path} holds {kind}: expected a state dict, alone or under {', '.join(CONTAINERS)}")


def fitting(state: Mapping[str, Tensor], network: nn.Module, path: Path) -> dict[str, Tensor]:
    """The state dict without what wrappers such as DataParallel put before all names (``module.``).

    Raises:
        RunError: a name or a shape that the network does not have, or one of its own that is missing.
    """
    wanted = network.state_dict()
    found, own = dict(state), {key.split(".")[0] for key in wanted}
    while len(first := {key.partition(".")[0] for key in found}) == 1 and not first & own:
        if not all("." in key for key in found):
            break
        found = {key.partition(".")[2]: value for key, value in found.items()}
    shapes = [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and not is_lazy(wanted[key])
        and found[key].shape != wanted[key].shape
    ]  # fmt: skip
    differ = {
        "lacks": [key for key in wanted if key not in found],
        "has also": [key for key in found if key not in wanted],
        "differs in shape:": shapes,
    }
    if told := [f"{words} {_some(names)}" for words, names in differ.items() if names]:
        raise RunError(f"{path} does not fit {type(network).__name__}: it {'; it '.join(told)}")
    return found


def _some(names: Sequence[str], shown: int = 3) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
