"""analyze.py from run directories to the report, and the report in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from analyze import analyze
from prs_lightning.analysis.verdict import RULE
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.runs import write_text
from prs_lightning.sweep.cli import CONFIG_FOLDER
from tests.synthetic_runs import write_grid, write_run

PROJECT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def assert_a_browser_shows(written: Path, folder: Path, *, pictures: int) -> None:
    """Every picture, on a desktop and a phone, all unfolded, without an error, a request or a line that is too long.

    The policy in the page forbids every request; here it lets this script in, and violations go to the console.
    """
    probe = """<script>addEventListener("load", () => { document.body.dataset.pictures =
        [...document.images].map(i => i.complete && i.naturalWidth > 99).join();
        document.body.dataset.requests = performance.getEntriesByType("resource").length;
        document.body.dataset.overflow = document.documentElement.scrollWidth > innerWidth; })</script></body>"""
    page = written.read_text().replace("</body>", probe).replace("<details>", "<details open>")
    page = page.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    (folder / "page.html").write_text(page)
    for width in (1280, 390):
        command = [
            str(CHROMIUM), *FLAGS, f"--window-size={width},900", "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "page.html").as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert f'data-pictures="{",".join(["true"] * pictures)}"' in done.stdout, done.stderr
        assert 'data-overflow="false"' in done.stdout
        assert "CONSOLE" not in done.stderr
        assert 'data-requests="0"' in done.stdout


def config(runs: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        quick = ["wandb.mode=disabled", "bootstrap.draws=200", "figures=none"]
        return compose("analyze", [f"runs={runs}", *quick, *overrides])


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 12 runs with two figures, a collapsed run, a purely between-run effect and a damaged CSV."""
    runs = tmp_path_factory.mktemp("runs")
    written = write_grid(
        runs, batch_sizes=(64, 2048), seeds=range(6), epochs=20, grid=(5, 10, 15, 20), within=0.0, between=-0.8,
        run_noise=0.02, collapsed=(2,),
    )  # fmt: skip
    written[4].rows_file.unlink()
    text = written[4].metrics_file.read_text()
    write_text(written[4].metrics_file, text[: len(text) - 20])
    failed = {"test/accuracy": np.array([0.5]), "prs/ratio": np.array([0.9])}
    write_run(runs, failed, seed=99, status="failed", reason="RunError: <the loss> is not finite")
    analyze(config(runs, "figures=[4,5]"))
    return runs / "report"


