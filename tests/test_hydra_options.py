"""What Hydra lets pass: each argument does what it says, or is refused in one line before anything is made."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

import analyze as analyze_script
import train as train_script
from prs_lightning.sweep import arguments, cli

MINE = {
    "data/mine": "defaults: [mnist5k]\nepsilon: 0.2",
    "data/other": "defaults: [mnist5k]\nepsilon: 0.1",
    "data/named": "defaults: [npz]\nname: mine\nroot: mine.npz",
    "data/twin": "defaults: [npz]\nname: mine\nroot: mine.npz\nepsilon: 0.1",
    "model/mine": "defaults: [cnn6]\nlearning_rate: 0.5",
    "experiment/mine": "sweep: mine\nhydra: {sweeper: {params: {data: 'mine,mnist5k', seed: 0..1}}}",
    "experiment/armed": """sweep: armed
grid_epochs: [300]
hydra:
  sweeper:
    params: {data: mnist5k, seed: 0..1}
    arms:
      - {intervention: none}
      - {intervention: low_prs, intervention.low_prs.strength: 2, grid_epochs: [100, 300]}
      - {intervention: '[low_prs,logit_penalty]'}
""",
    "experiment/lost": "hydra: {run: {dir: elsewhere}}",
    "experiment/deep": "kind: cifar\ndefaults: [override /model: resnet18]\nmodel: {stem: '${kind}'}",
    "experiment/slow": "hydra: {launcher: {jobs: 0}}",
    "hydra/launcher/theirs": "_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra/sweeper/theirs": "_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper\nmax_batch_size: null",
}
"""A user's own folder of configs."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, but for a folder of configs."""
    for name, text in MINE.items():
        file = tmp_path / "mine" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# @package _global_\n{text}" if name.startswith("experiment") else text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str, script: str = "train") -> int:
    """Exit code of a command of this project, in this process."""
    GlobalHydra.instance().clear()
    dry = ["dry_run=true"] if script == "train" else []
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments, *dry])
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        cli.run(train_script.train if script == "train" else analyze_script.analyze, script)
    except SystemExit as left:
        return int(left.code or 0)
    return 0


