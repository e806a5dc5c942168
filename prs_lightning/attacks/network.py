"""The network as an attack sees it: logits and input gradients, without a trace in it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prs_lightning.attacks.losses import Loss, cross_entropy
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.measuring import float32


def channels_last(tensor: Tensor) -> Tensor:
    """The tensor (N, C, H, W) with its channels next to each other, also where C = 1.

    ``Tensor.contiguous`` leaves the strides of a single channel as they are, since both layouts fit them; a first
    convolution of grey images then writes NCHW, and the second copies everything back, forwards and backwards.
    """
    _, channels, height, width = tensor.shape
    tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor.as_strided(tensor.shape, (channels * height * width, 1, width * channels, channels))


class Gradient(NamedTuple):
    """What a forward and a backward pass tell about n images.

    ``logits`` (n, classes); ``images``, the gradient of each sample's loss with respect to its image; ``slope`` (n,),
    by how much the loss grows with the margin loss: minus its derivative with respect to the logit of the own class.
    """

    logits: Tensor
    images: Tensor
    slope: Tensor

    @property
    def zero(self) -> Tensor:
        """Whether the gradient is exactly 0 everywhere, (n,)."""
        return self.images.abs().flatten(1).amax(1) == 0

    @property
    def broken(self) -> Tensor:
        """Whether a logit or the gradient is not finite, (n,)."""
        return ~(self.logits.isfinite().all(1) & self.images.abs().flatten(1).amax(1).isfinite())


class AttackedNetwork:
    """Logits and gradients of one network.

    The parameters are handed in as detached copies of themselves (``functional_call``): no flag is changed and
    backpropagation computes no weight gradient. On a CPU convolutions run channels-last, which was 1.1 to 1.7
    times as fast, depending on the processor.

    ``logits`` and, in precision float32, ``gradient`` are exact: float32, the network as it was given. Gradients in
    bfloat16 are approximate, and each decision has to be made again by exact passes.

    Raises:
        ConfigError: a network in train mode or on another device, gradients that cannot be taken.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = cross_entropy,
        precision: str = "float32",
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> None:
        check_model(model, device)
        self.model, self.loss, self.exact = model, loss, precision == "float32"
        self.layout = channels_last if device.type == "cpu" else Tensor.contiguous
        self.weights = {
            name: self.layout(weight.detach()) if weight.ndim == 4 else weight.detach()
            for name, weight in model.named_parameters()
        }

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes), in whatever precision and grad mode the caller has set."""
        logits = functional_call(self.model, self.weights, (self.layout(images),))
        if logits.ndim != 2 or len(logits) != len(images):
            raise ConfigError(f"the network returned {tuple(logits.shape)}: expected logits ({len(images)}, classes)")
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """Exact logits (n, classes), without a graph."""
        with torch.no_grad(), float32(images.device):
            return self.forward(images)

    def exact_gradient(self, images: Tensor, labels: Tensor) -> Gradient:
        """Logits and the gradient of the summed loss with respect to the images, all in float32."""
        with float32(images.device):
            return self._gradient(images, labels)

    def gradient(self, images: Tensor, labels: Tensor) -> Gradient:
        """As ``exact_gradient``, in the precision that was chosen."""
        if self.exact:
            return self.exact_gradient(images, labels)
        with torch.autocast(images.device.type, torch.bfloat16):
            return self._gradient(images, labels)

    def _gradient(self, images: Tensor, labels: Tensor) -> Gradient:
        with torch.enable_grad():
            images = self.layout(images.detach()).requires_grad_(True)
            outputs = self.forward(images)
            # Losses saturate: they are taken in float32 and summed, for a mean would shrink each sample's gradient.
            with torch.autocast(images.device.type, enabled=False):
                logits = outputs.detach().float().requires_grad_(True)
                (of_logits,) = torch.autograd.grad(self.loss(logits, labels).sum(), logits)
                (gradient,) = torch.autograd.grad(outputs, images, of_logits.to(outputs.dtype))
        return Gradient(logits.detach(), gradient, -of_logits.gather(1, labels[:, None]).squeeze(1))


def check_model(model: nn.Module, device: torch.device) -> None:
    """Raise ConfigError unless the network is in eval mode, on that device, and gradients can be taken."""
    for name, module in model.named_modules():
        if module.training:
            raise ConfigError(f"the network is in train mode ({name or type(module).__name__}): call model.eval()")
    found = next((parameter.device for parameter in model.parameters()), device)
    if found != device:
        raise ConfigError(f"the network is on {found}, the images on {device}: move them to one device")
    if torch.is_inference_mode_enabled():
        raise ConfigError("an attack needs gradients, but inference mode is on: use Trainer(inference_mode=False)")


def check_classes(labels: Tensor, classes: int) -> None:
    """Raise ConfigError for labels outside the network's classes."""
    low, high = torch.stack(labels.aminmax()).tolist()
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ConfigError(f"label {wrong} is out of range: the network has {classes} classes, 0 to {classes - 1}")


def refuse_not_finite(rows: Tensor, logits: Tensor, gradient: Tensor | None = None) -> None:
    """Raise RunError for the first of ``rows`` with a logit, or a gradient, that is not finite; the host waits."""
    broken = ~logits.isfinite()
    if bool(broken.any()):
        row, column = broken.nonzero()[0].tolist()
        raise RunError(
            f"the network returned {float(logits[row, column])} for row {int(rows[row])}: expected finite logits"
        )
    if gradient is not None:
        bad = ~gradient.flatten(1).isfinite().all(1)
        if bool(bad.any()):
            row = int(rows[bad.nonzero()[0]])
            raise RunError(f"the loss gradient of row {row} is not finite: use loss='margin', or rescale the logits")
