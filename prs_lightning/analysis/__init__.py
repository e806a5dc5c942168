"""From run directories to evidence: tables, selection, statistics, claims, figures, report.

Everything but the figures made from checkpoints works without torch.
"""
