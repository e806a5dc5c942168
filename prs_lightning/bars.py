"""Progress of a pass or of an attack, in the style of the Trainer's own bar, and what else is shown of Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]


@contextmanager
def shown(trainer_bar: Any, name: str) -> Iterator[Callable[[int, int, str], None] | None]:
    """A bar of its own for a ``with`` block; None if the trainer shows none.

    Args:
        trainer_bar: ``trainer.progress_bar_callback``: Lightning's Rich bar, its tqdm bar, or None.
        name: what is done.

    What is given takes the samples done, those in all, and a remark.
    """
    rich = getattr(trainer_bar, "progress", None)
    if rich is not None:
        task = rich.add_task(name, total=float("inf"))  # not known before the first update
        try:
            yield lambda done, total, remark: rich.update(
                task, completed=done, total=total, description=f"{name} {remark}".strip()
            )
        finally:
            rich.remove_task(task)
    elif trainer_bar is None or trainer_bar.is_disabled or not hasattr(trainer_bar, "val_progress_bar"):
        yield None
    else:
        with tqdm(desc=name, leave=False, unit="images") as bar:

            def show(done: int, total: int, remark: str) -> None:
                bar.total = total
                bar.set_postfix_str(remark, refresh=False)
                bar.update(done - bar.n)

            yield show


@contextmanager
def attack_bar(trainer_bar: Any, name: str) -> Iterator[Callable[[int, int, int], None] | None]:
    """The bar of an attack: told the samples done, those in all, and how many of the done ones withstood."""
    with shown(trainer_bar, name) as show:
        if show is None:
            yield None
        else:
            yield lambda done, total, withstood: show(done, total, f"RA {withstood / done:.3f}")


@contextmanager
def measuring_bar(trainer_bar: Any, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """The bar of a pass over ``total`` samples: told how many more are done."""
    with shown(trainer_bar, name) as show:
        done = 0

        def advance(samples: int) -> None:
            nonlocal done
            done += samples
            if show is not None:
                show(done, total, "")

        yield advance


def quiet_lightning() -> None:
    """Only what bars, warnings of ours and results say is shown: none of Lightning's tips and notices."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips and notices
    warnings.filterwarnings("ignore", message=".*AMP with fp16 is not supported on CPU")  # refused, not replaced
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # Lightning 2.6 on torch 2.14
