"""Faults met by who reads many runs, and texts of others that leave us in tables, reports and terminals."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from prs_lightning.runs import RunDirectory
from prs_lightning.runs.finding import SWEEP_FILE
from tests.faults.frame import End, Fault, Place

STATUS, SYNC, ANALYZE = ("status",), ("sync",), ("analyze",)
ELSEWHERE = ("analyze", "output=FOLDER/../elsewhere")
COPY = "checkpoints/rows.json"


def each(*harms: Callable[[Place], Any]) -> Callable[[Place], None]:
    def inject(place: Place) -> None:
        for harm in harms:
            harm(place)

    return inject


def holds(name: str, content: str | bytes) -> Callable[[Place], Any]:
    """A file of the finished run holds something else."""
    encoded = content if isinstance(content, bytes) else content.encode()
    return lambda place: (place.finished.path / name).write_bytes(encoded)


def gone(name: str) -> Callable[[Place], Any]:
    return lambda place: (place.finished.path / name).unlink()


def a_folder(name: str) -> Callable[[Place], Any]:
    return each(gone(name), lambda place: (place.finished.path / name).mkdir())


def huge(name: str) -> Callable[[Place], Any]:
    return lambda place: os.truncate(place.finished.path / name, 2**40)


def says(**entries: Any) -> Callable[[Place], Any]:
    """Entries of the finished run's record."""

    def inject(place: Place) -> None:
        place.finished.record_file.write_text(json.dumps(place.finished.record() | entries))

    return inject


def configured(**entries: Any) -> Callable[[Place], Any]:
    def inject(place: Place) -> None:
        place.finished.config_file.write_text(yaml.safe_dump(place.finished.config() | entries))

    return inject


def rows_edited(edit: Callable[[str], str]) -> Callable[[Place], Any]:
    """The finished run's rows, and no copy of them."""

    def inject(place: Place) -> None:
        place.finished.rows_file.unlink()
        place.finished.metrics_file.write_bytes(edit(place.finished.metrics_file.read_text()).encode())

    return inject


def linked(name: str, target: str) -> Callable[[Place], Any]:
    return lambda place: (place.folder / name).symlink_to(target)


def copied(name: str) -> Callable[[Place], Any]:
    """The whole folder of runs in itself."""

    def inject(place: Place) -> None:
        shutil.copytree(place.folder, place.folder.parent / "copy")
        shutil.move(place.folder.parent / "copy", place.folder / name)

    return inject


def called(name: str) -> Callable[[Place], Any]:
    """Another run, copied and with an identity of its own, under a name of somebody's."""

    def inject(place: Place) -> None:
        run = RunDirectory(shutil.copytree(place.finished.path, place.folder / name))
        run.update_record(wandb_id="another")

    return inject


def watched(place: Place) -> None:
    """Keep what is there, to the moment of each change."""
    place.before = state(place.folder)  # type: ignore[attr-defined]


