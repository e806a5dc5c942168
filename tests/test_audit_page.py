"""The audit as a page and as JSON, the command that writes them, and what it refuses."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from prs_lightning.analysis import report
from prs_lightning.analysis.networks import Named, NetworkPair
from prs_lightning.audit import RULE, Audit, audit
from prs_lightning.audit.__main__ import main
from prs_lightning.audit.page import read_json, write
from prs_lightning.audit.pair import audit_pair
from prs_lightning.data import Split, load
from prs_lightning.errors import RunError
from prs_lightning.models import Wrapped
from prs_lightning.runs import RunDirectory
from prs_lightning.runs.checkpoints import AtomicCheckpointIO
from tests.attacked import Scaled, digits, trained
from tests.conftest import PROJECT
from tests.synthetic_runs import write_grid
from tests.test_analysis_report import CHROMIUM, Links, analyze, assert_a_browser_shows, config
from tests.test_audit_verdict import record

QUICK = ("--images", "40", "--steps", "4", "--queries", "5", "--step-size", "0.03", "--epsilon", "0.1")


@pytest.fixture(scope="module")
def masked() -> Audit:
    options = {"epsilon": 0.1, "step_size": 0.025, "steps": 10, "restarts": 2, "square_steps": 5}
    return audit(Scaled(trained(), 1000.0).eval(), *digits(60), **options)


@pytest.fixture(scope="module")
def written(masked: Audit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = {"network": "<b>it</b>", "data": "digits", "sha256": "0" * 64}
    return write(masked, told, tmp_path_factory.mktemp("page"), "audit")[0]


def test_the_page_tells_everything_and_refers_to_nothing_outside(masked: Audit, written: Path) -> None:
    page = written.read_text()
    found = Links(page)
    assert found.ids == ["attacks", "gradients", "indicators", "checks", "rule", "provenance"]
    assert all(link.startswith(("data:", "#")) for link in found.links)
    assert sum(link.startswith("data:image/png;base64,") for link in found.links) == 3
    text = unescape(re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    assert "://" not in text
    assert "&lt;b&gt;it&lt;/b&gt;" in page
    assert masked.verdict.word == "masked: the logits' scale"
    assert f'class="judged not"><b>{masked.verdict.word}</b>' in text
    assert masked.verdict.reason[1:] in text
    for line in (*RULE, *(check.figure for check in masked.checks), f"{masked.audited:.3f}", "60 images of digits"):
        assert line in text
    for trial in masked.findings.trials:
        row = f'{masked.findings.after(trial):.3f}</td><td class="number">{trial.met}</td>'
        assert re.search(f"<td>{re.escape(trial.name)}</td>.*{re.escape(row)}", text)
    for indicator in masked.findings.indicators:
        assert indicator.name in text
        assert indicator.meaning in text
    assert {file.name for file in written.parent.iterdir()} == {"audit.html", "audit.json"}


def test_the_json_is_everything_and_gives_the_same_audit_again(masked: Audit, written: Path, tmp_path: Path) -> None:
    file = written.with_suffix(".json")
    content = json.loads(file.read_text())
    assert content["schema"] == 1
    assert (content["verdict"], content["audited"]) == (masked.verdict.word, masked.audited)
    assert {"sha256", "created", "commit", "versions"} <= content["provenance"].keys()
    again = read_json(file)
    assert again == masked
    assert str(again) == str(masked)
    without = Audit(record(correct=12, distances=(float("inf"), 0.1)))
    write(without, {"network": "n", "data": "d"}, tmp_path, "none")
    content = json.loads((tmp_path / "none.json").read_text())
    assert content["verdict"] is None
    assert "as chance can give" in content["reason"]
    assert content["findings"]["distances"] == [None, 0.1]
    assert read_json(tmp_path / "none.json") == without
    assert "<b>No verdict</b>" in (tmp_path / "none.html").read_text()
    (tmp_path / "none.json").write_text('{"schema": 99}')
    with pytest.raises(RunError, match="schema 99, expected 1"):
        read_json(tmp_path / "none.json")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_shows_it_on_a_desktop_and_a_phone(written: Path, tmp_path: Path) -> None:
    assert_a_browser_shows(written, tmp_path, pictures=3)


def tiny_network() -> torch.nn.Module:
    """The network of the tests; the command makes it by this name."""
    return copy.deepcopy(trained())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save({"state_dict": trained().state_dict()}, file)
    return file


FACTORY = "tests.test_audit_page:tiny_network"


def test_a_command_of_a_user_writes_the_page(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tests.attacked import trained\n\n\ndef network():\n    return trained()\n")
    command = [
        "mine:network", "--weights", str(weights), "--data", "mnist5k", "--overrides", "model.mean=[0.0]",
        "model.std=[1.0]", "--against", FACTORY, "--against-weights", str(weights), *QUICK, "--output", "out",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-m", "prs_lightning.audit", *command], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "verdict: " in done.stdout
    assert "survivors under images of the other network" in done.stdout
    assert done.stdout.rstrip().endswith(f"json: {Path('out/audit-tiny.json')}")
    assert "  temperature 100 ..." in done.stderr.splitlines()
    content = json.loads((tmp_path / "out" / "audit-tiny.json").read_text())
    told = content["provenance"]
    assert told["sha256"] == told["against_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (told["data"], told["images"], told["epsilon"], told["seed"]) == ("mnist5k", 40, 0.1, 0)
    assert content["clean_accuracy"] > 0.8


def a_run(folder: Path) -> RunDirectory:
    """A run that kept its weights at epoch 7."""
    run = RunDirectory(folder / "run")
    shared: dict[str, Any] = {"mean": [0.0], "std": [1.0], "channels": 1, "classes": 10}
    model = {"_target_": "tests.test_audit_page.tiny_network", **shared}
    made = Wrapped(trained(), **shared)
    run.checkpoints.mkdir(parents=True)
    AtomicCheckpointIO(model).save_checkpoint(
        {"state_dict": made.state_dict(), "epoch": 6, "hyper_parameters": dict(made.hparams)}, run.checkpoint(7)
    )
    data = {"name": "mnist5k", "root": "data", "epsilon": 0.3, "step_size": 0.02}
    run.config_file.write_text(yaml.safe_dump({"model": model, "data": data}))
    return run


def test_a_run_at_an_epoch_brings_weights_data_and_epsilon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(tmp_path)
    quick = ("--images", "30", "--steps", "2", "--queries", "2", "--subset", "5")
    for network in (f"{run.path}@7", str(run.checkpoint(7))):
        assert main([network, *quick, "--output", str(tmp_path / "out")]) is None
        told = json.loads((tmp_path / "out" / "audit-epoch-007.json").read_text())["provenance"]
        assert (told["data"], told["epsilon"], told["network"]) == ("mnist5k", 0.3, network)
        assert "verdict: " in capsys.readouterr().out
    assert main([f"{run.path}@8", *quick]) == 1
    assert "kept no weights of epoch 8 (there are: epoch-007.ckpt)" in capsys.readouterr().err
    assert main([f"{run.path}@7", "--weights", "w.pth", *quick]) == 1
    assert "--weights: " in capsys.readouterr().err
    assert (
        main([f"{run.path}@7", "--overrides", "data.test_limit=10", "--output", str(tmp_path / "few"), *quick]) is None
    )
    assert json.loads((tmp_path / "few" / "audit-epoch-007.json").read_text())["verdict"] is None


def test_bad_input_is_one_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "half.pth").write_bytes(weights.read_bytes()[:2000])
    torch.save(trained(), tmp_path / "code.pth")
    torch.save(dict(list(trained().state_dict().items())[1:]), tmp_path / "less.pth")
    given = [FACTORY, "--data", "mnist5k", *QUICK]
    whole = [*given, "--weights", str(weights)]
    cases = [
        ([FACTORY], "--weights is not given: tests.test_audit_page:tiny_network is no checkpoint"),
        ([FACTORY, "--weights", str(weights)], "--data is not given"),
        ([*given, "--weights", "absent.pth"], "absent.pth does not exist"),
        ([*given, "--weights", str(tmp_path / "half.pth")], "half.pth is damaged or no checkpoint"),
        ([*given, "--weights", str(tmp_path / "code.pth")], "which could run code"),
        ([*given, "--weights", str(tmp_path / "less.pth")], "does not fit Sequential: it lacks 0.weight"),
        (["gone:Net", *given[1:], "--weights", str(weights)], "there is no package gone"),
        (["cnn7", *given[1:], "--weights", str(weights)], "model=cnn7 is unknown: did you mean cnn6"),
        ([*whole, "--data", "mnist6k"], "data=mnist6k is unknown: did you mean mnist5k"),
        ([*whole, "--images", "0"], "--images=0 must be an integer of 1 or more"),
        ([*whole, "--steps", "some"], "argument --steps: invalid int value: 'some'"),
        ([*whole, "--epsilon", "8"], "epsilon=8 must be 1 or less"),
        ([*whole, "--device", "gpu7"], "--device gpu7: "),
        ([*whole, "--against-weights", "w.pth"], "--against is not given"),
        ([*whole, "--against", "runs/none@3"], "runs/none is no run directory"),
        ([*whole, "--overrides", "epochs=3"], "--overrides epochs=3: "),
        (["runs/none@3"], "runs/none is no run directory: expected RUN@EPOCH"),
        ([str(tmp_path / "none.ckpt")], "none.ckpt does not exist"),
        ([], "the following arguments are required: network"),
    ]
    for arguments, words in cases:
        assert main(arguments) == 1, arguments
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ")
        assert words in said
        assert "\n" not in said
    (tmp_path / "file").write_text("")
    assert main([*whole, "--images", "20", "--output", str(tmp_path / "file")]) == 1
    assert "cannot write" in capsys.readouterr().err.splitlines()[-1]


def test_the_audits_of_the_pair_are_kept_until_networks_or_size_change(tmp_path: Path) -> None:
    train, test = load("mnist5k", "data")
    asked: list[str] = []

    def networks() -> NetworkPair:
        asked.append("pair")
        both = (Named("A", trained(), "A: <plain>"), Named("B", Scaled(trained(), 1000.0).eval(), "B: loud"))
        return NetworkPair(*both, train, Split(test.images, test.labels), 0.1, 0.025)

    options = {"folder": tmp_path, "key": "one", "size": 60}
    said: list[str] = []
    found = audit_pair(networks, **options, progress=said.append)
    assert [(each.letter, each.verdict) for each in found] == [
        ("A", "trustworthy"), ("B", "masked: the logits' scale")
    ]  # fmt: skip
    assert "A: &lt;plain&gt;" in (tmp_path / "audit-a.html").read_text()
    assert audit_pair(networks, **options, progress=said.append) == found
    assert len(asked) == 1
    assert said[-1] == "audit of network B: kept"
    (tmp_path / "audit-b.html").unlink()
    assert audit_pair(networks, **options, progress=said.append) == found
    assert said[-3] == "audit of network A: kept"
    assert len(asked) == 2
    small = audit_pair(networks, **options | {"size": 10})
    assert [each.verdict for each in small] == [None, None]
    assert len(asked) == 3

    def broken() -> NetworkPair:
        raise RunError("no\ncheckpoint")

    lines = audit_pair(broken, **options | {"key": "two"})
    assert [str(each) for each in lines] == [f"network {letter}: no verdict: no checkpoint" for letter in "AB"]


def test_the_report_shows_the_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_grid(tmp_path, batch_sizes=(64,), seeds=range(1), epochs=4, grid=(2, 4))
    audits = [report.Audited("A", "trustworthy", "nothing <beats> it", tmp_path / "audit-a.html")]
    kept: list[report.Evidence] = []
    original = report.write_report

    def with_audits(evidence: report.Evidence, folder: Path) -> Path:
        kept.append(evidence)
        return original(replace(evidence, audits=audits), folder)

    monkeypatch.setattr(report, "write_report", with_audits)
    analyze(config(tmp_path))
    assert kept[0].audits == []
    page, text = ((tmp_path / "report" / name).read_text() for name in ("report.html", "report.md"))
    assert "Network A: <b>trustworthy</b>. nothing &lt;beats&gt; it. Page: <code>audit-a.html</code>." in page
    assert "Network A: **trustworthy**. nothing &lt;beats&gt; it. Page: `audit-a.html`." in text
