"""Populated decision regions and adversarial robustness of neural networks, measured every epoch."""

__version__ = "0.1.0"
