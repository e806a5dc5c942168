"""Composed configs as plain values: what makes two of them the same run, and what a run is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Keys that may differ when a run is taken up again, because they do not change what is computed.
BOOKKEEPING = (
    "run_dir", "runs", "sweep", "retry_failed", "dry_run", "wandb", "logger", "print_config", "data.root",
    "trainer.devices", "trainer.accelerator", "trainer.num_nodes", "trainer.strategy", "trainer.enable_progress_bar",
    "callbacks.progress",
)  # fmt: skip


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted keys.

    >>> flatten({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ, bookkeeping left out."""
    flat = [flatten(first), flatten(second)]
    return sorted(
        key
        for key in flat[0].keys() | flat[1].keys()
        if flat[0].get(key) != flat[1].get(key) and not is_bookkeeping(key)
    )


def is_bookkeeping(key: str) -> bool:
    """Whether a dotted config key says where and how a run is kept rather than what it computes."""
    return any(key == name or key.startswith(name + ".") for name in BOOKKEEPING)


def run_name(config: Mapping[str, Any]) -> str:
    """``<data>-<model>-bs<batch size>-seed<seed>``."""
    model = config["model"]["_target_"].rsplit(".", 1)[-1].lower()
    return f"{config['data']['name']}-{model}-bs{config['batch_size']}-seed{config['seed']}"
