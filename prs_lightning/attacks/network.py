"""The network as an attack sees it: logits and input gradients, in the fastest form that is exact enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prs_lightning.attacks.folding import fold_batch_norm
from prs_lightning.attacks.losses import Loss
from prs_lightning.attacks.reordering import pool_first
from prs_lightning.errors import ConfigError
from prs_lightning.measuring import float32

PRECISIONS = ("float32", "bfloat16")


def channels_last(tensor: Tensor) -> Tensor:
    """The tensor (N, C, H, W) with its channels next to each other, also where C = 1.

    ``Tensor.contiguous`` leaves the strides of a single channel as they are, since both layouts fit them; a first
    convolution of grey images then writes NCHW, and the second copies everything back, forwards and backwards.
    """
    _, channels, height, width = tensor.shape
    tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor.as_strided(tensor.shape, (channels * height * width, 1, width * channels, channels))


class Look(NamedTuple):
    """What a forward and a backward pass tell about n images.

    ``logits`` (n, classes); ``gradient``, of each sample's loss with respect to its image; ``slope`` (n,), by how much
    the loss grows with the margin loss: minus its derivative with respect to the logit of the sample's own class.
    """

    logits: Tensor
    gradient: Tensor
    slope: Tensor


class AttackedNetwork:
    """Logits and gradients of one network, without a trace in it.

    The parameters are handed in as detached copies of themselves (``functional_call``): no flag is changed and
    backpropagation computes no weight gradient. On a CPU convolutions run channels-last, which was 1.1 to 1.7
    times as fast, depending on the processor.

    ``exact`` is float32, the network as given, but for `pool_first`, which keeps every bit. ``gradient`` may run it in
    bfloat16 and with batch normalisation folded into the convolutions. If it does, ``approximate`` is true and each
    decision has to be made again by ``exact``.
    """

    def __init__(self, model: nn.Module, loss: Loss, precision: str, example: Tensor) -> None:
        self.loss, self.bfloat16 = loss, precision == "bfloat16"
        self.layout = channels_last if example.device.type == "cpu" else Tensor.contiguous
        model = pool_first(model, example)
        self.forward = self._functional(model)
        folded = fold_batch_norm(model, example)
        self.fast_forward = self.forward if folded is None else self._functional(folded)
        self.approximate = self.bfloat16 or folded is not None

    def _functional(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        weights = {
            name: self.layout(weight.detach()) if weight.ndim == 4 else weight.detach()
            for name, weight in model.named_parameters()
        }

        def forward(images: Tensor) -> Tensor:
            logits = functional_call(model, weights, (self.layout(images),))
            if logits.ndim != 2 or len(logits) != len(images):
                raise ConfigError(
                    f"the network returned {tuple(logits.shape)}: expected logits ({len(images)}, classes)"
                )
            return logits

        return forward

    def exact(self, images: Tensor) -> Tensor:
        """Logits (n, classes) in float32, without a graph."""
        with torch.no_grad(), float32(images.device):
            return self.forward(images)

    def exact_look(self, images: Tensor, labels: Tensor) -> Look:
        """Logits and the gradient of the summed loss with respect to the images, all in float32."""
        with float32(images.device):
            return self._look(self.forward, images, labels)

    def look(self, images: Tensor, labels: Tensor) -> Look:
        """As ``exact_look``, by the fastest way allowed."""
        precise = torch.autocast(images.device.type, torch.bfloat16) if self.bfloat16 else float32(images.device)
        with precise:
            return self._look(self.fast_forward, images, labels)

    def _look(self, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Look:
        with torch.enable_grad():
            images = self.layout(images.detach()).requires_grad_(True)
            outputs = forward(images)
            # Losses saturate: they are taken in float32 and summed, for a mean would shrink each sample's gradient.
            with torch.autocast(images.device.type, enabled=False):
                logits = outputs.detach().float().requires_grad_(True)
                (of_logits,) = torch.autograd.grad(self.loss(logits, labels).sum(), logits)
                (gradient,) = torch.autograd.grad(outputs, images, of_logits.to(outputs.dtype))
        return Look(logits.detach(), gradient, -of_logits.gather(1, labels[:, None]).squeeze(1))
