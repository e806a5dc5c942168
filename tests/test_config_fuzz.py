"""Every leaf of every YAML of both programs times 13 values, most of them bad.

What each kind of leaf takes is listed here, by hand and not from the schema. All else must end in one line, with exit
code 1 and nothing made.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import pytest
import yaml
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import analyze as analyze_script
import train as train_script
from prs_lightning.errors import ConfigError
from prs_lightning.models import network_of
from prs_lightning.runs import RunDirectory, options
from prs_lightning.runs.naming import flatten
from prs_lightning.sweep import cli
from tests.conftest import PROJECT

CONF = PROJECT / "conf"
VALUES = ("null", "''", "abc", "-1", "0", str(10**20), "nan", "inf", "[-1]", "[a]", "{a:1}", "true", "'..'")
BIG = str(10**20)
TEXT, PATH = {"abc", "'..'"}, {"abc", "'..'"}
NULL, FLAG, ZERO = {"null"}, {"true"}, {"0"}
LOGGER = {"mlflow": "mlflow", "tensorboard": "tensorboard"}
"""Loggers whose package may be absent; then nothing of them is taken."""
FINE: dict[str, set[str]] = {  # file:key, the first that fits; what is not here takes none of the values
    # analyze.py
    "analyze:runs": PATH,
    "analyze:(output|data_root)": NULL | PATH,
    "analyze:(grid_epochs|pair.[ab]|sizes.*)": NULL,
    "analyze:(thresholds.*|pair.accuracy_tolerance|bootstrap.seed|power.effect)": ZERO,
    "analyze:(force|plan)": FLAG,
    # both
    "(analyze|train):wandb.(project|entity)": NULL | TEXT,
    "(analyze|train):wandb.tags": {"[a]"},
    # train.py
    "train:seed": ZERO,
    "train:grid_attacks.fgsm.step_size": NULL,
    "train:grid_attacks.(dlr.survivors|distance.distance)": FLAG,
    "train:runs": PATH,
    "train:run_dir": NULL | PATH,
    "(train|experiment/.*):sweep": NULL | {"abc"},
    "train:(retry_failed|dry_run|print_config)": FLAG,
    "callbacks/.*:callbacks.regions.layers": {"[a]"},
    "callbacks/.*:callbacks.robustness.seed": ZERO,
    "callbacks/.*:callbacks.robustness.(epochs|limit|batch_size|gradient_noise)": NULL,
    "callbacks/.*:callbacks.robustness.(audit|early_exit)": FLAG,
    "data/base:data.seed": ZERO,
    "data/base:data.root": PATH,
    "data/(folder|npz):data.root": PATH,
    "data/.*:data.(size|train_limit|test_limit|channels|classes)": NULL,
    "data/(folder|npz|torchvision):data.name": NULL | {"abc"},
    "data/(digits|folder|npz|torchvision):data.(mean|std)": NULL,
    "data/(mnist|mnist5k|fashion_mnist):data.mean": {"[-1]"},
    "data/.*:data.memory_limit": ZERO | {BIG},
    "data/.*:data.workers": NULL | ZERO,
    "data/torchvision:data.dataset": {"abc"},
    "data/torchvision:data.arguments": NULL,
    "experiment/(mini_grid|causal_.*|batch_.*):(data.(train|test)_limit|callbacks.robustness.limit)": NULL,
    "experiment/(mini_grid|causal_mini):hydra.launcher.jobs": NULL,
    "experiment/.*:(grid_attacks.*|hydra.sweeper.arms|model.width|callbacks.local_complexity)": NULL,
    "experiment/.*:callbacks.robustness.epochs": NULL,
    "experiment/.*:callbacks.robustness.gradient_noise": NULL | ZERO,
    "experiment/quickstart:callbacks.robustness.limit": NULL,
    "experiment/.*:hydra.sweeper.params.seed": ZERO,
    "hydra/launcher/processes:hydra.launcher.jobs": NULL,
    "hydra/launcher/processes:hydra.launcher.gpus": NULL | {"[a]"},
    "hydra/launcher/.*:hydra.launcher.(install|name)": TEXT,
    "hydra/launcher/.*:hydra.launcher.submitit_folder": PATH,
    "hydra/launcher/.*:hydra.launcher.gpus_per_node": NULL | ZERO,
    "hydra/launcher/.*:hydra.launcher.(cpus_per_task|mem_gb)": NULL,
    "hydra/launcher/slurm:hydra.launcher.(signal_delay_s|max_num_timeout)": ZERO,
    "hydra/launcher/slurm:hydra.launcher.(partition|qos|account|constraint)": NULL | TEXT,
    "hydra/launcher/slurm:hydra.launcher.setup": NULL | {"[a]"},
    "hydra/launcher/ray:hydra.launcher.ray.init.address": NULL | TEXT,
    "hydra/launcher/ray:hydra.launcher.ray.init.include_dashboard": NULL | FLAG,
    "hydra/launcher/ray:hydra.launcher.ray.remote.num_.pus": NULL | ZERO | {BIG},
    "hydra/launcher/ray:hydra.launcher.ray.remote.max_retries": ZERO | {"-1"},
    "hydra/sweeper/ranges:hydra.sweeper.(params|arms)": NULL,
    "intervention/(label_smoothing|width):.*.warmup": ZERO,
    "intervention/label_smoothing:.*.strength": ZERO,
    "intervention/adversarial:.*.strength": ZERO,
    "intervention/(.*_prs|logit_.*|published|weight_.*):.*.(strength|margin|.*_weight)": ZERO | {BIG},
    "intervention/(adversarial|.*_prs|logit_.*|weight_.*):.*.(warmup|seed)": ZERO,
    "intervention/adversarial:.*.step_size": NULL,
    "intervention/width:model.width": NULL,
    "model/.*:model.width": NULL,
    "logger/(csv|tensorboard|wandb):logger.*.save_dir": NULL | {"abc"},
    "logger/(csv|tensorboard):logger.*.name": NULL | {"abc", "''"},
    "logger/tensorboard:logger.*.version": NULL | ZERO | {"abc", "''", BIG},
    "logger/wandb:logger.wandb.(name|id|group|project|entity|job_type)": NULL | TEXT,
    "logger/wandb:logger.wandb.mode": NULL,
    "logger/wandb:logger.wandb.tags": NULL | {"[a]"},
    "logger/mlflow:logger.mlflow.experiment_name": TEXT,
    "logger/mlflow:logger.mlflow.(run_name|tracking_uri|artifact_location)": NULL | TEXT,
    "model/base:model.(channels|classes)": NULL,
    "model/base:model.seed": ZERO,
    "model/base:model.learning_rate": {BIG},
    "trainer/default:trainer.devices": {"-1"},
    "trainer/default:trainer.(precision|max_time|profiler|benchmark|gradient_clip_algorithm|val_check_interval)": NULL,
    "trainer/default:trainer.(logger|callbacks|plugins|default_root_dir|model_registry|limit_.*)": NULL,
    "trainer/default:trainer.(deterministic|enable_model_summary|enable_progress_bar|enable_checkpointing)": NULL
    | FLAG,
    "trainer/default:trainer.(sync_batchnorm|enable_autolog_hparams|detect_anomaly|use_distributed_sampler)": FLAG,
    "trainer/default:trainer.(log_every_n_steps|num_sanity_val_steps|reload_.*|overfit_batches)": ZERO,
    "trainer/default:trainer.(min_epochs|min_steps)": NULL | ZERO,
    "trainer/default:trainer.max_steps": {"-1"},
    "trainer/default:trainer.gradient_clip_val": NULL | {BIG},
}
SELECT = {  # what else a command needs so that a file's leaves are there
    "data/folder": ("data=folder", "data.root=pets"),
    "data/npz": ("data=npz", "data.root=pets.npz"),
    "data/torchvision": ("data=torchvision", "data.dataset=CIFAR100"),
    "experiment/mini_grid": ("-m", "experiment=mini_grid", "seed=0"),
    "experiment/paper_grid": ("-m", "experiment=paper_grid", "seed=0"),
    "experiment/causal_mini": ("-m", "experiment=causal_mini", "seed=0", "data=mnist5k"),
    "experiment/causal_grid": ("-m", "experiment=causal_grid", "seed=0", "data=mnist", "intervention=none"),
    "experiment/batch_factorial": ("-m", "experiment=batch_factorial", "seed=0", "data=mnist"),
}


class Leaf(NamedTuple):
    """A key of a file, and the command with which it is there."""

    program: str
    file: str
    key: str
    command: tuple[str, ...]


def leaves() -> Iterator[Leaf]:
    """All of them."""
    for file in sorted(CONF.rglob("*.yaml")):
        name = file.relative_to(CONF).with_suffix("").as_posix()
        group, _, option = name.rpartition("/")
        values = {key: value for key, value in yaml.safe_load(file.read_text()).items() if key != "defaults"}
        program = "analyze" if name == "analyze" else "train"
        prefix = (
            ""
            if group in ("", "experiment") or "@package _global_" in file.read_text()
            else group.replace("/", ".") + "."
        )
        command: tuple[str, ...] = ()
        if group and option != "base":
            command = SELECT.get(name, (f"{group}={option}",))
        if group.startswith("hydra/"):
            command = ("-m", *command)
        values.pop("epsilons", None)  # a helper: what it may be is said of the key that takes it
        for key in flatten(values):
            yield Leaf(program, name, prefix + key, command)


class Told(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def told(program: str, *arguments: str) -> Told:
    """What a command of this project says, in this process."""
    GlobalHydra.instance().clear()
    before, path = sys.argv, [*sys.path]
    sys.argv = [f"{program}.py", *arguments]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.run(train_script.train if program == "train" else analyze_script.analyze, program)
    except SystemExit as left:
        code = left.code or 0
    except BaseException as error:
        code, _ = 99, err.write(f"Traceback: {type(error).__name__}: {error}")
    finally:
        sys.argv, sys.path[:] = before, path
    return Told(int(str(code)), out.getvalue(), err.getvalue())


def tried(leaf: Leaf, value: str) -> Told:
    """One value of one leaf: planned, not run."""
    twice = (f"{leaf.key}=", f"{leaf.key.removeprefix('hydra.sweeper.params.')}=")
    given = [word for word in leaf.command if not word.startswith(twice)]
    also = {"train": "dry_run=true", "analyze": "runs=nowhere"}[leaf.program]
    given += [] if also.startswith(f"{leaf.key}=") else [also]
    return told(leaf.program, *given, f"{leaf.key}={value}")


def is_fine(leaf: Leaf, value: str) -> bool:
    """Whether the list above says that a leaf takes a value."""
    needed = LOGGER.get(leaf.file.removeprefix("logger/"))
    if needed and importlib.util.find_spec(needed) is None:
        return False
    name = f"{leaf.file}:{leaf.key}"
    return value in next((values for pattern, values in FINE.items() if re.fullmatch(pattern, name)), set())


def outcome(leaf: Leaf, value: str, folder: Path) -> str:
    """``accepted`` or ``clear``, or what is wrong."""
    fine, end = is_fine(leaf, value), tried(leaf, value)
    word = f"{leaf.file}: {leaf.key}={value}"
    if made := sorted(folder.iterdir()):
        return f"{word} made {made}"
    if end.code == 0 or re.search("is no folder|holds no run directories", end.err):
        return "accepted" if fine else f"{word} is accepted"
    if end.code != 1 or not re.fullmatch(r"error: [^\n]+\n", end.err) or end.out or "Traceback" in end.err:
        return f"{word} is not clear: exit code {end.code}, {end.err}"
    if fine:
        return f"{word} is refused: {end.err}"
    return "clear" if _names_it(leaf, end.err) else f"{word} is not named: {end.err}"


def _names_it(leaf: Leaf, line: str) -> bool:
    """Whether a line tells of the leaf: its key, or what lies beside it, or a key that the value brings along."""
    above, _, own = leaf.key.rpartition(".")
    return any(part in line for part in (above, own, above.replace(".", "="), "'a'"))


EVERY = [(leaf, value) for leaf in leaves() for value in VALUES]


def walk(chosen: list[tuple[Leaf, str]], folder: Path) -> Counter[str]:
    """Try them in an empty folder, and print what came of them."""
    inner = folder / "inner" / "empty"
    inner.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(inner)
        # What Hydra composes the whole config for once more: whether -m was given, which the words say here.
        patch.setattr(Hydra, "get_mode", lambda self, config_name, overrides: None)
        found = Counter(outcome(leaf, value, inner) for leaf, value in chosen)
    wrong = {line: times for line, times in found.items() if line not in ("accepted", "clear")}
    counts = f"tried {len(chosen)}, clear {found['clear']}, accepted {found['accepted']}, not clear {len(wrong)}"
    print(counts, *wrong, sep="\n")
    return found


def test_the_list_of_what_is_fine_fits_some_leaf_each() -> None:
    names = [f"{leaf.file}:{leaf.key}" for leaf, _ in EVERY]
    assert [pattern for pattern in FINE if not any(re.fullmatch(pattern, name) for name in names)] == []
    assert len(EVERY) > 3500
    assert {leaf.file for leaf, _ in EVERY} >= {"train", "analyze", "trainer/default", "logger/wandb", "data/npz"}


def test_a_sample_of_all(tmp_path: Path) -> None:
    found = walk(EVERY[5::37], tmp_path)
    assert found.keys() == {"accepted", "clear"}, found


@pytest.mark.slow
def test_every_leaf_times_every_value(tmp_path: Path) -> None:
    found = walk(EVERY, tmp_path)
    assert found.keys() == {"accepted", "clear"}, found


MADE = re.compile("(callbacks|data|model|trainer|logger/csv|train)(/.*)?")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning, about what is unusual
def test_what_is_accepted_can_be_made(tmp_path: Path) -> None:
    """The data, the network and the Trainer with its callbacks; what only this machine lacks is one line."""
    chosen = [(leaf, value) for leaf, value in EVERY if MADE.fullmatch(leaf.file) and is_fine(leaf, value)]
    assert len(chosen) > 100
    lines = []
    for leaf, value in chosen:
        words = [word for word in leaf.command if not word.startswith(f"{leaf.key}=")]
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            quiet = [] if leaf.file.startswith("logger") else ["logger=none"]
            cfg = hydra.compose("train", [*words, *quiet, f"{leaf.key}={value}"])
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        network = {"channels": 3, "classes": 10, "mean": [0.5], "std": [0.5]}
        model = config["model"] | {key: found for key, found in network.items() if config["model"].get(key) is None}
        try:
            options.made("data", cfg.data, name=config["data"]["name"])
            network_of(model)
            train_script.make_trainer(cfg, config, RunDirectory(tmp_path / "run"), model)
        except ConfigError as told:
            lines.append(f"{leaf.key}={value}: {told}")
    assert [line for line in lines if not line.partition(": ")[2].startswith(line.partition("=")[0])] == []
    assert not (tmp_path / "run").exists()
