"""Files that are there whole or as they were before, and no link that somebody planted is followed."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import pytest

from prs_lightning.errors import DiskError, RunError
from prs_lightning.runs.writing import set_aside, sweep_parts, write_atomically, write_text


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_text("of somebody")
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)  # or nobody could plant one
    (tmp_path / f".file.{'0' * 16}.part").symlink_to(precious)
    with pytest.raises(RunError, match=r"cannot write .*file: File exists"):
        write_text(tmp_path / "file", "ours")
    assert precious.read_text() == "of somebody"


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("of somebody")
    (tmp_path / "file").symlink_to(precious)
    write_text(tmp_path / "file", "ours")
    assert (precious.read_text(), (tmp_path / "file").read_text()) == ("of somebody", "ours")
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_as_readable_as_others(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_the_rename_reaches_the_disk_after_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    write_text(tmp_path / "file", "ours")
    assert [Path(path).suffix for path in flushed] == [".part", ""]
    assert flushed[1] == str(tmp_path)


def test_what_is_not_the_disks_fault_is_not_called_so(tmp_path: Path) -> None:
    (tmp_path / "no folder").touch()
    with pytest.raises(RunError, match="cannot write .*file: File exists") as caught:
        write_text(tmp_path / "no folder" / "file", "")
    assert not isinstance(caught.value, DiskError)

    def breaks(file: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access")

    with pytest.raises(RuntimeError, match=r"^CUDA error"):
        write_atomically(tmp_path / "file", breaks)


def test_only_ones_own_leftovers_are_swept_up(tmp_path: Path) -> None:
    ours = [".run.json.4711.part", ".run.json.00ff00ff00ff00ff.part"]
    others = ["run.json", ".run.json.part", ".notes.txt.4711.part", ".run.json.4711.partial", "run.json.4711.part"]
    for name in (*ours, *others):
        (tmp_path / name).touch()
    (tmp_path / ".run.json.47.part").mkdir()
    sweep_parts(tmp_path, r"run\.json")
    assert {path.name for path in tmp_path.iterdir()} == {*others, ".run.json.47.part"}
    sweep_parts(tmp_path / "nowhere", r"run\.json")


def test_what_is_set_aside_is_kept_however_often(tmp_path: Path) -> None:
    assert set_aside(tmp_path / "file") is None
    for content in "abc":
        (tmp_path / "file").write_text(content)
        set_aside(tmp_path / "file")
    assert sorted(path.read_text() for path in tmp_path.glob("file.*aside")) == ["a", "b", "c"]