def state(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def untouched(place: Place) -> None:
    assert state(place.folder) == place.before  # type: ignore[attr-defined]


def seems_alive(place: Place) -> None:
    place.cut.update_record(status="running", pid=1)
    place.cut.lock_file.touch()


def no_new_folder(place: Place) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system", str(path))

    place.patch.setattr(os, "mkdir", refuse)


def no_folder(place: Place) -> None:
    shutil.rmtree(place.folder)
    place.folder.write_text("a file")


def without_wandb(place: Place) -> None:
    (place.finished.path / "wandb" / "offline-run-1").mkdir(parents=True)
    place.patch.setattr(importlib.util, "find_spec", lambda name: None)


def uploads(place: Place) -> None:
    """W&B only says what it is given."""

    def run(line: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        print(*(f"upload:{Path(word).parent.parent.name}" for word in line[4:]))
        return subprocess.CompletedProcess(line, 0)

    (place.finished.path / "wandb" / "offline-run-1").mkdir(parents=True)
    place.patch.setattr(subprocess, "run", run)


def report(name: str) -> Callable[[Place], str]:
    return lambda place: (place.folder / "report" / name).read_text()


def holds_no(text: str, *names: str) -> Callable[[Place], None]:
    def expect(place: Place) -> None:
        for name in names:
            assert text not in report(name)(place), name

    return expect


def runs_of(number: int) -> Callable[[Place], None]:
    def expect(place: Place) -> None:
        assert len(report("runs.csv")(place).splitlines()) == 1 + number

    return expect


def finds(name: str, text: str) -> Callable[[Place], None]:
    def expect(place: Place) -> None:
        assert text in report(name)(place)

    return expect


TOLD, REFUSED = End.TOLD, End.REFUSED
NAMED = r"2 runs.*; 1 messages\n.*seed1\S*: "
SCRIPT = "<script>alert(1)<"

FAULTS = [
    Fault("status: run.json empty", TOLD, r"1 unreadable", holds("run.json", ""), STATUS),
    Fault("status: run.json zeroed", TOLD, r"1 unreadable", holds("run.json", b"\0" * 512), STATUS),
    Fault("status: run.json a list", TOLD, r"1 unreadable", holds("run.json", "[]"), STATUS),
    Fault("status: run.json a number", TOLD, r"1 unreadable", holds("run.json", "7"), STATUS),
    Fault("status: run.json no UTF-8", TOLD, r"1 unreadable", holds("run.json", b"\xff\xfe{}"), STATUS),
    Fault("status: run.json cut", TOLD, r"1 unreadable", holds("run.json", '{"status": "fin'), STATUS),
    Fault("status: run.json a folder", TOLD, r"1 unreadable", a_folder("run.json"), STATUS),
    Fault("status: run.json huge", TOLD, r"1 unreadable", huge("run.json"), STATUS),
    Fault("status: run.json deleted", TOLD, r"1 unreadable", gone("run.json"), STATUS),
    Fault("status: a status that there is not", TOLD, r"1 unreadable", says(status="done"), STATUS),
    Fault("status: a reason that is a number", TOLD, r"\b5\b", says(status="failed", reason=5), STATUS),
    Fault("status: metrics.csv no text", TOLD, "1 finished", holds("metrics.csv", b"\xff\0"), STATUS),
    Fault("status: sweep.json cut", TOLD, r"sweep\.json is damaged", lambda place: (place.folder / SWEEP_FILE).write_text("{"), STATUS),
    Fault("status: a copied folder", TOLD, r"(?s)1 finished.*1 interrupted.*backup holds 2 copies", copied("backup"), STATUS),
    Fault("status: a link to nothing", TOLD, "here is a link that leads nowhere", linked("here", "gone"), STATUS),
    Fault("status: links in a circle", TOLD, "1 finished.* 1 interrupted", each(linked("a", "."), linked("b", "a/b")), STATUS),
    Fault("status: a link to what it lies in", TOLD, "up links to a folder that it lies in", linked("up", "/"), STATUS),
    Fault("status: only looks", TOLD, "2 interrupted|1 interrupted", each(seems_alive, watched), STATUS, expect=untouched),
    Fault("status: of a file", REFUSED, "is no folder", no_folder, STATUS),
    Fault("status: a word too many", REFUSED, "unrecognized arguments: --frob", command=("status", "--frob")),
    Fault("sync: run.json garbage", TOLD, r"seed1\S*: run\.json is damaged", holds("run.json", "x"), SYNC),
    Fault("sync: a copied folder", TOLD, r"(?s)2 copies.*upload:(?!.*upload:)", each(uploads, copied("backup")), SYNC),
    Fault("sync: without W&B", REFUSED, "wandb is not installed", without_wandb, SYNC),
    Fault("sync: of a file", REFUSED, "is no folder", no_folder, SYNC),
    Fault("analyze: run.json garbage", TOLD, NAMED + r"run\.json is damaged", holds("run.json", "x"), ANALYZE),
    Fault("analyze: config.yaml garbage", TOLD, r"seed1\S*: config\.yaml is damaged", holds("config.yaml", b"\xff"), ANALYZE),
    Fault("analyze: config.yaml a list", TOLD, r"config\.yaml is damaged \(a list\)", holds("config.yaml", "- 1"), ANALYZE),
    Fault("analyze: config.yaml with code", TOLD, r"config\.yaml is damaged", holds("config.yaml", "a: !!python/name:os.system"), ANALYZE),
    Fault("analyze: versions a list", TOLD, "2 runs, .*; 0 messages", says(versions=[]), ANALYZE),
    Fault("analyze: a seed that is a word", TOLD, "seed=abc is no number", configured(seed="abc"), ANALYZE),
    Fault("analyze: metrics.csv cut", TOLD, rf"5 rows.*\n.*not as it was written: its rows are those of {COPY}", holds("metrics.csv", "epoch"), ANALYZE),
    Fault("analyze: metrics.csv deleted", TOLD, rf"5 rows.*\n.*is missing: its rows are those of {COPY}", gone("metrics.csv"), ANALYZE),
    Fault("analyze: metrics.csv and its copy cut", TOLD, r"4 rows.*\n.*cut in line 4", rows_edited(lambda text: text[:-2]), ANALYZE),
    Fault("analyze: epoch 1.5", TOLD, "without an epoch", rows_edited(lambda text: text.replace("\n1,", "\n1.5,")), ANALYZE),
    Fault("analyze: a column twice", TOLD, "stand there twice", rows_edited(lambda text: text.replace("train/loss", "test/loss", 1)), ANALYZE),
    Fault("analyze: a column called seed", TOLD, "are no measures", rows_edited(lambda text: text.replace("train/loss", "seed", 1)), ANALYZE),
    Fault("analyze: lines of Windows", TOLD, "5 rows; 0 messages", rows_edited(lambda text: "\ufeff" + text.replace("\n", "\r\n")), ANALYZE),
    Fault("analyze: a copied folder", TOLD, "2 runs, 5 rows; 1 messages", copied("backup"), ANALYZE, expect=runs_of(2)),
    Fault("analyze: a linked folder", TOLD, "2 runs, 5 rows; 0 messages", linked("again", "."), ANALYZE, expect=runs_of(2)),
    Fault("analyze: only reads", TOLD, "report: .*elsewhere", each(seems_alive, watched), ELSEWHERE, expect=untouched),
    Fault("analyze: no place to write", REFUSED, "cannot write into .*report.*Read-only.*output=", no_new_folder, ANALYZE),
    Fault("analyze: markup in a name", TOLD, "report: ", called(SCRIPT), ANALYZE, expect=holds_no(SCRIPT, "report.html", "report.md")),
    Fault("analyze: markup in a reason", TOLD, "report: ", says(reason=SCRIPT + "\n|`"), ANALYZE, expect=holds_no(SCRIPT, "report.html", "report.md")),
    Fault("analyze: a name that is a formula", TOLD, "report: ", called("=1+1"), ANALYZE, expect=finds("runs.csv", "\n'=1+1,")),
    Fault("analyze: a config that is a formula", TOLD, "report: ", configured(note="=1+1"), ANALYZE, expect=finds("table.csv", ",'=1+1")),
    Fault("status: colours in a name", TOLD, r"(?s)^(?!.*\x1b).*\\x1b\[2J", each(called("\x1b[2Jx"), lambda place: RunDirectory(place.folder / "\x1b[2Jx").update_record(status="failed")), STATUS),
    Fault("status: colours in a reason", TOLD, r"(?s)^(?!.*\x1b).*\\x1b\[31m.*\[red\]", says(status="failed", reason="\x1b[31m [red]x"), STATUS),
    Fault("analyze: colours in a name", TOLD, r"(?s)^(?!.*\x1b).*\\x1b\[2Jx: config\.yaml", each(called("\x1b[2Jx"), lambda place: (place.folder / "\x1b[2Jx" / "config.yaml").write_text("")), ANALYZE),
    Fault("sweep: a plan only reads", TOLD, r"start .*seed0", watched, ("sweep", "dry_run=true"), expect=untouched),
    Fault("import: into a run", REFUSED, "is a run itself", command=("import", "CUT/checkpoints/epoch-001.ckpt", "--network", "tests.any_networks:Convolutional", "--data", "mnist5k", "--epoch", "1", "--into", "CUT")),
]  # fmt: skip