REFUSED = {
    "seed=1 seed=2": "seed is given twice, seed=1 and seed=2",
    "seed=1 ++seed=2": "seed is given twice",
    "-m experiment=mini_grid experiment=paper_grid": "with -m all values with commas between them",
    "seed=0..4": "seed=0..4 is a sweep: add -m",
    "seed=0,1": "seed=0,1 is a sweep: add -m",
    "model=glob(*)": "model=glob(*) is a sweep: add -m",
    "-m seed=interval(0,1)": "has no end",
    "-m hydra.sweeper.arms=5": "hydra.sweeper.arms=5: expected a list of mappings of overrides",
    "-m hydra.sweeper.arms=[5]": "hydra.sweeper.arms=[5]: expected a list of mappings of overrides",
    "-m hydra.sweeper.arms=[{seed:{a:1}}]": "hydra.sweeper.arms[0].seed={a: 1}: expected a value, as after =",
    "-m hydra.sweeper.arms=[{seed:0},{seed:0..2}]": "arms: seed=0..2 are 3 values: expected one, or an arm",
    "-m hydra.sweeper.arms=[{intervention:lowprs}]": "intervention=lowprs is unknown: did you mean low_prs?",
    "-m hydra.sweeper.arms=[{intervention:[none,low_prs]}]": "expected different options, and none only alone",
    "-m experiment=armed --config-dir mine hydra.sweeper.arms=[{seed:2}]": "hydra.sweeper.params has seed too",
    "experiment=armed --config-dir mine": "a sweep of data, seed, intervention, intervention.low_prs.strength, grid_",
    "experiment=armed data=mnist5k seed=0 --config-dir mine": "give intervention, intervention.low_prs.strength, grid_",
    "-m seed=4..0": "counts down",
    "-m model=glob(x*)": "matches nothing; there are: cnn6, resnet18, vgg16",
    "-m trainer.devices=1,2": "jobs that differ in trainer.devices alone",
    "-m logger=none,wandb": "jobs that differ in",
    "-m run_dir=x": "run_dir=x is one directory for all jobs",
    "+seed=3": "already at 'seed'",
    "+batchsize=3": "nothing reads batchsize: did you mean batch_size?",
    "-m +batchsize=3,4": "nothing reads batchsize: did you mean batch_size?",
    "++sede=3": "nothing reads sede: did you mean seed or sweep?",
    "+wandb.moed=online": "nothing reads wandb.moed: did you mean wandb.mode",
    "+callbacks.robustnes.limit=4": "callbacks.robustnes has no _target_: did you mean robustness?",
    "+hydra.foo=1": "nothing reads hydra.foo",
    "~seed": "seed is needed",
    "~model": "model is needed",
    "~logger": "logger is needed",
    "~callbacks": "callbacks is needed",
    "-m ~logger seed=0,1": "logger is needed",
    "~data.epsilon": "'data.epsilon' not found",
    "callbacks.robustness=null callbacks.robustness.limit=5": "callbacks.robustness.limit cannot be changed or deleted",
    "~nonsense": "no key 'nonsense'",
    "model=base": "model=base is a part of the others; there are: cnn6, resnet18, vgg16",
    "-m data=base,mnist5k": "data=base is a part of the others",
    "hydra.run.dir=x": "nothing reads hydra.run.dir: run_dir, or runs and sweep, say where",
    "hydra.sweep.dir=x": "nothing reads hydra.sweep.dir",
    "-m hydra.sweep.dir=x seed=0,1": "nothing reads hydra.sweep.dir: runs and sweep say where",
    "-m hydra.sweep.subdir=x": "nothing reads hydra.sweep.subdir",
    "hydra.output_subdir=x": "nothing reads hydra.output_subdir: the run directory keeps config.yaml",
    "hydra.job.chdir=true": "nothing reads hydra.job.chdir: paths are relative to",
    "hydra.job.name=x": "nothing reads hydra.job.name",
    "hydra.launcher.jobs=2": "hydra.launcher.jobs=2 is for sweeps, and this is a single run: add -m",
    "hydra/launcher=ray": "hydra/launcher=ray is for sweeps",
    "+hydra.sweeper.params.seed=1": "is for sweeps",
    "-m hydra/launcher=basic": "hydra/launcher=basic is unknown; there are: processes, ray, slurm, submitit_processes",
    "-m hydra/sweeper=basic": "hydra/sweeper=basic is unknown; there are: ranges",
    "-m --config-dir mine hydra/launcher=theirs": "hydra/launcher must be one of ours",
    "-m --config-dir mine hydra/sweeper=theirs": "hydra/sweeper must be ranges",
    "-m hydra/launcher=nope": "hydra/launcher=nope is unknown",
    "-m hydra.launcher.jobs=1,2": "Sweeping over Hydra's configuration is not supported",
    "-m hydra.mode=RUN": "-m and hydra.mode=RUN contradict each other",
    "experiment=mini_grid": "experiment=mini_grid is a sweep of model, data, batch_size, seed: add -m",
    "experiment=mini_grid seed=0 data=mnist5k": "or for one run of it give model, batch_size, too",
    "-m experiment=mini_grid,nope": "experiment=nope is unknown",
    "-m --cfg job": "--multirun and --cfg exclude each other",
    "--run --multirun": "--run and --multirun exclude each other",
    "--resolve": "--resolve is read with --cfg only",
    "--package data": "--package is read with --cfg only",
    "--config-name x": "--config-name is not for this command",
    "--config-path x": "--config-path is not for this command",
    "--experimental-rerun x": "--experimental-rerun is not for this command",
    "--config-dir nowhere": "nowhere is no folder",
    "--config-dir mine --config-dir other": "--config-dir is given twice, mine and other",
    "hydra.searchpath=[file://nowhere]": "nowhere is no folder",
    "+callbacks.mine=true": "callbacks.mine=true: expected an entry with _target_",
    "batch_size=0": "batch_size=0: expected an integer of 1 or more",
    "--nonsense": "unrecognized arguments: --nonsense",
    "nonsense": "'nonsense' cannot be read",
    "--config-dir mine experiment=lost": "hydra.run.dir=elsewhere: nothing reads hydra.run.dir",
    "-m --config-dir mine experiment=lost": "hydra.run.dir=elsewhere: nothing reads hydra.run.dir",
    "-m --config-dir mine experiment=slow,mine": "hydra.launcher.jobs=0: expected an integer of 1 or more",
    "-m --config-dir mine data=named,twin": "callbacks.robustness.epsilon, data.epsilon alone share runs",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_would_be_ignored_is_refused_in_one_line(
    arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments.split()) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1
    assert REFUSED[arguments] in said.err
    if "experiment=lost" not in arguments:  # Hydra makes that folder before anybody can ask
        assert [path.name for path in folder.iterdir()] == ["mine"]


GRIDS = ("mini_grid", "paper_grid")
HONOURED: dict[str, list[str]] = {
    # a pattern for each line that a dry run prints, in their order, times how often
    "seed=1": ["start: runs/cifar10-cnn6-bs128-seed1"],
    "++seed=1": ["start: runs/cifar10-cnn6-bs128-seed1"],
    "seed=1 seed=1": ["start: runs/cifar10-cnn6-bs128-seed1"],
    "sweep='0..4'": ["start: runs/0..4/cifar10-cnn6-bs128-seed0"],
    "~callbacks.progress": ["start: runs/cifar10-cnn6-bs128-seed0"],
    "~experiment": ["start: runs/cifar10-cnn6-bs128-seed0"],
    "logger=none --run seed=1": ["start: runs/cifar10-cnn6-bs128-seed1"],
    "model=resnet18 +kind=cifar model.stem=${kind}": ["start: runs/cifar10-resnet18-bs128-seed0-......"],
    "hydra.verbose=false": ["start: runs/cifar10-cnn6-bs128-seed0"],
    "+hydra.job.env_set.A=1": ["start: runs/cifar10-cnn6-bs128-seed0"],
    "experiment=mini_grid model=cnn6 data=mnist5k batch_size=16 seed=0":
        ["start: runs/mini_grid/mnist5k-cnn6-bs16-seed0-......"],
    "-m": ["start .* runs/sweep/cifar10-cnn6-bs128-seed0"],
    "seed=0,1 -m batch_size=64": ["start .* runs/sweep/cifar10-cnn6-bs64-seed0", "start .*-seed1"],
    "hydra.mode=MULTIRUN seed=0,1": ["start .*-seed0", "start .*-seed1"],
    "-m sweep=null seed=0,0": ["start .* runs/sweep/cifar10-cnn6-bs128-seed0"],
    "-m model=glob(*)": [f"start .* runs/sweep/cifar10-{model}-bs128-seed0" for model in ("cnn6", "resnet18", "vgg16")],
    "-m data=glob(*mnist*,exclude=x)":
        [f"start .* runs/sweep/{data}-cnn6-bs128-seed0" for data in ("fashion_mnist", "mnist", "mnist5k")],
    "-m experiment=glob(network_*)": ["start .*/cifar10-cnn6-bs2048-seed0", "start .*-bs128-seed0"],
    "-m experiment=mini_grid,paper_grid": ["start .* runs/mini_grid/.*"] * 12 + ["start .* runs/paper_grid/.*"] * 180,
    "-m experiment=paper_grid,quickstart seed=7 batch_size=64,128":
        ["start .* runs/paper_grid/.*-bs(64|128)-seed7"] * 18 + ["start .* runs/quickstart/.*-seed7-......"] * 2,
    "-m experiment=mini_grid,quickstart sweep=both model.learning_rate=0.1,0.2":
        ["start .* runs/both/.*"] * (24 + 2),
    "--config-dir mine data=mine": ["start: runs/mnist5k-cnn6-bs128-seed0-......"],
    "--config-dir mine data=named model=mine": ["start: runs/mine-cnn6-bs128-seed0-......"],
    "--config-dir mine experiment=deep": ["start: runs/cifar10-resnet18-bs128-seed0-......"],
    "hydra.searchpath=[mine] data=mine": ["start: runs/mnist5k-cnn6-bs128-seed0-......"],
    "-m data=mine,other,mnist5k --config-dir mine":
        ["start .*/mnist5k-cnn6-bs128-seed0-......"] * 2 + ["start .*/mnist5k-cnn6-bs128-seed0"],
    "-m data=glob(m*) hydra.searchpath=[mine]":
        [f"start .*/{name}" for name in ("mnist5k-cnn6-bs128-seed0-......", "mnist-.*-seed0", "mnist5k-.*-seed0")],
    "experiment=armed data=mnist5k seed=0 intervention=high_prs --config-dir mine": ["start: runs/armed/mnist5k-.*"],
    "experiment=armed data=mnist5k seed=0 intervention=low_prs intervention.low_prs.strength=2 epochs=2 "
    "grid_epochs=[2] --config-dir mine": ["start: runs/armed/mnist5k-.*"],
    "-m experiment=armed --config-dir mine":
        [f"start .* runs/armed/mnist5k-cnn6-bs128-seed{seed}-......" for seed in (0, 0, 0, 1, 1, 1)],
    "-m experiment=armed seed=3 intervention=low_prs grid_epochs=[300] --config-dir mine":
        ["start .* runs/armed/mnist5k-cnn6-bs128-seed3-......"],
    "-m experiment=armed seed=3 intervention=none,width --config-dir mine":
        ["start .* runs/armed/mnist5k-cnn6-bs128-seed3-......"] * 4,
    "-m experiment=armed batch_size=16,32 hydra.sweeper.arms=null --config-dir mine":
        [f"start .* runs/armed/mnist5k-cnn6-bs{size}-seed{seed}-......" for seed in (0, 1) for size in (16, 32)],
    "-m seed=1 hydra.sweeper.arms=[{batch_size:8},{batch_size:16,model:vgg16}]":
        ["start .* runs/sweep/cifar10-cnn6-bs8-seed1", "start .* runs/sweep/cifar10-vgg16-bs16-seed1"],
    "-m experiment=mine,mini_grid --config-dir mine":
        ["start .* runs/mine/mnist5k-cnn6-bs128-seed[01](-......)?"] * 4 + ["start .* runs/mini_grid/.*"] * 12,
}  # fmt: skip


@pytest.mark.parametrize("arguments", HONOURED)
def test_what_is_honoured_plans_these_runs(
    arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments.split()) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert said.err == ""
    lines, expected = said.out.splitlines(), HONOURED[arguments]
    assert len(lines) == len(set(lines)) == len(expected)
    assert [line for line, pattern in zip(lines, expected, strict=True) if not re.fullmatch(pattern, line)] == []
    assert [path.name for path in folder.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-m runs=a,b", "--multirun is for training: give the command of analyze once for each folder"),
        ("hydra.mode=MULTIRUN runs=a", "is for training"),
        ("runs=a runs=b", "runs is given twice"),
        ("runs=a +sizes.plan=3", "nothing reads sizes.plan: did you mean sizes.plane or"),
        ("runs=a +figure=3", "nothing reads figure: did you mean figures"),
        ("runs=a ~pair.b", "pair.b cannot be changed or deleted: it is null"),
        ("runs=a ~pair.accuracy_tolerance", "pair.accuracy_tolerance is needed"),
        ("runs=a hydra.run.dir=x", "nothing reads hydra.run.dir"),
        ("runs=nowhere +thresholds.mine=0.5", "runs=nowhere is no folder"),  # that key may be added
    ],
)
def test_the_same_for_the_analysis(
    arguments: str,
    expected: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, *arguments.split(), script="analyze") == 1
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1


