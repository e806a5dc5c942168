"""Lightning callbacks: one file per measure, wiring only; the maths lives in ``prs_lightning``."""
