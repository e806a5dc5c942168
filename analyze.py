"""Turn run directories into tables, statistics, figures, a verdict on every claim, and a report.

    python analyze.py runs=runs/paper_grid

Heavy packages are imported inside the functions, so that --help and --cfg answer at once.
"""

from __future__ import annotations

from prs_lightning.signals import stand

if __name__ == "__main__":
    stand()  # before the imports below, which take their time

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError, printable
from prs_lightning.memory import keep_freed_memory
from prs_lightning.online import check_wandb
from prs_lightning.schema import check_analysis
from prs_lightning.sweep import arguments, cli


def analyze(cfg: DictConfig) -> None:
    """Read, select, compute, draw, judge, report."""
    if OmegaConf.is_missing(cfg, "runs"):
        raise ConfigError("runs is not given: name the folder of run directories, as in runs=runs/paper_grid")
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    check_analysis(config, arguments.helpers(cfg))
    if config["wandb"]["mode"] != "disabled":
        check_wandb(config["wandb"])
    wanted = None if isinstance(config["figures"], str) else [str(number) for number in config["figures"]]
    if wanted:
        from prs_lightning.analysis.figures.registry import refuse_unknown

        refuse_unknown(wanted)
    keep_freed_memory()
    import pandas as pd

    from prs_lightning.analysis import (
        arms,
        boards,
        causal_section,
        claims,
        coupled,
        networks,
        panels,
        power,
        report,
        selection,
        table,
        written,
    )  # fmt: skip
    from prs_lightning.analysis.verdict import claims_table

    runs, folder = Path(config["runs"]), Path(config["output"] or f"{config['runs']}/report")
    found = table.find(runs)
    written.check_folder(folder)
    read = table.read_runs(runs, found, progress=say)
    print(f"{len(read.runs)} runs, {len(read.rows)} rows; {len(read.messages)} messages", flush=True)
    for message in read.messages:
        say(message)
    a, b = config["pair"]["a"], config["pair"]["b"]
    named = selection.named_pair(read.rows, a, b) if a else None
    table.save(read, folder)
    selected = selection.select(read.rows, config["grid_epochs"], config["thresholds"])
    models = selected.models
    print(f"{selected.counts['models'].iloc[-3]} candidate models, {len(models)} kept", flush=True)
    if config["plan"]:
        power.check(models)
    statistics = panels.panel_statistics(models, **config["bootstrap"], progress=say)
    written.write_csv(folder / "statistics.csv", statistics.table)
    alone = arms.left_alone(read.rows)
    causes, of_arms = causal_section.study(read.rows, runs, folder, config, progress=say)
    pair, why = named, "named by the user"
    if not named:
        pair, why = selection.choose_pair(models, config["pair"]["accuracy_tolerance"], networks.available(runs))
    tolerances = config["pair"]["accuracy_tolerance"], config["pair"]["gap_tolerance"]
    matched, matched_why = selection.matched_pair(models, *tolerances)

    @cache
    def load_pair() -> networks.NetworkPair:
        assert pair is not None
        return networks.load_pair(runs, pair, config["data_root"])

    if config["figures"] != "none":
        from prs_lightning.analysis import figures

        made = figures.make_all(
            alone, models, load_pair if pair else None,
            folder=folder / "figures", key=networks.pair_key(runs, pair) if pair else None, force=config["force"],
            sizes={name: size for name, size in config["sizes"].items() if size is not None and name != "audited"},
            only=wanted, arms=of_arms,
            progress=say, why=None if pair else why,
        )  # fmt: skip
    else:
        made = []
    numbers = {
        figure.number: pd.read_csv(figure.csv) for figure in made if figure.number in ("3", "6a", "9") and figure.csv
    }
    judged = claims.scoreboard(
        statistics, alone[alone["run"].isin(models["run"])],
        groups=numbers.get("9"), failures=numbers.get("6a"), curve=numbers.get("3"), margins=config["margins"],
        level=config["bootstrap"]["level"],
    )  # fmt: skip
    written.write_csv(folder / "claims.csv", claims_table(judged))
    pairs = coupled.coupled_pairs(models, config["bootstrap"]["level"])
    written.write_csv(folder / "coupled.csv", pairs)
    planned = None
    if config["plan"]:
        seed, level = config["bootstrap"]["seed"], config["bootstrap"]["level"]
        tried = power.power(models, **config["power"], claims=len(judged), seed=seed, level=level, progress=say)
        written.write_csv(folder / "power.csv", tried)
        planned = power.power_table(tried)
    audits: list[report.Audited] = []
    if pair and config["figures"] == "all":
        from prs_lightning.audit.pair import audit_pair

        audits = audit_pair(
            load_pair, folder=folder,
            key=networks.pair_key(runs, pair), size=config["sizes"]["audited"], force=config["force"], progress=say,
        )  # fmt: skip
    evidence = report.Evidence(
        config,
        read,
        selected,
        statistics,
        judged,
        made,
        pair,
        why,
        audits,
        matched,
        matched_why,
        pairs,
        planned,
        causes,
    )
    page = report.write_report(evidence, folder)
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(boards.console_board(judged, console.width))
    for paragraph in evidence.words:
        console.print(Text(printable(paragraph)), end="\n\n")
    if causes:
        causal_section.show(console, causes, config["bootstrap"]["level"])
    if planned is not None:
        title = power.planned(config["power"]["effect"], config["power"]["target"])
        console.print(boards.console_plan(planned, title))
    for audited in audits:
        console.print(Text(printable(audited)), soft_wrap=True)
    console.print(Text(f"report: {printable(page)}"), soft_wrap=True)
    report.publish(evidence, folder)


def say(line: str) -> None:
    """A line of progress, at once."""
    print(f"  {printable(line)}", flush=True)


def main() -> None:
    """The command line of this file, and of ``prs-analyze``."""
    cli.run(analyze, "analyze")


if __name__ == "__main__":
    main()
