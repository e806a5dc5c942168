"""Programs end when they are asked to: in one line, with 128 + the signal, soon (docs/architecture.md: law 10)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.ending import python
from tests.sweeping import SLEEPY, wait_for


@pytest.mark.parametrize("delay", [0.15, 0.3, 0.6])
@pytest.mark.parametrize(
    "line", [("train.py", "--help"), ("analyze.py", "runs=nowhere"), ("-m", "prs_lightning.runs", "status", ".")]
)
def test_ctrl_c_while_a_program_starts_is_one_line(line: tuple[str, ...], delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, *line], cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    time.sleep(delay)
    late = process.poll() is not None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    if late or process.returncode in (0, 1):
        pytest.skip("it ended before")
    if process.returncode == -signal.SIGINT:
        pytest.skip("Python itself was not up yet")
    assert process.returncode == 130
    assert said == "interrupted: SIGINT (Ctrl-C); the same command goes on\n"


def test_what_does_not_end_in_time_is_ended_with_its_last_words() -> None:
    process = python(
        "stand()\n"
        "with last_words(lambda error: print('last words:', error.reason, flush=True)), patience(0.5):\n"
        "    while True:\n"
        "        try: print('up', flush=True), time.sleep(60)\n"
        "        except BaseException: pass\n"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, said = process.communicate(timeout=10)
    assert time.monotonic() - began < 5
    assert (process.returncode, output.removeprefix("up\n")) == (143, "last words: SIGTERM\n")
    assert said == "interrupted: SIGTERM; the same command goes on\n"


def test_a_signal_that_python_drops_is_met_again() -> None:
    """Exceptions in ``__del__`` are ignored, by Python."""
    process = python(
        "stand()\n"
        "class Dropped:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        for _ in range(1000): pass\n"
        "Dropped()\n"
        "time.sleep(4)\n"
        "print('went on')\n"
    )
    output, said = process.communicate(timeout=10)
    assert (process.returncode, output) == (143, "")
    assert said == "interrupted: SIGTERM; the same command goes on\n"


def test_only_the_first_signal_counts_on_the_way_out() -> None:
    process = python(
        "stand()\n"
        "with closing_line():\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)\n"
        "    finally: os.kill(os.getpid(), signal.SIGINT); print('closed', flush=True)\n"
    )
    output, said = process.communicate(timeout=10)
    assert (process.returncode, output) == (143, "closed\n")
    assert said == "interrupted: SIGTERM; the same command goes on\n"


def test_a_worker_by_fork_takes_signals_as_its_own() -> None:
    process = python(
        "stand()\n"
        "worker = os.fork()\n"
        "if not worker: time.sleep(60)\n"
        "time.sleep(0.2); os.kill(worker, signal.SIGINT); os.kill(worker, signal.SIGTERM)\n"
        "print(os.waitpid(worker, 0)[1], flush=True); time.sleep(0.5); print('went on', flush=True)\n"
    )
    output, said = process.communicate(timeout=10)
    assert (process.returncode, output, said) == (0, f"{int(signal.SIGTERM)}\nwent on\n", "")


def test_what_was_ignored_from_the_start_stays_so() -> None:
    """As nohup does with SIGHUP."""
    process = python(
        "stand(); os.kill(os.getpid(), signal.SIGHUP); print('went on')",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.communicate(timeout=10) == ("went on\n", "")


def test_one_that_starts_after_its_parent_died_ends_at_once() -> None:
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    process = python("stand(); print('an orphan')", env={**os.environ, "PRS_LIGHTNING_PARENT": str(gone.pid)})
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == -signal.SIGKILL


def test_an_output_that_nobody_reads_ends_nothing() -> None:
    code = (
        "stand(); sys.stdin.read()\n"
        "for _ in range(99): print('x' * 9999, flush=True); print('y', file=sys.stderr)\n"
        "os.write(1, b'past Python'); open(sys.argv[1], 'w').write('done')\n"
    )
    assert "sys.argv[1]" in code
    done = Path(os.environ.get("TMPDIR", "/tmp")) / f"prs-lightning-done-{os.getpid()}"
    process = python(code.replace("sys.argv[1]", repr(str(done))), stdin=subprocess.PIPE)
    for stream in (process.stdout, process.stderr, process.stdin):
        assert stream is not None
        stream.close()
    try:
        assert process.wait(timeout=10) == 0
        assert done.read_text() == "done"
    finally:
        done.unlink(missing_ok=True)


def test_what_only_prints_says_that_it_could_not(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "prs_lightning.runs", "status", str(tmp_path)], cwd=PROJECT, stdout=full,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to the standard output: No space left on device\n"


def test_no_command_follows_a_run_that_was_ended(tmp_path: Path) -> None:
    """``train.py && analyze.py``"""
    line = f"{sys.executable} {SLEEPY} epochs=400 seed=0 data=mnist5k logger=none callbacks=none run_dir={tmp_path}/run"
    process = subprocess.Popen(
        ["bash", "-c", f"{line} && echo went on"], cwd=PROJECT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    wait_for((tmp_path / "run" / "metrics.csv").exists, "a row", 60)
    (trains,) = (int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    os.kill(trains, signal.SIGTERM)
    output, said = process.communicate(timeout=10)
    assert (process.returncode, output) == (143, "")
    assert said == "interrupted: SIGTERM; the same command goes on\n"