class Links(HTMLParser):
    """Everything that a page refers to, its pictures, and its headings in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.links += [value for key in ("src", "href") if (value := named.get(key)) is not None]
        self.ids += [named["id"]] if named.get("id") else []


def test_the_report_holds_everything_in_its_order_and_refers_to_nothing_outside(analyzed: Path) -> None:
    page = (analyzed / "report.html").read_text()
    found = Links(page)
    assert [name for name in found.ids if not name.startswith("figure-")] == [
        "words", "scoreboard", "coupled", "figures", "methods", "selection", "environment", "config", "runs"
    ]  # fmt: skip
    assert [name for name in found.ids if name.startswith("figure-")] == ["figure-4", "figure-5"]
    assert all(link.startswith(("data:", "#")) for link in found.links)
    assert sum(link.startswith("data:image/png;base64,") for link in found.links) == 2
    assert "://" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert all(f'id="{link[1:]}"' in page for link in found.links if link.startswith("#"))
    assert RULE.split(".")[0] in page
    assert "RunError: &lt;the loss&gt; is not finite" in page
    assert "is cut in line 21: that line is left out" in page
    assert "inferred from their order" in page
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_the_numbers_of_the_report_are_those_of_the_tables(analyzed: Path) -> None:
    claims = pd.read_csv(analyzed / "claims.csv")
    assert len(claims) == 12
    statistics = pd.read_csv(analyzed / "statistics.csv")
    figure_4 = statistics[statistics["figure"] == "4"].iloc[0]
    # 12 runs of 4 epochs; the failed run is not on its grid, one run collapsed, one lost its last epoch.
    assert (figure_4["n_models"], figure_4["n_runs"]) == (43, 11)
    markdown, page = (analyzed / "report.md").read_text(), (analyzed / "report.html").read_text()
    for text in (markdown, unescape(page)):
        assert f"{figure_4['ols_slope']:.3g}" in text
        for _, claim in claims.iterrows():
            assert claim["claim"] in text
            for answer in ("association", "between_runs", "between_epochs"):
                effect, low, high = (claim[f"{answer}{end}"] for end in ("", "_low", "_high"))
                shown = f"{effect:z.2f}" + (f" [{low:z.2f}, {high:z.2f}]" if low == low else "")
                assert effect != effect or shown in text
    assert "47 candidate models, of which 43 pass" in " ".join(page.split())
    assert "| mnist-cnn6-bs64-seed2 | 4 of 4 | 0.100 | 0.9 |" in markdown


def test_the_report_says_where_the_ols_p_misleads(analyzed: Path) -> None:
    for name in ("report.html", "report.md"):
        text = (analyzed / name).read_text()
        assert "Where the OLS p-value misleads" in text
        assert "over 43 models, but 11 runs: between runs only: no effect between the epochs of a run was found" in text


def test_the_markdown_tables_are_whole(analyzed: Path) -> None:
    lines = (analyzed / "report.md").read_text().splitlines()
    heads = [number for number, line in enumerate(lines) if re.fullmatch(r"\|( --- \|)+", line)]
    assert len(heads) >= 6
    for number in heads:
        width = lines[number].count("|")
        rows = [lines[number - 1]]
        while number + 1 < len(lines) and lines[number + 1].startswith("|"):
            number += 1
            rows.append(lines[number])
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {width}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_shows_every_picture_without_an_error_or_a_request(analyzed: Path, tmp_path: Path) -> None:
    assert_a_browser_shows(analyzed / "report.html", tmp_path, pictures=2)


def test_a_pair_at_equal_accuracy_and_logit_gap_stands_beside_a_and_b(tmp_path: Path) -> None:
    gaps = {0: [9.0, 3.0], 1: [30.0, 3.1]}
    for seed, ratios in ((0, [0.2, 0.7]), (1, [0.1, 0.5])):
        columns = {"prs/ratio": ratios, "logits/gap": gaps[seed], "robust/distance": [0.25, 0.0125 + seed]}
        arrays = {key: np.array(values) for key, values in columns.items()}
        write_run(tmp_path, {"test/accuracy": np.ones(2)} | arrays, seed=seed, grid=(1, 2))
    analyze(config(tmp_path))
    markdown = (tmp_path / "report" / "report.md").read_text()
    name = "mnist-cnn6-bs128-seed"
    assert "## A and B at equal accuracy and logit gap" in markdown
    assert f"pair.a={name}0@2 pair.b={name}1@2" in markdown
    lines = [line for line in markdown.splitlines() if "alike in" in line]
    assert lines[0].startswith(f"| alike in accuracy and logit gap | A: {name}0@2 | 0.7 | 1 | 3 | ")
    assert lines[0].endswith("| 0.0125 |")
    assert lines[1].startswith(f"| alike in accuracy and logit gap | B: {name}1@2 | 0.5 | 1 | 3.1 | ")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "A and B at equal accuracy and logit gap" in page
    analyze(config(tmp_path, "pair.gap_tolerance=0.01"))
    apart = "no two models of one architecture and data set that differ in PRS ratio lie within 0.02 of test accuracy"
    for name in ("report.md", "report.html"):
        assert (
            f"No pair is matched on the logit gap as well: {apart} and 1% of logit gap"
            in (tmp_path / "report" / name).read_text()
        )


def test_finished_figures_are_kept_unless_forced(analyzed: Path) -> None:
    runs, picture = analyzed.parent, analyzed / "figures" / "fig-4.png"
    before = picture.stat().st_mtime_ns
    analyze(config(runs, "figures=[4]"))
    assert picture.stat().st_mtime_ns == before
    analyze(config(runs, "figures=[4]", "force=true"))
    assert picture.stat().st_mtime_ns > before


def test_one_run_still_makes_a_report(tmp_path: Path) -> None:
    write_grid(tmp_path, batch_sizes=(64,), seeds=range(1), epochs=6, grid=(2, 4, 6))
    analyze(config(tmp_path, "figures=[1,4]"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "1 run: no interval below 5 runs" in page
    assert "There is no pair of networks A and B: 0 of 3 models have a checkpoint" in page
    assert "Not made: Figure 1:" in page
    assert page.count("<figure>") == 1
    verdicts = re.findall(r'<span class="verdict ([\w-]+)">', page)
    assert len(verdicts) == 12
    assert {*verdicts} == {"undecided", "not-measurable", "not-measured"}
    assert "Measured was 1 run of CNN-6 on MNIST (1 panel), with batch size 64 and seed 0: 3 models" in page


def test_runs_that_share_nothing_still_make_a_report(tmp_path: Path) -> None:
    write_run(tmp_path, {"prs/ratio": np.array([0.1, 0.2])}, seed=0)  # no test accuracy
    write_run(tmp_path, {"train/loss": np.array([1.0])}, seed=1)
    without = write_run(tmp_path, {"train/loss": np.array([1.0])}, seed=2)
    without.metrics_file.unlink()
    without.rows_file.unlink()
    analyze(config(tmp_path, "figures=[2b,4,5]"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "of which\n0 pass" in page
    assert "1 of 2 runs have no column prs/ratio" in page


def test_checkpoints_of_another_architecture_cost_the_figures_of_the_pair_alone(tmp_path: Path) -> None:
    import torch

    runs = write_grid(tmp_path, data=("mnist5k",), batch_sizes=(64, 2048), seeds=range(1), epochs=2, grid=(2,))
    for run, content in zip(runs, ({"architecture": "VGG11", "state_dict": {}}, {"weights": 1}), strict=True):
        run.checkpoints.mkdir(exist_ok=True)
        torch.save(content, run.checkpoint(2))
    analyze(config(tmp_path, "figures=[2a,4,7a]"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert re.search(r"Not made: Figures 2a, 7a: \S+ cannot be used: \S+ (holds a VGG11|is no checkpoint)", page)
    assert page.count("<figure>") == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bootstrap.draws=5"], "bootstrap.draws=5: expected an integer of 100 or more"),
        (["sizes.group=0"], "sizes.group=0: expected an integer of 1 or more"),
        (["bootstrap.level=95"], "bootstrap.level=95: expected a number from 0.5"),
        (["wandb.mode=on"], "wandb.mode=on: expected"),
        (["figures=some"], "figures=some: expected all, none or a list"),
        (["figures=[99]"], r"figures=\[99\]"),
        (["pair.a=x@1"], "pair: name both networks"),
        (["pair.a=x@1", "pair.b=x@2"], "no run is called x"),
        (["thresholds.mnist=95"], "thresholds.mnist=95: expected a number from 0 to 1"),
    ],
)
def test_values_that_cannot_work_are_refused_in_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    write_run(tmp_path, {"test/accuracy": np.ones(2), "prs/ratio": np.ones(2)}, grid=(1, 2))
    with pytest.raises(ConfigError, match=message) as error:
        analyze(config(tmp_path, *overrides))
    assert "\n" not in str(error.value)


def test_a_folder_without_runs_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run directories"):
        analyze(config(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_logs_to_wandb_offline_and_prints_the_path(tmp_path: Path) -> None:
    write_grid(tmp_path, batch_sizes=(64,), seeds=range(2), epochs=4, grid=(2, 4))
    command = [sys.executable, "-W", "error::RuntimeWarning", "analyze.py", f"runs={tmp_path}", "figures=[4]"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"report: {tmp_path / 'report' / 'report.html'}")
    assert "Traceback" not in done.stderr
    (offline,) = (tmp_path / "report" / "wandb").glob("offline-run-*")
    media = [path.name for path in (offline / "files" / "media").rglob("*.*")]
    assert sum(name.endswith(".png") for name in media) == 1
    tables = [json.loads(path.read_text()) for path in (offline / "files" / "media" / "table").rglob("*.table.json")]
    # Runs, models, scoreboard, statistics, and four factors of seven claims.
    assert sorted(len(table["data"]) for table in tables) == [2, 4, 12, 14, 28]
