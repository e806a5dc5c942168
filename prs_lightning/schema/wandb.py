"""What W&B takes: the keys of ``wandb``, and those of its logger."""

from __future__ import annotations

import re
from typing import Annotated, Any

from prs_lightning.schema.values import Flag, FreeText, Inside, Keys, Part, Place, Rule, Text, is_plain, key, only

MODES = ("offline", "online", "disabled")


def is_project(value: Any) -> bool:
    """Whether W&B takes it as the name of a project."""
    return isinstance(value, str) and is_plain(value) and len(value) <= 128 and not re.search(r"[/\\#?%:]", value)


def is_tag(value: Any) -> bool:
    """Whether W&B takes it as a tag."""
    return isinstance(value, str) and is_plain(value) and len(value) <= 64


Project = Annotated[Any, Rule(is_project, r"a name of at most 128 characters without / \ # ? % :")]
Tag = Annotated[Any, Rule(is_tag, "a text of at most 64 characters")]


class Wandb(Part):
    """Weights & Biases, for training and for the report."""

    mode: Annotated[Any, only(*MODES)] = key("offline keeps all in the run directory, to be uploaded later")
    project: Project | None = key("null: W&B's own choice")
    entity: Text | None = key("a user or a team; null: that of the key")
    tags: list[Tag] = key("of the run")


class WandbLogger(Part):
    """A run of W&B: what Lightning's logger and `wandb.init` take."""

    name: Text | None = key("of the run; null: that of its directory", None)
    save_dir: Inside | None = key("a folder in the run directory", ".")
    version: Text | None = key("as id", None)
    offline: Flag = key("as mode=offline", False)
    dir: Place | None = key("as save_dir", None)
    id: Text | None = key("of the run; null: kept in its directory", None)
    anonymous: Flag | None = key("without an account", None)
    project: Project | None = key("null: W&B's own choice", None)
    log_model: Annotated[Any, only(True, False, "all")] = key("upload checkpoints", False)
    experiment: Annotated[Any, only(None)] = key("not here", None)
    prefix: FreeText = key("of all names", "")
    checkpoint_name: Text | None = key("of uploaded checkpoints", None)
    add_file_policy: Annotated[Any, only("mutable", "immutable")] = key("of uploaded checkpoints", "mutable")
    entity: Text | None = key("a user or a team", None)
    notes: Text | None = key("about the run", None)
    tags: list[Tag] | None = key("of the run", None)
    config: Keys | None = key("more values beside the run's config", None)
    config_exclude_keys: list[Text] | None = key("left out of it", None)
    config_include_keys: list[Text] | None = key("alone in it", None)
    allow_val_change: Flag | None = key("let the values of a config change", None)
    group: Text | None = key("of runs; null: that of the sweep", None)
    job_type: Text | None = key("kind of run", None)
    mode: Annotated[Any, only(None, *MODES)] = key("as `wandb.mode`", None)
    force: Flag | None = key("ask for an account", None)
    reinit: Annotated[
        Any, only(None, True, False, "default", "return_previous", "finish_previous", "create_new")
    ] = key("what becomes of another run of this process", None)  # fmt: skip
    resume: Annotated[Any, only(None, True, False, "allow", "never", "must", "auto")] = key("go on with a run", None)
    resume_from: Text | None = key("a step of a run", None)
    fork_from: Text | None = key("a step of a run", None)
    save_code: Flag | None = key("upload the script", None)
    tensorboard: Flag | None = key("copy what TensorBoard logs", None)
    sync_tensorboard: Flag | None = key("likewise", None)
    monitor_gym: Flag | None = key("of no use here", None)
    settings: Keys | None = key("of `wandb.Settings`", None)
