"""Turn run directories into tables, statistics, figures, a verdict on every claim, and a report.

    python analyze.py runs=runs/paper_grid

Heavy packages are imported inside the functions, so that --help and --cfg answer at once.
"""

from __future__ import annotations

from prs_lightning.signals import stand

if __name__ == "__main__":
    stand()  # before the imports below, which take their time

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from prs_lightning.errors import ConfigError, at_least
from prs_lightning.memory import keep_freed_memory
from prs_lightning.online import check_wandb
from prs_lightning.runs import write_text
from prs_lightning.sweep import cli


def analyze(cfg: DictConfig) -> None:
    """Read, select, compute, draw, judge, report."""
    if OmegaConf.is_missing(cfg, "runs"):
        raise ConfigError("runs is not given: name the folder of run directories, as in runs=runs/paper_grid")
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    check(config)
    if config["wandb"]["mode"] != "disabled":
        check_wandb(config["wandb"])
    keep_freed_memory()
    import pandas as pd

    from prs_lightning.analysis import claims, networks, panels, report, selection, table

    runs, folder = Path(config["runs"]), Path(config["output"] or f"{config['runs']}/report")
    read = table.read_runs(runs)
    print(f"{len(read.runs)} runs, {len(read.rows)} rows; {len(read.messages)} messages", flush=True)
    for message in read.messages:
        say(message)
    table.save(read, folder)
    selected = selection.select(read.rows, config["grid_epochs"], config["thresholds"])
    models = selected.models
    print(f"{selected.counts['models'].iloc[1]} candidate models, {len(models)} kept", flush=True)
    statistics = panels.panel_statistics(models, **config["bootstrap"], progress=say)
    write_text(folder / "statistics.csv", statistics.table.to_csv(index=False))
    if not config["pair"]["a"]:
        pair, why = selection.choose_pair(
            models, config["pair"]["accuracy_tolerance"],
            lambda run, epoch: networks.checkpoint_path(runs, run, epoch) is not None,
        )  # fmt: skip
    else:
        pair, why = selection.named_pair(read.rows, config["pair"]["a"], config["pair"]["b"]), "named by the user"
    if config["figures"] != "none":
        from prs_lightning.analysis import figures

        made = figures.make_all(
            read.rows, models, (lambda: networks.load_pair(runs, pair, config["data_root"])) if pair else None,
            folder=folder / "figures", key=networks.pair_key(runs, pair) if pair else None, force=config["force"],
            sizes={name: size for name, size in config["sizes"].items() if size is not None},
            only=None if config["figures"] == "all" else [str(number) for number in config["figures"]],
            progress=say, why=None if pair else why,
        )  # fmt: skip
    else:
        made = []
    numbers = {figure.number: pd.read_csv(figure.csv) for figure in made if figure.number in ("6a", "9") and figure.csv}
    judged = claims.scoreboard(
        statistics, read.rows[read.rows["run"].isin(models["run"])],
        groups=numbers.get("9"), failures=numbers.get("6a"), level=config["bootstrap"]["level"],
    )  # fmt: skip
    write_text(folder / "claims.csv", pd.DataFrame(judged).to_csv(index=False))
    evidence = report.Evidence(config, read, selected, statistics, judged, made, pair, why)
    page = report.write_report(evidence, folder)
    from rich.console import Console
    from rich.table import Table

    board = Table("claim", "verdict", "effect", title="scoreboard")
    for claim in judged:
        board.add_row(claim.claim, claim.verdict, report.effect(claim).replace("[", r"\["))
    console = Console()
    console.print(board)
    console.print(f"report: {page}", soft_wrap=True)
    report.publish(evidence, folder)


def check(config: dict[str, Any]) -> None:
    """Refuse values that cannot work, before anything is read."""
    at_least("bootstrap.draws", config["bootstrap"]["draws"], 100)
    at_least("bootstrap.seed", config["bootstrap"]["seed"], 0)
    if not 0.5 <= config["bootstrap"]["level"] < 1:
        raise ConfigError(f"bootstrap.level={config['bootstrap']['level']} must lie in [0.5, 1), as 0.95 does")
    if config["wandb"]["mode"] not in ("offline", "online", "disabled"):
        raise ConfigError(f"wandb.mode={config['wandb']['mode']}: expected offline, online or disabled")
    if isinstance(config["figures"], str) and config["figures"] not in ("all", "none"):
        raise ConfigError(f"figures={config['figures']}: expected all, none or a list such as [4,4b,8]")
    for key, value in config["sizes"].items():
        if value is not None:
            at_least(f"sizes.{key}", value, 1)
    if (config["pair"]["a"] is None) != (config["pair"]["b"] is None):
        raise ConfigError("pair: name both networks, pair.a=RUN@EPOCH pair.b=RUN@EPOCH, or neither")


def say(line: str) -> None:
    """A line of progress, at once."""
    print(f"  {line}", flush=True)


def main() -> None:
    """The command line of this file, and of ``prs-analyze``."""
    cli.run(analyze, "analyze")


if __name__ == "__main__":
    main()
