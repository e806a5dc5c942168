"""Which files a run's data are, where its config names only the place: a folder or a file may be moved or changed.

Needs no torch, so that the finished runs of another folder of the same name are not taken for one's own.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prs_lightning.errors import RunError

WITH_FILES = ("folder", "npz")
"""Sources whose ``data.root`` is the data set itself."""


def files_digest(data: Mapping[str, Any]) -> str | None:
    """Changes when the files of a config ``data`` do; None if there are none, or its source is not of ``WITH_FILES``.

    Of a folder: the names and sizes of all files in its own folders. Of an .npz: the names, sizes and check sums
    (CRC-32) of its arrays, which it has in a table.
    """
    if data.get("source") not in WITH_FILES or not data.get("root"):
        return None
    entries = (_in_folder if data["source"] == "folder" else _in_archive)(Path(data["root"]))
    lines = list(entries)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return f"{len(lines)} files, {digest}" if lines else None


def _in_folder(root: Path) -> Iterator[str]:
    for part in ("test", "train", "val"):
        for place, folders, files in os.walk(root / part, followlinks=True):
            folders.sort()
            for name in sorted(files):
                path = Path(place, name)
                yield f"{path.relative_to(root).as_posix()} {path.stat().st_size}"


def _in_archive(file: Path) -> Iterator[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.filename)
    except (OSError, zipfile.BadZipFile):  # who reads the arrays says what is wrong
        return
    for member in members:
        yield f"{member.filename} {member.file_size} {member.CRC}"


def refuse_other_files(record: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raise RunError if a run's ``record`` tells of other files than those of the config ``data``."""
    then = (record.get("data") or {}).get("files")
    if then and (now := files_digest(data)) != then:
        raise RunError(
            f"data.root={data['root']} holds {now or 'nothing'}, but the run was begun with {then}: restore them, or "
            "give these data a name of their own, as in data.name=more_pets"
        )
