"""Whether the gradient that an attack follows is noise: its signs in float32 against those in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prs_lightning.attacks.network import NO_GRADIENT, AttackedNetwork, check_classes, check_images
from prs_lightning.errors import ConfigError
from prs_lightning.network import called_with, logits_of, named_places
from prs_lightning.seeding import keyed_uniform

MOST_WRONG = 0.1
"""A gradient with the wrong sign on a larger share of the pixels is noise."""


class ReferenceNetwork:
    """Gradients in float64 of a network that stays as it is: `called_with` hands it float64 copies.

    Raises:
        ConfigError: where no float64 gradient can be had: a scripted network takes no other weights, a device (``mps``)
            has no float64, or the network computes in another precision inside.
    """

    def __init__(self, network: AttackedNetwork, device: torch.device) -> None:
        if network.scripted:
            raise ConfigError("a scripted network cannot be handed float64 weights: give the module that was scripted")
        try:
            torch.zeros(1, dtype=torch.float64, device=device)
        except (TypeError, RuntimeError) as error:
            raise ConfigError(f"{device.type} has no float64") from error
        self.model = network.model
        named = named_places(self.model, "parameters", "buffers")
        self.weights = {name: each.detach().double() for name, each in named if each.is_floating_point()}

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """A positive multiple, for each sample, of the gradient of cross-entropy with respect to its image, float64.

        With p = softmax(z) the gradient with respect to z_j is p_j, and for the own class -(sum of the others' p): not
        p_y - 1, which cancels to 0 from a margin of 37 on in float64 too. Divided by that sum, which changes no sign,
        it is the softmax over the other classes and -1: it underflows at no margin.
        """
        with torch.enable_grad():
            images = images.detach().double().requires_grad_(True)
            try:
                logits = logits_of(called_with(self.model, self.weights, images.clone()), len(images))
            except RuntimeError as error:
                if "dtype" not in str(error) and "type" not in str(error):
                    raise
                raise ConfigError(f"the network cannot compute in float64 ({error})") from error
            if logits.dtype != torch.float64:
                raise ConfigError(f"the network computes in {logits.dtype} inside: expected float64 for float64 images")
            own = labels[:, None]
            others = logits.detach().scatter(1, own, float("-inf")).softmax(1)
            (gradient,) = torch.autograd.grad(logits, images, others.scatter(1, own, -1.0), allow_unused=True)
        if gradient is None:
            raise ConfigError(NO_GRADIENT)
        return gradient


def without_ties(images: Tensor) -> Tensor:
    """Images (N, ...) moved by a grey level at most, inside [0, 1], by one random pattern for all.

    Where an image is black throughout, the inputs of a pooling maximum are equal, and rounding decides which of them
    gets the gradient, in float32 and float64 alike: its signs there say nothing. An attack from a random start meets no
    such ties either.
    """
    pattern = keyed_uniform(torch.zeros(1, dtype=torch.int64, device=images.device), images[0].numel(), 0)
    return torch.lerp(images, pattern.view(images[:1].shape).to(images.dtype), 1 / 255)


def gradient_noise(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 128) -> Tensor:
    """Whether the sign of each sample's loss gradient is noise: bool (N,).

    It is where the gradient of cross-entropy with respect to the image, as attacks take it in float32, has another sign
    than the same gradient in float64 on more than a tenth of the pixels (channels counted apart) at which the latter is
    not 0. A float32 gradient of 0 there is another sign: where the loss underflows a sample is counted whether its
    gradient is 0 or denormal noise. A sample whose float64 gradient is 0 everywhere has no sign to get wrong: False,
    ``robust/zero_gradient`` counts it. Both are taken at the image as `without_ties` gives it.

    Args:
        model: in eval mode; it is not changed.
        images: float (N, ...) in [0, 1]; labels: int (N,).
        batch_size: images at a time; changes no result.

    Raises:
        ConfigError: as `pgd`, or no float64 gradient can be had: a scripted network, a device or a network without
            float64.
    """
    check_images(images, labels)
    network = AttackedNetwork(model, images.device)
    reference = ReferenceNetwork(network, images.device)
    check_classes(labels, network.logits(images[:1]).shape[1])
    noisy = []
    for part, its_labels in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        moved = without_ties(part.float())
        found = network.gradient(moved, its_labels).images.flatten(1).sign()
        expected = reference.gradient(moved, its_labels).flatten(1).sign()
        wrong = (found != expected).logical_and_(expected != 0)
        noisy.append(wrong.sum(1) > MOST_WRONG * (expected != 0).sum(1))
    return torch.cat(noisy)
