"""Faults of what one run writes and takes up again: rows, checkpoints, run.json, config.yaml, locks, a full disk."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.pytorch.profilers import Profiler

from prs_lightning.errors import DiskError
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.checkpoints import load_plain
from tests.faults.frame import End, Fault, Place, rows

GOES_ON, TOLD, REFUSED, FAILED, INTERRUPTED = End.GOES_ON, End.TOLD, End.REFUSED, End.FAILED, End.INTERRUPTED
LAST, PREVIOUS, COPY = "checkpoints/last.ckpt", "checkpoints/previous.ckpt", "checkpoints/rows.json"
METRICS, RECORD, CONFIG = "metrics.csv", "run.json", "config.yaml"

Harm = Callable[[Path], Any]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_a_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def gone(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "of somebody").write_text("else")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def holds(content: bytes) -> Harm:
    return lambda path: path.write_bytes(content)


def flipped(path: Path) -> None:
    """One bit in the middle, where the numbers are."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def zeroed(path: Path) -> None:
    """A block of a disk."""
    content = bytearray(path.read_bytes())
    start = len(content) // 2 // 4096 * 4096
    assert any(content[start : start + 4096])
    content[start : start + 4096] = bytes(4096)
    path.write_bytes(content)


def harmed(harm: Harm, *names: str, finished: bool = False) -> Callable[[Place], None]:
    """Do it to files of the cut run, or of the finished one, which then counts as the one to be looked at."""

    def inject(place: Place) -> None:
        if finished:
            place.cut = place.finished
            place.before = rows(place.finished)  # type: ignore[attr-defined]
        for name in names:
            harm(place.cut.path / name)

    return inject


def of_before(place: Place) -> None:
    """A run directory as it was before checkpoints named their run and held its rows."""
    for path in place.cut.checkpoints.glob("*.ckpt"):
        torch.save({key: value for key, value in load_plain(path).items() if key not in ("run", "rows")}, path)
    place.cut.rows_file.unlink()
    record = json.loads(place.cut.record_file.read_text())
    del record["config"]
    place.cut.record_file.write_text(json.dumps(record))


def of_before_and(harm: Harm, *names: str) -> Callable[[Place], None]:
    def inject(place: Place) -> None:
        of_before(place)
        harmed(harm, *names)(place)

    return inject


def of_another_run(*names: str, link: bool = False) -> Callable[[Place], None]:
    def inject(place: Place) -> None:
        for name in names:
            (place.cut.path / name).unlink()
            if link:
                (place.cut.path / name).symlink_to(place.finished.path / name)
            else:
                shutil.copy(place.finished.path / name, place.cut.path / name)

    return inject


def of_another_config(place: Place) -> None:
    content = load_plain(place.cut.last_checkpoint)
    torch.save(content | {"run": content["run"] | {"config": "0123456789abcdef"}}, place.cut.last_checkpoint)


def restored(place: Place) -> None:
    assert rows(place.cut) == place.before  # type: ignore[attr-defined]


def kept_aside(name: str) -> Callable[[Place], None]:
    return lambda place: next(place.cut.path.glob(f"{name}*.aside"))


def leftovers(place: Place) -> None:
    for run in (place.cut, place.finished):
        for name in (".metrics.csv.4711.part", ".run.json.0a1b2c3d4e5f6a7b.part", ".mine.part"):
            (run.path / name).write_text("half")
        for name in (".last.ckpt.4711.part", ".rows.json.0a1b2c3d4e5f6a7b.part"):
            (run.checkpoints / name).write_text("half")


def swept(place: Place) -> None:
    assert [path.name for path in place.cut.path.rglob(".*.part")] == [".mine.part"]
    assert len([*place.finished.path.rglob(".*.part")]) == 5


def refuses(number: int, name: str) -> Callable[[Place], None]:
    """The disk refuses to take the file of that name."""

    def inject(place: Place) -> None:
        fsync = os.fsync

        def refusing(descriptor: int) -> None:
            if re.search(rf"/\.?{re.escape(name)}\.\w+\.part$", os.readlink(f"/proc/self/fd/{descriptor}")):
                raise OSError(number, os.strerror(number))
            fsync(descriptor)

        place.patch.setattr(os, "fsync", refusing)

    return inject


def raising(owner: Any, name: str, error: BaseException) -> Callable[[Place], None]:
    def fails(*_: object, **__: object) -> None:
        raise error

    return lambda place: place.patch.setattr(owner, name, fails)


