"""Freed memory is kept: far fewer page faults for the same work."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from prs_lightning.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    for _ in range(20):
        torch.ones(10_000_000)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_the_next_batch_finds_the_memory_of_the_last() -> None:
    faults = {
        way: int(subprocess.check_output([sys.executable, "-c", FAULTS, way], text=True)) for way in ("keep", "give")
    }
    if faults["give"] < 1000:
        pytest.skip("this system does not count page faults")
    assert faults["keep"] < faults["give"] / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from prs_lightning import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert memory.keep_freed_memory() is False
