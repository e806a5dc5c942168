"""hydra.launcher and hydra.sweeper: how the jobs of a sweep are started, and what an experiment sweeps over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from prs_lightning.errors import in_yaml
from prs_lightning.schema.lines import expected, problems
from prs_lightning.schema.values import (
    Count,
    Dotted,
    Flag,
    Keys,
    Natural,
    NotNegative,
    Part,
    Place,
    Rule,
    Text,
    key,
)

PLUGINS = "hydra_plugins.prs_lightning_sweep."


def is_gpus(value: Any) -> bool:
    """Whether it is ``auto``, null, or a list of different ids."""
    if not isinstance(value, list):
        return value in ("auto", None)
    plain = [str(each) for each in value if isinstance(each, int | str) and not isinstance(each, bool)]
    return len({*plain}) == len(value) and all(each.strip() and not each.startswith("-") for each in plain)


class Processes(Part):
    """Processes of this machine."""

    jobs: Count | None = key("at a time; null: one per GPU slot, or 1 without a GPU", None)
    gpus: Annotated[Any, Rule(is_gpus, "auto, null, or a list of ids such as [0,1]")] = key(
        "which jobs may use; auto: all that are visible; null: jobs are given none", "auto"
    )
    jobs_per_gpu: Count = key("how many jobs share a GPU", 1)


class Engine(Part):
    """What hands the jobs on to another launcher of Hydra."""

    engine: Dotted = key("class of that launcher")
    install: Text = key("the extra of this project that brings it")
    jobs: Count | None = key("engines have limits of their own", None)


class Ray(Engine):
    """Tasks of a Ray cluster."""

    ray: Keys = key("its `init` (address: null for a cluster of this machine, auto for one that runs) and `remote`")


class Init(Part):
    """How Ray is reached."""

    model_config = Part.model_config | {"extra": "allow"}  # Ray has many more
    address: Text | None = key("null: a cluster of this machine; auto: the one that runs", None)
    include_dashboard: Flag | None = key("its page", None)


class Remote(Part):
    """What a task of Ray asks for."""

    model_config = Part.model_config | {"extra": "allow"}  # Ray has many more
    num_cpus: NotNegative | None = key("cores of each job", None)
    num_gpus: NotNegative | None = key("of each job; 0.25 lets four jobs share one", None)
    max_retries: Annotated[
        Any, Rule(lambda value: type(value) is int and -1 <= value < 2**31, "an integer of -1 or more")
    ] = key("0: the same command goes on", 0)  # fmt: skip


class Submitit(Engine):
    """Processes of this machine, by submitit."""

    submitit_folder: Place = key("its logs")
    name: Text = key("of the jobs")
    nodes: Count = key("machines of each job")
    tasks_per_node: Count = key("one for each device")
    gpus_per_node: Natural | None = key("of each job")
    cpus_per_task: Count | None = key("cores")
    mem_gb: Count | None = key("memory")
    timeout_min: Count = key("time limit of a job")
    stderr_to_stdout: Flag = key("one log instead of two", False)


class Slurm(Submitit):
    """Slurm jobs."""

    signal_delay_s: Natural = key("how long before its time limit a job is told", 120)
    max_num_timeout: Natural = key("how often a job that met its limit is queued again", 0)
    array_parallelism: Count = key("jobs at a time", 256)
    partition: Text | None = key("of the cluster", None)
    qos: Text | None = key("quality of service", None)
    account: Text | None = key("who pays", None)
    constraint: Text | None = key("features of the machines", None)
    setup: list[Text] | None = key('commands before the job, for example ["module load cuda"]', None)
    additional_parameters: Keys = key("more of sbatch", {})
    comment: Text | None = key("about the jobs", None)
    exclude: Text | None = key("machines to avoid", None)
    gres: Text | None = key("generic resources", None)
    cpus_per_gpu: Count | None = key("cores", None)
    gpus_per_task: Natural | None = key("of each task", None)
    mem_per_gpu: Text | None = key("memory", None)
    mem_per_cpu: Text | None = key("memory", None)


ENGINES: dict[str, type[Part]] = {"RayLauncher": Ray, "SlurmLauncher": Slurm, "LocalLauncher": Submitit}


def launcher(node: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with ``hydra.launcher``; another than ours is for whoever takes it."""
    target, prefix = str(node.get("_target_")).removeprefix(PLUGINS), "hydra.launcher."
    values = {key: value for key, value in node.items() if key != "_target_"}
    if target == "ProcessLauncher":
        yield from problems(Processes, values, prefix)
    elif target == "EngineLauncher":
        part = ENGINES.get(str(values.get("engine")).rpartition(".")[2])
        known = values if part else {key: values[key] for key in Engine.model_fields if key in values}
        yield from problems(part or Engine, known, prefix)
        ray = values["ray"] if isinstance(values.get("ray"), Mapping) else {}
        inside: dict[str, type[Part]] = {"init": Init, "remote": Remote}
        for name, inner in inside.items():
            if isinstance(ray.get(name), Mapping):
                yield from problems(inner, ray[name], f"{prefix}ray.{name}.")
            elif name in ray:
                yield expected(f"{prefix}ray.{name}", ray[name], "a mapping, as in conf/hydra/launcher/ray.yaml")


def sweeper(node: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with ``hydra.sweeper``: its ``params``, a mapping, and its ``arms``, a list of mappings."""
    params, arms = node.get("params"), node.get("arms")
    yield from _params(params)
    if arms is not None and not (isinstance(arms, list) and all(isinstance(arm, Mapping) for arm in arms)):
        yield expected("hydra.sweeper.arms", arms, "a list of mappings of overrides, as [{seed: 0}, {seed: 1}]")
        return
    for place, arm in enumerate(arms or ()):
        for name, value in arm.items():
            key = f"hydra.sweeper.arms[{place}].{name}"
            if value == "" or isinstance(value, Mapping):
                yield expected(key, value, "a value, as after = on the command line")
            elif isinstance(params, Mapping) and name in params:
                yield f"{key}={in_yaml(value)}: hydra.sweeper.params has {name} too: expected it in one of them"


def _params(params: Any) -> Iterator[str]:
    if params is None:
        return
    if not isinstance(params, Mapping):
        yield expected("hydra.sweeper.params", params, "a mapping of overrides such as {seed: 0..4}")
        return
    for name, value in params.items():
        if value is None or value == "" or isinstance(value, Mapping):
            yield expected(f"hydra.sweeper.params.{name}", value, "the values to sweep over, as in 1,2 or 0..4")