def read_only(place: Place) -> None:
    """Nothing under the folder can be opened for writing, as root knows no permissions."""
    usual = os.open

    def opens(path: Any, flags: int, *more: Any, **keys: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(place.folder)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return usual(path, flags, *more, **keys)

    place.cut.lock_file.touch()
    place.patch.setattr(os, "open", opens)


def no_flock(number: int) -> Callable[[Place], None]:
    return raising(fcntl, "flock", OSError(number, os.strerror(number)))


def no_lease_left(place: Place) -> None:
    assert not [*place.cut.path.glob(".lock.lease*")]


def record_with(**changes: object) -> Harm:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def other_seed(path: Path) -> None:
    path.write_text(path.read_text().replace("seed: 0", "seed: 8"))


SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def some(*names: str, **others: Harm) -> list[tuple[str, Harm]]:
    """Ways to harm a file, by name."""
    return [(name, HARMS[name]) for name in names] + [(name.replace("_", " "), harm) for name, harm in others.items()]


HARMS: dict[str, Harm] = {
    "emptied": holds(b""),
    "cut": cut,
    "gone": gone,
    "other text": holds(b"Dear Sir,\nyour epoch is over.\n"),
    "no text": holds(b"\xff\xfe\x00epoch"),
    "a folder": folder,
    "a link to nowhere": dangling,
}

FAULTS = [
    # Rows: known three times, by metrics.csv, its copy and the checkpoint.
    *(Fault(f"metrics.csv: {how}", GOES_ON, "rows of 2 epochs are restored", harmed(harm, METRICS))
      for how, harm in HARMS.items()),
    Fault("metrics.csv: cut at the end of a line", GOES_ON, "2 epochs are restored", harmed(cut_at_a_line, METRICS)),
    *(Fault(f"the copy of the rows: {how}", GOES_ON, "", harmed(harm, COPY))
      for how, harm in some("cut", "gone", "a folder")),
    Fault("both copies of the rows: gone", GOES_ON, "2 epochs are restored", harmed(gone, METRICS, COPY)),
    Fault("all rows of a run of before: gone", FAILED, "copy .*rows.json are damaged or gone, but 2 epochs were trained"
          ": restore one of them, or move", of_before_and(gone, METRICS)),
    Fault("rows of a run of before: cut at the end of a line", FAILED, "2 epochs were trained: restore one",
          of_before_and(cut_at_a_line, METRICS)),
    Fault("a run of before", GOES_ON, "was written before checkpoints named their run", of_before),
    *(Fault(f"metrics.csv of a finished run: {how}", TOLD, "its rows are restored from .*rows.json",
            harmed(harm, METRICS, finished=True), ("again",), expect=restored)
      for how, harm in some("emptied", "cut", "gone", "a folder")),
    Fault("both copies of a finished run's rows: gone", TOLD, "restored from .*last.ckpt",
          harmed(gone, METRICS, COPY, finished=True), ("again",), expect=restored),
    Fault("a finished run's rows, and the checkpoints: gone", FAILED, "are damaged or gone: restore one of them",
          harmed(gone, METRICS, COPY, LAST, PREVIOUS, finished=True), ("again",)),
    # Checkpoints: verified, and of this run.
    *(Fault(f"last.ckpt: {how}", GOES_ON, "warning: .*last.ckpt is (damaged|no file).*going on from .*previous.ckpt, "
            "and it is kept as .*last.ckpt.aside", harmed(harm, LAST), expect=kept_aside(LAST))
      for how, harm in (HARMS | {"a flipped bit": flipped, "a zeroed block": zeroed}).items()
      if how not in ("gone", "a link to nowhere")),
    *(Fault(f"last.ckpt: {how}", GOES_ON, "", harmed(HARMS[how], LAST)) for how in ("gone", "a link to nowhere")),
    *(Fault(f"previous.ckpt: {how}", GOES_ON, "", harmed(harm, PREVIOUS)) for how, harm in some("cut", "a folder")),
    *(Fault(f"both checkpoints: {how}", FAILED, "last.ckpt is damaged.*previous.ckpt is damaged.*restore it, or move",
            harmed(harm, LAST, PREVIOUS)) for how, harm in {"a flipped bit": flipped, "emptied": holds(b"")}.items()),
    Fault("both checkpoints: gone", FAILED, "previous.ckpt are gone, but 2 epochs were trained: restore one of them",
          harmed(gone, LAST, PREVIOUS)),
    Fault("last.ckpt of another run: copied", GOES_ON, "last.ckpt is a checkpoint of another run.*previous.ckpt",
          of_another_run(LAST)),
    Fault("last.ckpt of another run: linked", GOES_ON, "last.ckpt is a checkpoint of another run.*previous.ckpt",
          of_another_run(LAST, link=True), expect=lambda place: load_plain(place.finished.last_checkpoint)),
    Fault("both checkpoints of another run", FAILED, "last.ckpt is a checkpoint of another run.*previous.ckpt is a",
          of_another_run(LAST, PREVIOUS)),
    Fault("last.ckpt of another config", GOES_ON, "last.ckpt was trained with another config", of_another_config),
    # run.json and config.yaml: checkpoints hold what stood in the one, the command gives the other.
    *(Fault(f"run.json: {how}", GOES_ON, "run.json .*: made anew, as .*last.ckpt tells", harmed(harm, RECORD))
      for how, harm in some("emptied", "cut", "gone", "no text", "a folder", a_list=holds(b"[1]"),
                            an_unknown_status=record_with(status="?"))),
    *(Fault(f"config.yaml: {how}", GOES_ON, "config.yaml damaged or gone: made anew", harmed(harm, CONFIG))
      for how, harm in some("emptied", "cut", "gone", "a folder", a_list=holds(b"- 1"), no_YAML=holds(b"a: ["),
                            another_value=other_seed)),
    Fault("run.json and config.yaml: emptied", GOES_ON, "as .*last.ckpt tells", harmed(holds(b""), RECORD, CONFIG)),
    Fault("run.json of another run", GOES_ON, "run.json damaged or gone: made anew", of_another_run(RECORD)),
    Fault("the copy of another run's rows", GOES_ON, "", of_another_run(COPY)),
    Fault("the copy of another run's rows, in a finished run", TOLD, "",
          lambda place: [harmed(lambda path: None, finished=True)(place), shutil.copy(
              place.whole.rows_file, place.cut.rows_file)], ("again",), expect=restored),
    Fault("run.json of a run of before: emptied", REFUSED, "run.json damaged or gone, and no checkpoint can tell .*"
          "restore it", of_before_and(holds(b""), RECORD)),
    Fault("run.json of a run of before: gone", GOES_ON, "before checkpoints named", of_before_and(gone, RECORD)),
    Fault("config.yaml of a run of before: emptied", REFUSED, "config.yaml damaged or gone, and no checkpoint can tell",
          of_before_and(holds(b""), CONFIG)),
    Fault("config.yaml: emptied, and another command", REFUSED, "config.yaml .*was trained with another",
          harmed(holds(b""), CONFIG), ("train", "run_dir=CUT", "seed=5")),
    Fault("run.json: emptied, and only looked at", REFUSED, "run.json is damaged", harmed(holds(b""), RECORD),
          ("train", "dry_run=true")),
    Fault("config.yaml of a finished run: emptied", TOLD, "config.yaml damaged or gone: made anew",
          harmed(holds(b""), CONFIG, finished=True), ("again",)),
    # Locks, leftovers, and places that can only be read.
    Fault("leftovers of killed writes", GOES_ON, "", leftovers, expect=swept),
    Fault("the lock file: a link", REFUSED, "cannot write .*lock", lambda place: place.cut.lock_file.unlink()
          or place.cut.lock_file.symlink_to(place.folder / "elsewhere")),
    Fault("the lock file: a folder", REFUSED, "cannot write .*lock", harmed(folder, ".lock")),
    *(Fault(f"no flock: {errno.errorcode[number]}", GOES_ON, "", no_flock(number), expect=no_lease_left)
      for number in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)),
    Fault("no flock, and only looked at", TOLD, "1 finished.* 1 interrupted", no_flock(errno.ENOSYS), ("status",)),
    Fault("a place to read only, looked at", TOLD, "1 finished.* 1 interrupted", read_only, ("status",)),
    Fault("a place to read only, asked what would be done", TOLD, "resume: ", read_only, ("train", "dry_run=true")),
    Fault("a place to read only, with a finished run", TOLD, "nothing to train", read_only, ("again",)),
    Fault("a place to read only", INTERRUPTED, "cannot write .*Read-only file system", read_only),
    # A disk that refuses, wherever it is written.
    *(Fault(f"{errno.errorcode[number]} at {name}", INTERRUPTED, f"cannot write .*{name}: .*; make room, then the same "
            "command goes on", refuses(number, name))
      for name, number in {"run.json": errno.ENOSPC, "metrics.csv": errno.EDQUOT, "rows.json": errno.EIO,
                           "epoch-003.ckpt": errno.EROFS, "last.ckpt": errno.ENOSPC}.items()),
    Fault("torch's own words for a full disk", INTERRUPTED, "cannot write .*epoch-003.ckpt: .*make room",
          raising(torch, "save", RuntimeError("[enforce fail at inline_container.cc:672] unexpected pos 704"))),
    Fault("a full disk at a logger", GOES_ON, "logs no more .*No space left on device",
          raising(_ExperimentWriter, "save", SPACE), ("train", "logger=csv")),
    Fault("a full disk at the profile", INTERRUPTED, "cannot write .*No space left on device; make room",
          raising(Profiler, "_prepare_streams", SPACE), ("train", "trainer.profiler=simple")),
    Fault("a full disk at the terminal's file", INTERRUPTED, "cannot write .*No space left on device; make room",
          raising(RunDirectory, "write_rows", SPACE)),
    Fault("a full disk, not even for the record", INTERRUPTED, "cannot write .*make room",
          lambda place: [refuses(errno.ENOSPC, name)(place) for name in ("last.ckpt", "epoch-003.ckpt")]
          and place.patch.setattr(RunDirectory, "update_record", _once(place))),
]  # fmt: skip
"""Every row, with what it must say."""


def _once(place: Place) -> Any:
    """The record is written when the run begins, and no more."""
    usual, calls = RunDirectory.update_record, iter(range(99))

    def update(run: RunDirectory, **changes: object) -> None:
        if next(calls):
            raise DiskError(run.record_file, SPACE)
        usual(run, **changes)

    return update
