"""W&B: refused before anything is made where that can be known, and finished without harm to a run. No torch here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from prs_lightning.errors import ConfigError, in_one_line


def check_wandb(arguments: Mapping[str, Any]) -> None:
    """Refuse what ``wandb.init`` with these arguments would refuse without asking its server.

    Raises:
        ConfigError: a project or tags that cannot be, or the online mode without a key.
    """
    import wandb
    from pydantic import ValidationError

    quiet: dict[str, Any] = {"silent": True, "console": "off"}
    for key, setting in (("project", "project"), ("tags", "run_tags"), ("entity", "entity"), ("group", "run_group")):
        value: Any = arguments.get(key)
        given: Any = {setting: tuple(value) if key == "tags" and value else value}
        try:
            wandb.Settings(**quiet, **given)
        except (ValidationError, wandb.errors.UsageError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise ConfigError(f"wandb.{key}={value}: {in_one_line(why)}") from error
    if arguments.get("mode") != "online":
        return
    instead = "run `wandb login`, set WANDB_API_KEY, or take wandb.mode=offline"
    wandb.setup(wandb.Settings(**quiet))
    try:
        known = wandb.login(prompt=False, verify=False)  # it would ask on a terminal, where nobody may be
    except wandb.errors.Error as error:
        raise ConfigError(f"wandb.mode=online: {in_one_line(error)}; {instead}") from error
    if not known:
        raise ConfigError(f"wandb.mode=online, but there is no key of W&B: {instead}")


def end() -> None:
    """Finish the W&B run of this process, or the next job would go on in it."""
    wandb: Any = sys.modules.get("wandb")
    if wandb is None:
        return
    try:
        wandb.finish()
    except Exception as error:  # of all kinds, for a service that died
        print(f"warning: W&B could not finish ({in_one_line(error)}); the run is whole", file=sys.stderr)
        _forget_service(wandb)


def _forget_service(wandb: Any) -> None:
    """Or wandb shows a traceback of its own when Python ends."""
    try:
        wandb.teardown()
    except Exception:  # the service is dead, which has been told
        return
