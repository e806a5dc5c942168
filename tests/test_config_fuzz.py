"""Every leaf of every YAML of both programs times 13 values that are mostly bad: each is accepted as listed here, or
refused in one line, with exit code 1 and nothing made."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

import analyze as analyze_script
import train as train_script
from prs_lightning.runs.naming import flatten
from prs_lightning.sweep import cli
from tests.conftest import PROJECT

CONF = PROJECT / "conf"
VALUES = ("null", "''", "abc", "-1", "0", str(10**20), "nan", "inf", "[-1]", "[a]", "{a:1}", "true", "'..'")
SELECT = {  # what else a command needs so that a file's leaves are there
    "data/folder": ("data=folder", "data.root=pets"),
    "data/npz": ("data=npz", "data.root=pets.npz"),
    "data/torchvision": ("data=torchvision", "data.dataset=CIFAR100"),
    "experiment/mini_grid": ("-m", "experiment=mini_grid", "seed=0"),
    "experiment/paper_grid": ("-m", "experiment=paper_grid", "seed=0"),
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
        prefix = "" if group in ("", "experiment") else group.replace("/", ".") + "."
        command: tuple[str, ...] = ()
        if group and option != "base":
            command = SELECT.get(name, (f"{group}={option}",))
        if group.startswith("hydra/"):
            command = ("-m", *command)
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
    given = [word for word in leaf.command if not word.startswith(f"{leaf.key}=")]
    also = {"train": "dry_run=true", "analyze": "runs=nowhere"}[leaf.program]
    given += [] if also.startswith(f"{leaf.key}=") else [also]
    return told(leaf.program, *given, f"{leaf.key}={value}")


if __name__ == "__main__":
    import time, tempfile

    os.environ["HYDRA_FULL_ERROR"] = "0"
    os.chdir(tempfile.mkdtemp())
    step = int(sys.argv[1])
    every = [(l, v) for l in leaves() for v in VALUES]
    print(len(every))
    t = time.process_time()
    for l, v in every[::step]:
        r = tried(l, v)
        if r.code == 0 or "nowhere is no folder" in r.err:
            kind = "ACCEPTED"
        elif r.code == 1 and r.err.startswith("error: ") and len(r.err.splitlines()) == 1 and not r.out:
            kind = "clear"
        else:
            kind = "NOTCLEAR"
        if os.listdir("."):
            kind += " MADE " + str(os.listdir("."))
        print(
            kind,
            l.file,
            f"{l.key}={v}",
            "|",
            (r.err if kind != "ACCEPTED" else "")[-400:].replace("\n", " / "),
            flush=True,
        )
    print(time.process_time() - t)
