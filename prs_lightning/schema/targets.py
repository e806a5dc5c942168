"""What ``_target_`` names: imported, and the keys beside it compared with its own signature."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin

from prs_lightning.errors import ConfigError, in_one_line, nearest

SHARED = ("channels", "classes", "mean", "std", "seed", "learning_rate", "schedule")
"""What every network's config holds: of a foreign network only what its signature names is handed to it."""
LATER = {"schedule": "constant", "width": None, "width_multiplier": 1.0}
"""Keys of networks that the first records did not know, with what they did."""
AIMS = {"low_prs": "low", "published": "low", "high_prs": "high"}
"""Interventions that aim at regions, and which way: to few or to many."""
SIZES = {
    **dict.fromkeys(("num_classes", "n_classes"), "classes"),
    **dict.fromkeys(("in_channels", "in_chans"), "channels"),
}
"""Other names of the sizes, filled in where a signature has them."""
HYDRAS = ("_target_", "_args_", "_recursive_", "_convert_")
"""Keys that Hydra reads itself where it makes something."""
KINDS = {
    "callbacks": "lightning.pytorch.callbacks.callback.Callback",
    "intervention": "lightning.pytorch.callbacks.callback.Callback",
    "logger": "lightning.pytorch.loggers.logger.Logger",
    "data": "prs_lightning.data.module.ImageData",
}
"""Of what a class under a group has to be one."""


def without_usual(model: Mapping[str, Any]) -> dict[str, Any]:
    """A config ``model`` with those keys of ``LATER`` only that differ from them.

    >>> without_usual({"seed": 0, "schedule": "linear", "width": None, "width_multiplier": 1})
    {'seed': 0, 'schedule': 'linear'}
    """
    return {key: value for key, value in model.items() if key not in LATER or value != LATER[key]}


def located(name: str, key: str = "model._target_") -> Any:
    """The class or function of a dotted name, imported.

    Args:
        key: of the config, for messages.

    Raises:
        ConfigError: no such module or name, or one that cannot be called.
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        raise ConfigError(f"{key}={name}: expected a dotted name such as my_package.MyNet")
    parts = name.split(".")
    found: Any = _imported(parts[0], name, key)
    for place, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part) and hasattr(found, "__path__"):
            _imported(".".join(parts[:place]), name, key)
        if not hasattr(found, part):
            there = [each for each in vars(found) if not each.startswith("_")]
            near = nearest(part, there) or f": expected one of {', '.join(there[-8:])}"
            raise ConfigError(f"{key}={name}: {'.'.join(parts[: place - 1])} has no {part}{near}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{key}={name}: expected a class or a function, not a {type(found).__name__}")
    return found


def _imported(module: str, name: str, key: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise ConfigError(f"{key}={name}: {module} needs {error.name}, which is not installed") from error
        package = module.split(".")[0]
        if module != package:
            parent, _, last = module.rpartition(".")
            raise ConfigError(f"{key}={name}: {parent} has no {last}") from error
        raise ConfigError(
            f"{key}={name}: there is no package {package}: pip install {package}, or, if it is your own, work "
            "in its folder or set PYTHONPATH"
        ) from error
    except Exception as error:  # whatever a module of the user's own does while it is imported
        what = f"{type(error).__name__}: {in_one_line(error)}"
        raise ConfigError(f"{key}={name}: {module} cannot be imported ({what})") from error


def foreign(group: str, name: str, node: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an entry whose ``_target_`` is not ours.

    Args:
        group: ``model``, ``data``, ``intervention``, ``callbacks`` or ``logger``.
        name: its dotted key.
        node: plain values, with ``_target_``.
    """
    target = str(node["_target_"])
    try:
        found = located(target, f"{name}._target_")
    except ConfigError as error:
        yield str(error)
        return
    wanted, bases = KINDS.get(group), found.__mro__ if isinstance(found, type) else ()
    if wanted and bases and wanted not in {f"{each.__module__}.{each.__name__}" for each in bases}:
        yield f"{name}._target_={target}: expected a subclass of {wanted}, or a function that gives one"
        return
    given = {key: value for key, value in node.items() if key not in HYDRAS}
    if (parameters := _parameters(found)) is None:
        return
    filled: set[str] = {*given, *(SIZES if group == "model" else ())}
    if group == "model":
        given = without_usual(given)
        given = {key: value for key, value in given.items() if key in parameters or key not in SHARED}
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    known = {
        key: each for key, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }
    for key, value in given.items():
        if group == "model" and key in SHARED:  # null is filled in from the data
            continue
        if key in known:
            yield from _unfit(f"{name}.{key}", value, known[key], found)
        elif not takes_all:
            near = nearest(key, known) or (f", only {', '.join(known)}" if known else "")
            yield f"{name}.{key}: {target} has no such argument{near}"
        if isinstance(value, Mapping) and "_target_" in value and group != "model":
            yield from foreign("", f"{name}.{key}", value)
    if "_args_" not in node:
        for key, each in known.items():
            if each.default is each.empty and key not in filled:
                yield f"{name}.{key} is needed: {target} has no default for it"


@lru_cache
def _parameters(found: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(found).parameters
    except (TypeError, ValueError):  # some of C have none
        return None


def _unfit(name: str, value: Any, parameter: inspect.Parameter, found: Any) -> Iterator[str]:
    """The line about a value that is not of the plain type with which a parameter is annotated."""
    from pydantic import TypeAdapter, ValidationError

    kind = _evaluated(parameter.annotation, found)
    usual = type(value) is type(parameter.default) and value == parameter.default
    if usual or (value is None and parameter.default is None) or not _is_plain(kind) or _holds_targets(value):
        return
    try:
        # As JSON, where a list is what every sequence is given as.
        TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        from prs_lightning.schema.lines import expected

        words = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
        yield expected(name, value, words.replace("typing.", "").replace("collections.abc.", ""))
    except (TypeError, ValueError):  # a value that JSON has no word for
        return


def _holds_targets(value: Any) -> bool:
    """Whether there is something in a value that Hydra makes an object of."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_holds_targets, value.values()))
    return isinstance(value, list) and any(map(_holds_targets, value))


def _evaluated(annotation: Any, found: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    function = getattr(found, "__init__", found) if isinstance(found, type) else found
    try:
        return eval(annotation, getattr(inspect.unwrap(function), "__globals__", {}))
    except Exception:  # names that are there for type checkers only
        return inspect.Parameter.empty


def _is_plain(kind: Any) -> bool:
    """Whether a type is made of what YAML has: numbers, texts, yes and no, null, lists, mappings."""
    if kind in (int, float, bool, str, None, type(None), list, dict, tuple):
        return True
    holds = (Union, types.UnionType, list, dict, tuple, set, Sequence, Iterable, Mapping)
    inside = [each for each in get_args(kind) if each is not Ellipsis]
    return get_origin(kind) is Literal or (get_origin(kind) in holds and all(map(_is_plain, inside)))
