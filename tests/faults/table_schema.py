"""Values of the config that cannot work: each is one line, before anything is made (prs_lightning/schema)."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.frame import End, Fault, Place


def refused(*overrides: str, says: str, command: str = "train", name: str = "") -> Fault:
    return Fault(f"{command} {' '.join(overrides)}{name}", End.REFUSED, says, command=(command, *overrides))


def with_file(name: str, text: str) -> Callable[[Place], object]:
    """A file of the user's beside the runs."""

    def write(place: Place) -> None:
        file = place.folder.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


FAULTS = [
    # values
    refused("model.channels=nan", says="model.channels=nan: expected an integer of 1 or more"),
    refused("trainer.devices=0", says="trainer.devices=0: expected a number of 1 or more, auto"),
    refused("data.epsilon=abc", says="data.epsilon=abc: expected a number above 0"),
    refused("data.seed=-1", says="data.seed=-1: expected an integer from 0"),
    refused("grid_epochs=5", says="grid_epochs=5: expected a list"),
    refused("grid_epochs=[-1]", says=r"grid_epochs=\[-1\]: expected a list of different epochs"),
    refused("grid_epochs=[nan]", says=r"grid_epochs=\[nan\]: expected"),
    refused("grid_epochs=[a]", says=r"grid_epochs=\[a\]: expected"),
    refused("grid_epochs=[4]", says="epoch 4 is never reached: the run has epochs=3"),
    refused("runs=null", says="runs=null: expected a path"),
    refused("callbacks.robustness=5", says="callbacks.robustness=5: expected an entry with _target_"),
    refused("callbacks.robustness.audit=abc", says="audit=abc: expected true or false"),
    refused("logger=null", says="logger=null: expected an option by its name; there are: csv"),
    refused("logger=[csv,csv]", says="expected different options"),
    refused("logger=[none,csv]", says="none only alone"),
    refused("model=5", says="model=5: expected an option by its name; there are: cnn6"),
    refused("trainer.deterministic=abc", says="deterministic=abc: expected null, true, false or warn"),
    refused("trainer.accumulate_grad_batches=-1", says="accumulate_grad_batches=-1: expected an integer of 1 or more"),
    refused(f"batch_size={10**20}", says="expected 2147483647 at most"),
    refused("seed=true", says="seed=true: expected an integer"),
    refused("+callbacks.regions.layr=head", says="nothing reads callbacks.regions.layr: did you mean .*layer"),
    refused("~callbacks.robustness.epsilon", says="callbacks.robustness.epsilon is needed"),
    # finished without the training that was asked for
    refused("trainer.max_epochs=0", says="trainer.max_epochs=0: expected"),
    refused("trainer.max_epochs=-1", says="trainer.max_epochs=-1: expected"),
    refused("trainer.max_epochs=2", says="set epochs instead"),
    refused("trainer.max_steps=0", says="trainer.max_steps=0: expected an integer of 1 or more, or -1"),
    refused("trainer.max_steps=7", says="ends within an epoch, which has 5 steps"),
    refused("trainer.limit_train_batches=0", says="limit_train_batches=0: expected null or 1.0"),
    refused("trainer.fast_dev_run=true", says="fast_dev_run=true: expected false"),
    refused("callbacks.records=null", says="nothing would be kept of the run"),
    # names and places
    refused("sweep=..", says="sweep=..: expected a name for a folder"),
    refused("sweep=''", says="sweep='': expected a name for a folder"),
    refused("sweep=/tmp/elsewhere", says="expected a name for a folder"),
    refused("run_dir=''", says="run_dir='': expected a path"),
    refused("logger=csv", "logger.csv.save_dir=..", says="expected a folder in the run directory"),
    # of other sets, and of the machine
    refused("data.train_limit=4001", says="exceeds the 4000 samples"),
    refused("callbacks.robustness.limit=41", says="exceeds the 40 test samples"),
    refused("batch_size=21", "trainer.devices=2", says="must be a multiple of the 2 devices"),
    refused("hydra.verbose=5", says="hydra.verbose=5: expected true, false, or the names"),
    refused("hydra/job_logging=default", says="writes train.log"),
    # sweeps: every job before the first
    refused("seed=0,-1", says="seed=-1: expected an integer from 0", command="sweep"),
    refused("hydra.launcher.jobs=0", says="hydra.launcher.jobs=0: expected an integer of 1 or more", command="sweep"),
    refused("hydra.launcher.gpus=abc", says="gpus=abc: expected auto, null, or a list", command="sweep"),
    refused("data=glob(*)", says="data=folder.*: data.root is not given", command="sweep"),
    refused("callbacks.robustness.limit=20,41", says="limit=41 exceeds the 40 test samples", command="sweep"),
    refused("sweep=''", says="sweep='': expected", command="sweep"),
    # one's own
    refused("+callbacks.mine._target_=gone.Thing", says="callbacks.mine._target_=gone.Thing: there is no package gone"),
    refused(
        "+callbacks.mine._target_=lightning.pytorch.callbacks.EarlyStopping", says="callbacks.mine.monitor is needed"
    ),
    refused("+model.wdth=3", "model._target_=tests.any_networks.Convolutional", says="no such argument.* width"),
    Fault(
        "a callback that fails as it is made", End.REFUSED, "callbacks.mine: ZeroDivisionError: division by zero",
        with_file("mine/callbacks/broken.yaml", "mine: {_target_: tests.faults.table_schema.broken}"),
        ("train", "callbacks=[default,broken]", "hydra.searchpath=[mine]"),
    ),
    # the analysis
    refused("bootstrap.draws=nan", says="bootstrap.draws=nan: expected an integer of 100", command="analyze"),
    refused("bootstrap.level=1", says="bootstrap.level=1: expected a number from 0.5", command="analyze"),
    refused("thresholds.mnist=abc", says="thresholds.mnist=abc: expected a number from 0 to 1", command="analyze"),
    refused("grid_epochs=[-1]", says=r"grid_epochs=\[-1\]: expected", command="analyze"),
    refused("figures=[99]", says=r"figures=\[99\]: expected some of", command="analyze"),
    refused("sizes.plane=abc", says="sizes.plane=abc: expected an integer from 2", command="analyze"),
    refused("force=abc", says="force=abc: expected true or false", command="analyze"),
    refused("pair.a=x@1", "pair.b=x@2", says="no run is called x", command="analyze"),
    refused("output=''", says="output='': expected a path", command="analyze"),
    refused("wandb.tags=5", says="wandb.tags=5: expected a list", command="analyze"),
]  # fmt: skip


def broken() -> None:
    """A callback of the user's with a fault."""
    _ = 1 / 0
