"""docs/config.md: every key of the config, from the schema and the YAML files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from prs_lightning.errors import in_yaml
from prs_lightning.schema import CONFIG_FOLDER, launching, parts
from prs_lightning.schema.analysis import Analysis
from prs_lightning.schema.attacks import Entry
from prs_lightning.schema.lines import words_of
from prs_lightning.schema.trainer import Trainer
from prs_lightning.schema.training import GROUPS, TARGETS, Training
from prs_lightning.schema.values import Part

HEAD = """# The config

Every key of `train.py` and `analyze.py`: what it may be, its default in `conf/`, and what it means. What is not in here
or not what is expected is refused in one line before anything is made. `python train.py --cfg job` prints the config
of a command, `python train.py --help` the options of each group.

This page is made by `python -m prs_lightning.schema > docs/config.md`.
"""
OPTIONS: dict[str, type[Part]] = {"data": parts.ImageData, "model": parts.AnyNetwork}
"""Groups of which one part describes all options."""


def page() -> str:
    """The whole page, as Markdown."""
    return HEAD + "\n" + "\n".join(_sections()).replace("\n\n\n", "\n\n")


def _sections() -> Iterator[str]:
    train, analyze = _file("train"), _file("analyze")
    chosen = {
        group: option for entry in train["defaults"] if isinstance(entry, dict) for group, option in entry.items()
    }
    yield from _section(
        "train.py", Training, train | {group: chosen.get(group) for group in GROUPS} | {"trainer": "default"}
    )
    for group, part in OPTIONS.items():
        files = sorted((CONFIG_FOLDER / group).glob("*.yaml"))
        yield from _section(
            f"{group}: {_names(group)}",
            part,
            _shared([yaml.safe_load(file.read_text()) for file in files]),
            f"{group}.",
        )
    base, usual = _file("callbacks/base"), _file("callbacks/default")
    for name, node in {**base, **usual}.items():
        own = TARGETS.get(node["_target_"]) if name != "defaults" else None
        if own not in (None, parts.Measuring):
            yield from _section(f"callbacks.{name}", own, node, f"callbacks.{name}.")
    yield from _section(
        "grid_attacks: what an attack of the grid may differ in",
        Entry,
        {},
        "grid_attacks.NAME.",
        "as callbacks.robustness",
    )
    for group in ("intervention", "logger"):
        for file in sorted((CONFIG_FOLDER / group).glob("*.yaml")):
            values = yaml.safe_load(file.read_text())
            for name, node in values.get(group, values).items():  # the first where a file sets more than its group
                yield from _section(f"{group}={name}", TARGETS[node["_target_"]], node, f"{group}.{name}.")
    yield from _section("trainer", Trainer, _file("trainer/default"), "trainer.")
    known: dict[str, type[Part]] = {
        "processes": launching.Processes,
        "slurm": launching.Slurm,
        "submitit_processes": launching.Submitit,
        "ray": launching.Ray,
    }
    for name, part in known.items():
        yield from _section(f"hydra/launcher={name}", part, _file(f"hydra/launcher/{name}"), "hydra.launcher.")
    yield from _section("analyze.py", Analysis, analyze)


def _file(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIG_FOLDER / f"{name}.yaml").read_text())


def _names(group: str) -> str:
    return ", ".join(sorted(file.stem for file in (CONFIG_FOLDER / group).glob("*.yaml") if file.stem != "base"))


def _shared(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all files that have a key agree on; where they do not, the words for that."""
    values: dict[str, list[Any]] = {}
    for file in files:
        for key, value in file.items():
            values.setdefault(key, []).append(value)
    return {key: found[0] if all(each == found[0] for each in found) else ... for key, found in values.items()}


def _section(
    title: str, part: type[Part], defaults: Mapping[str, Any], prefix: str = "", absent: str = ""
) -> Iterator[str]:
    yield f"## {title}\n\n| key | may be | default | meaning |\n| --- | --- | --- | --- |"
    yield from _rows(part, defaults, prefix, absent)
    yield ""


def _rows(part: type[Part], defaults: Mapping[str, Any], prefix: str, absent: str) -> Iterator[str]:
    for name, field in part.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, Part):
            yield from _rows(kind, defaults.get(name) or {}, f"{prefix}{name}.", absent)
            continue
        words, why = words_of(field)
        meaning = (field.description or "") + (f"; {why}" if why else "")
        cells = [f"`{prefix}{name}`", words, _default(name, field, defaults, absent), meaning]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(name: str, field: FieldInfo, defaults: Mapping[str, Any], absent: str) -> str:
    if name not in defaults:
        return absent or ("needed" if field.is_required() else f"`{in_yaml(field.default)}`")
    return "that of the option" if defaults[name] is ... else f"`{in_yaml(defaults[name], 50)}`"
