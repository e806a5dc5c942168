"""A bar beside the trainer's own: samples done, and the robust accuracy so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]

from prs_lightning.attacks.samples import Progress


@contextmanager
def attack_bar(trainer_bar: Any, name: str) -> Iterator[Progress | None]:
    """Progress for one attack, in the style of the trainer's bar; nothing if the trainer shows none.

    Args:
        trainer_bar: ``trainer.progress_bar_callback``: Lightning's Rich bar, its tqdm bar, or None.
        name: of the attack.
    """
    rich = getattr(trainer_bar, "progress", None)
    if rich is not None:
        task = rich.add_task(name, total=float("inf"))  # not known before the first update
        try:
            yield lambda done, total, withstood: rich.update(
                task, completed=done, total=total, description=f"{name} RA {withstood / done:.3f}"
            )
        finally:
            rich.remove_task(task)
    elif trainer_bar is None or trainer_bar.is_disabled or not hasattr(trainer_bar, "val_progress_bar"):
        yield None
    else:
        with tqdm(desc=name, leave=False, unit="images") as bar:

            def show(done: int, total: int, withstood: int) -> None:
                bar.total = total
                bar.set_postfix_str(f"RA {withstood / done:.3f}", refresh=False)
                bar.update(done - bar.n)

            yield show
