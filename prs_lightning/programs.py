"""What the installed commands start: signals are taken before the imports that take their time."""

from __future__ import annotations

from prs_lightning.signals import stand


def train() -> None:
    """``prs-train``"""
    stand()
    from prs_lightning.train import main

    main()


def analyze() -> None:
    """``prs-analyze``"""
    stand()
    from prs_lightning.analyze import main

    main()
