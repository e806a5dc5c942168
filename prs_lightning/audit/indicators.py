"""Indicators of attack failure: signs, read off the attack itself, that it failed for a reason of its own.

After Pintor, Demetrio, Sotgiu et al. 2022, "Indicators of Attack Failure: Debugging and Improving Optimization of
Adversarial Examples" (section 3). Theirs are for one attack on one sample; here each is a share of samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prs_lightning.attacks import AttackResult
from prs_lightning.attacks.losses import cross_entropy, margin
from prs_lightning.attacks.network import AttackedNetwork
from prs_lightning.audit.battery import Battery
from prs_lightning.audit.findings import SAME, Gradients, Indicator
from prs_lightning.seeding import draw_key, keyed_uniform

LOOKED = 50
"""So many samples' paths are looked at."""
RISES = 0.05
"""A loss still rises if its best value grew by this part of its whole growth over the last quarter of the steps."""
SHARE = 0.1
"""Of the samples, up to which an indicator is not raised; theirs for unstable predictions."""
DRAWS = 10


class Path(NamedTuple):
    """The iterates of PGD with cross-entropy: loss (steps + 1, n), and which are misclassified (steps + 1, n)."""

    loss: Tensor
    wrong: Tensor


def follow(battery: Battery, rows: Tensor) -> Path:
    """The first attack on a few samples, from the same starts, to its last step whatever it meets on its way."""
    threat = battery.threat
    network = AttackedNetwork(battery.model, battery.labels.device, cross_entropy)
    clean, labels = battery.images[rows].float(), battery.labels[rows]
    key = draw_key(torch.Generator().manual_seed(battery.seed))
    images, losses, wrong = threat.ball.random_start(clean, rows, key), [], []
    for _ in range(threat.steps):
        gradient = network.gradient(images, labels)
        losses.append(cross_entropy(gradient.logits, labels))
        wrong.append(gradient.logits.argmax(1) != labels)
        images = threat.ball.step(images, gradient.images, threat.step_size, clean)
    logits = network.logits(images)
    return Path(
        torch.stack([*losses, cross_entropy(logits, labels)]), torch.stack([*wrong, logits.argmax(1) != labels])
    )


def silent(path: Path) -> Tensor:
    """Misclassified on the way but not at the last iterate, bool (n,): an attack that only looks there misses it."""
    return path.wrong[:-1].any(0) & ~path.wrong[-1]


def rising(path: Path) -> Tensor:
    """Whether the loss has not converged, bool (n,): see ``RISES``. A loss that never moves does not rise."""
    best = path.loss.cummax(0).values
    last = max(1, (len(best) - 1) // 4)
    growth = best[-1] - best[0]
    return (growth > 0) & (best[-1] - best[-1 - last] > RISES * growth)


def unstable(battery: Battery, rows: Tensor) -> Tensor:
    """By how much the margin changes under noise of one step size, as a part of itself, mean over draws (n,)."""
    network = AttackedNetwork(battery.model, battery.labels.device)
    clean, labels = battery.images[rows].float(), battery.labels[rows]
    if not len(rows):
        return clean.new_zeros(0)
    before = margin(network.logits(clean), labels)
    changes = []
    for draw in range(DRAWS):
        noise = keyed_uniform(rows, clean[0].numel(), battery.seed + draw).view(clean.shape)
        moved = (clean + battery.threat.step_size * (2 * noise - 1)).clamp(0, 1)
        changes.append(((margin(network.logits(moved), labels) - before) / before.abs().clamp_min(1e-30)).abs())
    return torch.stack(changes).mean(0).clamp_max(1)


def indicators(battery: Battery, first: AttackResult, gradients: Gradients, unbounded: Tensor) -> tuple[Indicator, ...]:
    """All of them, of PGD with cross-entropy.

    Args:
        first: its result.
        unbounded: who of those that it left standing withstands it without a bound.
    """
    correct = first.correct_before.nonzero().flatten()[:LOOKED]
    survivors = battery.among.nonzero().flatten()[:LOOKED]
    met, standing = int(battery.among.sum()), int(first.correct_after.sum())
    of_survivors = follow(battery, survivors) if len(survivors) else None
    of_correct = follow(battery, correct) if len(correct) else None
    transfer = [trial for trial in battery.trials if trial.family == "transfer" or trial.name == "temperature 100"]
    beaten = max((trial.fell / trial.met for trial in transfer if trial.met), default=0.0)
    steps = battery.threat.steps
    return (
        Indicator(
            "unavailable gradients", _share(gradients.zero_end, standing), SHARE, standing,
            "of those that withstood, the gradient is exactly 0 where the attack ended: it was never moved",
        ),
        Indicator(
            "unstable predictions", 1.0 if gradients.outputs_differ > SAME else _mean(unstable(battery, correct)),
            SHARE, len(correct), "change of the margin under noise of one step, as a part of itself; 1 if the outputs "
            "change when nothing does: the gradient at a point says little of its surroundings",
        ),
        Indicator(
            "silent success", _mean(silent(of_correct)) if of_correct else 0.0, SHARE, len(correct),
            "misclassified on the way, but not at the last iterate: lost by an attack that looks at the last only (the "
            "robust accuracy here counts them as fooled)",
        ),
        Indicator(
            "loss still rising", _mean(rising(of_survivors)) if of_survivors else 0.0, 0.5, len(survivors),
            f"of those that withstood, the loss still grew over the last {max(1, steps // 4)} of {steps} steps: the "
            f"attack had not converged; PGD-{5 * steps} tells whether that matters",
        ),
        Indicator(
            "no success without a bound", _share(int(unbounded.sum()), met), 0.0, met,
            "of those that withstood, the attack fails even where every image is within reach: it sees nothing",
        ),
        Indicator(
            "transfer", beaten, SHARE, met,
            "of those that withstood, images that were made on another network, or on the network's own copy at "
            "temperature 100, fool it: what is made without its gradient does better than with it",
        ),
    )  # fmt: skip


def _share(count: int, of: int) -> float:
    return count / of if of else 0.0


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else 0.0
