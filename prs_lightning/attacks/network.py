"""The network as an attack sees it: logits and input gradients, without a trace in it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prs_lightning.attacks.losses import Loss, cross_entropy
from prs_lightning.errors import ConfigError, RunError
from prs_lightning.measuring import float32
from prs_lightning.network import MeasuredNetwork, called_with, logits_of, named_places


def channels_last(tensor: Tensor) -> Tensor:
    """A tensor (N, C, H, W) with its channels next to each other, also where C = 1; one of other dimensions as it is.

    ``Tensor.contiguous`` leaves the strides of a single channel as they are, since both layouts fit them; a first
    convolution of grey images then writes NCHW, and the second copies everything back, forwards and backwards.
    """
    if tensor.ndim != 4:
        return tensor.contiguous()
    _, channels, height, width = tensor.shape
    tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor.as_strided(tensor.shape, (channels * height * width, 1, width * channels, channels))


def channels_first(tensor: Tensor) -> Tensor:
    """A copy whose strides are those of (N, C, H, W), also where C = 1."""
    return tensor.clone(memory_format=torch.contiguous_format)


NO_GRADIENT = (
    "the gradient of the logits does not reach the images, through no_grad, detach or quantised layers: no attack by "
    "gradients can be measured; leave Robustness out"
)


class Gradient(NamedTuple):
    """What a forward and a backward pass tell about n images.

    ``logits`` (n, classes); ``images``, the gradient of each sample's loss with respect to its image, and ``largest``
    (n,), its largest absolute value; ``slope`` (n,), by how much the loss grows with the margin loss: minus its
    derivative with respect to the logit of the own class.
    """

    logits: Tensor
    images: Tensor
    largest: Tensor
    slope: Tensor


class AttackedNetwork(MeasuredNetwork):
    """Logits and gradients of one network.

    The parameters are handed in as detached copies of themselves (`called_with`): no flag is changed and
    backpropagation computes no weight gradient. On a CPU convolutions run channels-last, which was 1.1 to 1.7
    times as fast, depending on the processor. A network that is not in float32 is attacked as a float32 copy.

    ``exact`` passes are in float32, by the network as it was given. Gradients in bfloat16 are approximate, and each
    decision has to be made again by exact passes.

    Raises:
        ConfigError: a network in train mode or on another device, gradients that cannot be taken.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, loss: Loss = cross_entropy, precision: str = "float32"
    ) -> None:
        super().__init__(model, device)
        if torch.is_inference_mode_enabled():
            raise ConfigError("an attack needs gradients, but inference mode is on: use Trainer(inference_mode=False)")
        self.loss, self.exact = loss, precision == "float32"
        self.layout = channels_last if device.type == "cpu" else Tensor.contiguous
        for name, parameter in named_places(self.model, "parameters"):
            self.weights[name] = self.weights.get(name, parameter).detach()
        self._lay_out()

    def _lay_out(self) -> None:
        self.weights = {name: self.layout(each) if each.ndim == 4 else each for name, each in self.weights.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes), in whatever precision and grad mode the caller has set."""
        images = self.layout(images).clone()  # or a first layer that works in place would change what is attacked
        if self.scripted:  # cannot be handed parameters
            return logits_of(self.model(images), len(images))
        try:
            return logits_of(called_with(self.model, self.weights, images), len(images))
        except RuntimeError as error:
            if self.layout is not channels_last or "view size is not compatible" not in str(error):
                raise
            self.layout = channels_first  # which a network needs that flattens its maps by ``view``
            self._lay_out()
            return self.forward(images)

    def logits(self, images: Tensor) -> Tensor:
        """Exact logits (n, classes), without a graph."""
        with torch.no_grad(), float32(images.device):
            return self.forward(images)

    def gradient(
        self, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, exact: bool = True
    ) -> Gradient:
        """Logits and the gradient of the summed loss with respect to the images, exact or approximate.

        ``targets`` (n,) are handed to a targeted loss.
        """
        kind = images.device.type
        with float32(images.device) if exact else torch.autocast(kind, torch.bfloat16), torch.enable_grad():
            images = self.layout(images.detach()).requires_grad_(True)
            outputs = self.forward(images)
            if not outputs.requires_grad:
                raise ConfigError(NO_GRADIENT)
            # Losses saturate: they are taken in float32 and summed, for a mean would shrink each sample's gradient.
            with torch.autocast(kind, enabled=False):
                logits = outputs.detach().float().requires_grad_(True)
                losses = self.loss(logits, labels) if targets is None else self.loss(logits, labels, targets)
                (of_logits,) = torch.autograd.grad(losses.sum(), logits)
                try:
                    (gradient,) = torch.autograd.grad(outputs, images, of_logits.to(outputs.dtype), allow_unused=True)
                except RuntimeError as error:
                    if "use_reentrant" not in str(error):
                        raise
                    raise ConfigError(
                        "no attack goes through torch.utils.checkpoint: give it use_reentrant=False"
                    ) from error
                if gradient is None:
                    raise ConfigError(NO_GRADIENT)
        slope = -of_logits.gather(1, labels[:, None]).squeeze(1)
        return Gradient(logits.detach(), gradient, gradient.abs().flatten(1).amax(1), slope)


def check_images(images: Tensor, labels: Tensor) -> None:
    """Raise ConfigError unless images are float (N, ...) in [0, 1] with integer labels (N,) on the same device."""
    if not images.is_floating_point():
        raise ConfigError(f"images are {images.dtype}: expected floating point in [0, 1] (divide uint8 by 255)")
    if len(images) != len(labels) or labels.ndim != 1:
        raise ConfigError(f"labels have shape {tuple(labels.shape)}: expected ({len(images)},), one per image")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ConfigError(f"labels are {labels.dtype}: expected whole class numbers")
    if images.device != labels.device:
        raise ConfigError(f"images are on {images.device}, labels on {labels.device}: move them to one device")
    if len(labels) == 0:
        raise ConfigError("images are empty: expected one sample or more")
    low, high = torch.stack(images.aminmax()).tolist()
    if not (low >= 0 and high <= 1):
        raise ConfigError(f"images lie in [{low:g}, {high:g}]: expected [0, 1]; normalise inside the network")


def check_classes(labels: Tensor, classes: int) -> None:
    """Raise ConfigError for labels outside the network's classes."""
    low, high = torch.stack(labels.aminmax()).tolist()
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ConfigError(f"label {wrong} is out of range: the network has {classes} classes, 0 to {classes - 1}")


def refuse_not_finite(rows: Tensor, logits: Tensor, largest: Tensor | None = None) -> None:
    """Raise RunError for the first of ``rows`` with a logit, or a largest gradient, that is not finite; host waits."""
    broken = (~logits.isfinite()).nonzero()
    if len(broken):
        row, column = broken[0].tolist()
        raise RunError(
            f"the network returned {float(logits[row, column])} for row {int(rows[row])}: expected finite logits"
        )
    if largest is not None and not bool(largest.isfinite().all()):
        row = int(rows[~largest.isfinite()][0])
        raise RunError(f"the loss gradient of row {row} is not finite: use loss='margin', or rescale the logits")
