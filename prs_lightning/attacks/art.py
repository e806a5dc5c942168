"""Attacks of the Adversarial Robustness Toolbox (ART), behind the same signature as our own."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from art.attacks import EvasionAttack
from art.attacks.evasion import AutoAttack, SquareAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from prs_lightning.attacks.ball import check_inside
from prs_lightning.attacks.engine import AttackResult
from prs_lightning.attacks.network import AttackedNetwork, check_classes, check_images
from prs_lightning.attacks.threat_model import ThreatModel, check_count
from prs_lightning.errors import ConfigError, RunError, in_one_line
from prs_lightning.measuring import float32


def art_attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: type[EvasionAttack],
    *,
    epsilon: float = 8 / 255,
    seed: int = 0,
    among: Tensor | None = None,
    batch_size: int = 128,
    **parameters: Any,
) -> AttackResult:
    """Attack the correctly classified samples with an ART evasion attack in the L-infinity ball.

    ART works on numpy arrays: only the attacked images go there and back, once. It sees the network as a function
    without parameters, so that it cannot change modes, flags or gradients; the global random states it draws from are
    put back. Successes are judged by our own float32 pass. ART tells no gradients and no steps: the result's
    ``zero_gradient_...`` are False and ``steps_to_success`` is -1.

    Args:
        model, images, labels, epsilon, batch_size: as for :func:`prs_lightning.attacks.pgd`.
        attack: a class of ``art.attacks.evasion`` that takes ``eps``.
        seed: of ART's randomness.
        among: bool (N,), samples known to be classified correctly; the others count as misclassified.
        parameters: more keyword arguments of the attack, for example ``max_iter=100``.

    Raises:
        ConfigError: images, labels or a network that cannot work; an attack that takes no ``eps`` or not what is given.
        RunError: an adversarial image outside the ball; an attack that fails on these images.
    """
    check_images(images, labels)
    check_count("batch_size", batch_size)
    ball = ThreatModel(epsilon=epsilon).ball
    labels = labels.to(torch.int64)
    adversarial = images.detach().to(torch.float32, copy=True)
    network = AttackedNetwork(model, images.device)
    logits = torch.cat([network.logits(part) for part in adversarial.split(batch_size)])
    check_classes(labels, logits.shape[1])
    correct = logits.argmax(1) == labels
    attacked = (correct if among is None else among).nonzero().flatten()
    if len(attacked) and epsilon:  # with none every image stays as it is, which ART refuses
        # ART takes the current GPU, whatever the network is on.
        with _random_state(seed), float32(images.device), torch.enable_grad(), torch.cuda.device_of(images):
            found = _by_art(
                network, adversarial[attacked], labels[attacked], attack,
                classes=logits.shape[1], **parameters | {"eps": epsilon, "batch_size": batch_size},
            )  # fmt: skip
        adversarial[attacked] = found
    correct_after, excess = torch.zeros_like(correct), torch.zeros(len(labels), device=images.device)
    for rows in attacked.split(batch_size):
        excess[rows] = ball.excess(adversarial[rows], images[rows])
        # ART rounds x + perturbation: within the tolerance of the check below, cut to the exact ball.
        adversarial[rows] = ball.project(adversarial[rows], images[rows].float())
        correct_after[rows] = network.logits(adversarial[rows]).argmax(1) == labels[rows]
    check_inside(excess, epsilon)
    unknown = torch.zeros_like(correct)
    return AttackResult(adversarial, correct, correct_after, unknown, unknown, torch.full_like(labels, -1))


def _by_art(
    network: AttackedNetwork, images: Tensor, labels: Tensor, attack: Any, *, classes: int, **parameters: Any
) -> Tensor:
    """What ART's ``attack`` makes of images (N, ...).

    Rectangles lie in a square that the network does not see the rest of: ART's Square attack knows nothing else.
    """
    name, shape = getattr(attack, "__name__", attack), tuple(images.shape[1:])
    height, width = shape[-2:] if len(shape) == 3 else (0, 0)
    margin = (0, max(height - width, 0), 0, max(width - height, 0))
    seen = (..., slice(height), slice(width)) if any(margin) else (...,)
    given = torch.nn.functional.pad(images, margin) if any(margin) else images
    function = nn.Module().eval()  # owns nothing: ART clears gradients and sets modes of whatever it is given
    function.forward = _remembering(lambda padded: network.forward(padded[seen]), 4 * len(images))
    classifier = PyTorchClassifier(
        function,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(given.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if images.device.type == "cpu" else "gpu",
    )
    try:
        made = attack(classifier, **parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"ART's {name} cannot be made ({in_one_line(error)}): expected a class of art.attacks.evasion that takes "
            "eps, and arguments that it knows"
        ) from error
    parts = (made, getattr(made, "_attack", None), *getattr(made, "attacks", ()))  # some are made of others
    for part in parts:  # no progress bars
        if hasattr(part, "verbose"):
            part.verbose = False
    try:
        found = made.generate(given.cpu().numpy(), labels.cpu().numpy())
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError) as error:
        raise RunError(
            f"ART's {name} failed on images {shape}: {type(error).__name__}, {in_one_line(error)}"
        ) from error
    return torch.from_numpy(found).to(images)[seen]


def _remembering(forward: Callable[[Tensor], Tensor], rows: int) -> Callable[[Tensor], Tensor]:
    """``forward``, of which the last so many rows are not computed anew where no gradient is asked for.

    ART's Square attack asks three times an iteration, twice for images that it has the outputs of.
    """
    known: dict[bytes, Tensor] = {}

    def looked_up(images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return forward(images)
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.cpu().numpy()]
        if new := [place for place, key in enumerate(keys) if key not in known]:
            for place, logits in zip(new, forward(images[new]), strict=True):
                known[keys[place]] = logits
        found = torch.stack([known[key] for key in keys])
        for key in list(known)[: max(len(known) - rows, 0)]:
            del known[key]
        return found

    return looked_up


auto_attack = partial(art_attack, attack=AutoAttack)
"""ART's AutoAttack: APGD with cross-entropy and DLR, DeepFool and Square (Croce & Hein 2020)."""

square = partial(art_attack, attack=SquareAttack)
"""The Square attack (Andriushchenko et al. 2020): random search that needs no gradient."""


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seed the global generators (ART draws from numpy's), and put their states back at the end."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
