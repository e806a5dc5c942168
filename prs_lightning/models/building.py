"""A network from its config: one of the study, a LightningModule as it is, or any other module, wrapped."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from prs_lightning.errors import ConfigError, in_one_line
from prs_lightning.measuring import evaluating, random_states_kept
from prs_lightning.models.base import ImageClassifier
from prs_lightning.models.wrapped import Wrapped
from prs_lightning.network import logits_of, refuse_probabilities
from prs_lightning.schema.targets import SHARED, SIZES, located, without_usual


def network_of(model: Mapping[str, Any]) -> LightningModule:
    """The network of a config ``model``, plain values: what ``_target_`` names, called with the other keys.

    A module that is no LightningModule with a ``training_step`` is wrapped, so that it is trained as the networks of
    the study are. Normalisation is the wrapper's, unless the module takes ``mean`` and ``std`` itself.

    Raises:
        ConfigError: what is named cannot be imported, does not take the keys, or gives no module.
    """
    name = model["_target_"]
    values = {key: value for key, value in without_usual(model).items() if key != "_target_"}
    factory = network_class(name)
    if isinstance(factory, type) and issubclass(factory, ImageClassifier):
        return _called(name, factory, values)
    parameters = inspect.signature(factory).parameters
    arguments = {key: value for key, value in values.items() if key not in SHARED or key in parameters}
    sizes = {own: values[key] for own, key in SIZES.items() if own in parameters and key in values}
    # What lies behind **kwargs takes other names still: the first that are not refused, and whoever ignores them
    # gives another number of logits, which is refused.
    hidden = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    guessed = {own: values[SIZES[own]] for own in ("num_classes", "in_chans") if SIZES[own] in values}
    if not hidden or {"classes", "num_classes", "n_classes"} & (parameters.keys() | arguments.keys()):
        guessed = {}
    for own in [guessed, {key: value for key, value in guessed.items() if key == "num_classes"}, {}]:
        try:
            made = _called(name, factory, own | sizes | arguments)
            break
        except ConfigError as error:
            if not own or not any(f"argument '{key}'" in str(error) for key in own):
                raise
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{name} gives a {type(made).__name__}: expected a torch module")
    if any(isinstance(module, torch.jit.ScriptModule) for module in made.modules()):
        raise ConfigError(f"{name} is scripted, which hides its layers: give the module that it was scripted from")
    if isinstance(made, LightningModule) and is_overridden("training_step", made):
        if (schedule := values.get("schedule", "constant")) != "constant" and "schedule" not in parameters:
            raise ConfigError(
                f"model.schedule={schedule}: {name} makes its optimizers itself, with a schedule of its own"
            )
        return made
    shared = {key: values[key] for key in SHARED if key in values}
    if "mean" in arguments or "std" in arguments:
        shared |= {"mean": (0.0,), "std": (1.0,)}
    return Wrapped(made, **shared)


def _called(name: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return factory(**arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError, KeyError, OSError) as error:  # the last where weights cannot be downloaded
        if isinstance(error, TypeError) and "argument" not in str(error):
            raise
        given = ", ".join(f"{key}={value}" for key, value in arguments.items()) or "nothing"
        cache = f" (pretrained weights are kept in {torch.hub.get_dir()}/checkpoints)"
        said = in_one_line(error) + (cache if isinstance(error, OSError) else "")
        raise ConfigError(f"model._target_={name}: {said}; it was given {given}") from error


def network_class(name: str) -> Callable[..., Any]:
    """The class or function of a dotted name, imported.

    Raises:
        ConfigError: no such module or name, or one that makes no networks.
    """
    found = located(name)
    # A checkpoint names what is called here: nothing that could run a command.
    homes = {name.split(".")[0], str(getattr(found, "__module__", "")).split(".")[0]}
    of_modules = not isinstance(found, type) or issubclass(found, nn.Module)
    if homes & sys.stdlib_module_names or not of_modules:
        raise ConfigError(f"model._target_={name}: expected a torch module's class, or a function that makes one")
    return found


def check_network(network: LightningModule, images: Tensor, *, classes: int, data: str) -> None:
    """Refuse a network that cannot take these images or does not give logits for the classes of the data.

    Args:
        images: some of the training set, (N, C, H, W) in [0, 1].
        classes: of the data set.
        data: its name.

    Raises:
        ConfigError: says what does not fit.
    """
    name = type(network.network if isinstance(network, Wrapped) else network).__name__
    with random_states_kept(), evaluating(network), torch.no_grad():
        try:
            output = network(images)
        except ConfigError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            shape = " x ".join(map(str, images.shape[1:]))
            what = f"{name} cannot take images of {shape} pixels ({in_one_line(error)})"
            made_for_32 = isinstance(network, ImageClassifier) and not isinstance(network, Wrapped)
            raise ConfigError(f"{what}: {_instead(str(error), made_for_32)}") from error
        logits = logits_of(output, len(images))
    refuse_probabilities(logits)
    outputs = logits.shape[1]
    if isinstance(network, Wrapped) and outputs != network.hparams["classes"]:
        raise ConfigError(
            f"{name} gives {outputs} logits, but model.classes={network.hparams['classes']}: give it its number of "
            f"classes, as +model.num_classes={classes} does where it is called so, or set model.classes={outputs}"
        )
    if classes > outputs:
        what = f"model.classes={outputs}" if isinstance(network, ImageClassifier) else f"{name} gives {outputs} logits"
        raise ConfigError(f"{what}, but {data} has labels up to {classes - 1}")


def _instead(text: str, made_for_32: bool) -> str:
    """What to do about images that torch says ``text`` of."""
    if channels := re.search(r"to have (\d+) channels, but got (\d+) channels", text):
        expected, there = channels.groups()
        return (
            f"it expects {expected} channels, they have {there}; build it for {there} (+model.in_channels={there}, "
            f"where it is called so), or take data of {expected} (data.channels={expected} converts those of a folder "
            "or of torchvision): channels are not repeated"
        )
    if made_for_32:
        return "give data.size=32, for which it is made, or another model"
    return "give another data.size, or another model"
