"""Sends the figures and tables to a W&B run of job type ``analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from prs_lightning.analysis.report import Evidence


def publish(evidence: Evidence, folder: Path) -> None:
    """Log everything to W&B as the config's ``wandb`` says; nothing is imported or written where it is ``disabled``.

    An offline run is kept in ``folder``.
    """
    config = dict(evidence.config)
    settings = config["wandb"]
    if settings["mode"] == "disabled":
        return
    import wandb

    tables = {
        "scoreboard": pd.DataFrame(evidence.claims),
        "statistics": evidence.statistics.table,
        "models": evidence.selection.models,
        "runs": evidence.table.runs,
    }
    with wandb.init(
        project=settings["project"], entity=settings["entity"], tags=list(settings["tags"]), mode=settings["mode"],
        job_type="analyze", name=f"analyze {Path(config['runs']).name}", dir=str(folder), config=config,
        settings=wandb.Settings(console="off", silent=True),
    ) as run:  # fmt: skip
        logged: dict[str, Any] = {f"tables/{name}": wandb.Table(dataframe=_plain(t)) for name, t in tables.items()}
        for made in evidence.figures:
            if made.png:
                logged[f"figures/{made.number}"] = wandb.Image(str(made.png), caption=made.caption)
        run.log(logged)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Text and numbers only: W&B infers a column's type from its values and refuses mixtures."""
    return table.apply(lambda column: column if pd.api.types.is_numeric_dtype(column) else column.astype(str))
