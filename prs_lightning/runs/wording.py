"""Errors of Hydra and OmegaConf about what was typed, in our words: one line with the key and the nearest names."""

from __future__ import annotations

import re
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from prs_lightning.errors import DISK, ConfigError, DiskError, RunError, causes_of, in_one_line, nearest
from prs_lightning.runs.naming import CONFIG_FOLDER, PART, flatten

MENDABLE = re.compile(
    "unexpected keyword argument|missing .* argument|Error locating target|Cannot instantiate config of"
)
"""What instantiating says when the config is wrong, and not the class."""


def one_line(error: BaseException, config_name: str) -> str | None:
    """What to tell the user, or None if ``error`` is a fault of ours that deserves its traceback."""
    for cause in causes_of(error):
        if isinstance(cause, ConfigError | RunError):
            return in_one_line(cause)
        if isinstance(cause, OSError) and cause.errno in DISK:
            return in_one_line(DiskError(cause.filename or "what was to be written", cause))
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, name = cause.missing_cfg_file.rpartition("/")
            there = cause.options or [file.stem for file in sorted((CONFIG_FOLDER / group).glob("*.yaml"))]
            there = [option for option in there if option != PART]
            return f"{group}={name} is unknown{nearest(name, there)}; there are: {', '.join(there)}"
    text = in_one_line(error)
    if unknown := re.search(r"Could not (?:override|append.*to|delete from config\.) '([^']+)'", text):
        known = _known_keys(config_name)
        if unknown[1] in known:
            return f"{unknown[1]} cannot be changed or deleted: it is null, or what it lies in is"
        return f"the config has no key {unknown[1]!r}{nearest(unknown[1], known)}"
    if merged := re.search(r"Error merging override (.*)", text):
        return f"{merged[1]}: expected what can take the place of what is there: a list, a mapping, or a single value"
    if "Config group override must be a string or a list" in text:  # in a file of the user's
        return f"a list of defaults names something that is no option of a group: {text}"
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} cannot be read: {text}"
    if isinstance(error, InstantiationException) and not MENDABLE.search(text):
        return None
    return _in_words(text) if isinstance(error, CompactHydraException | OmegaConfBaseException) else None


def _in_words(text: str) -> str:
    """An error of Hydra or OmegaConf with the key that it is about in front.

    >>> _in_words("Missing mandatory value full_key: data.name object_type=dict")
    'data.name: Missing mandatory value'
    """
    key = re.search(r" full_key: (\S+)", text)
    text = re.sub(
        r" full_key: \S+| object_type=\S+|, set env var HYDRA_FULL_ERROR=1 to see chained exception\.?", "", text
    )
    return f"{key[1]}: {text}" if key else text


def _known_keys(config_name: str) -> list[str]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config: Any = OmegaConf.to_container(hydra.compose(config_name), resolve=False)
    leaves = flatten(config)
    nodes = {key.rsplit(".", depth)[0] for key in leaves for depth in range(1, key.count(".") + 1)}
    return sorted(leaves.keys() | nodes)