def test_a_file_that_ours_would_hide_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine" / "data" / "cifar10.yaml").write_text("defaults: [base]\nname: cifar10")
    for where in ("--config-dir=mine", "hydra.searchpath=[file://mine]"):
        assert call(monkeypatch, where) == 1
        assert "mine/data/cifar10.yaml would be ignored" in capsys.readouterr().err


def test_a_job_of_a_sweep_is_no_sweep_whatever_its_experiment_sweeps_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with hydra.sweeper.arms=null, of which the job does not know."""
    given = ("experiment=armed", "data=mnist5k", "seed=0", "--config-dir=mine")
    assert call(monkeypatch, *given) == 1
    monkeypatch.setattr(arguments, "is_child", lambda: True)
    assert call(monkeypatch, *given) == 0


def test_each_experiment_has_its_own_launcher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mini_grid sets two jobs at a time, quickstart leaves it to the machine, and the command line wins."""
    from prs_lightning.sweep.launcher import ProcessLauncher

    seen: list[int] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(ProcessLauncher, "start", lambda self, jobs: seen.append(self.at_once))
    assert call(monkeypatch, "-m", "experiment=mini_grid,quickstart") == 0
    assert call(monkeypatch, "-m", "experiment=mini_grid,quickstart", "hydra.launcher.jobs=3") == 0
    assert seen == [2, 1, 3, 3]


def test_a_rank_takes_what_lightning_adds_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    added = ['hydra.run.dir="."', "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"]
    first = arguments.command_line(["seed=1", "--config-dir", "tests"], "train")
    assert first == [f"--config-dir={Path('tests').absolute()}", "seed=1"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert arguments.command_line([*first, *added], "train") == [*first, *added]
