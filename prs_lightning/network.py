"""Any classifier as the measures see it: in float32, layer by layer, images in and logits (N, classes) out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DataParallel, DistributedDataParallel

from prs_lightning.errors import ConfigError
from prs_lightning.measuring import evaluating, float32, random_states_kept


def unwrapped(model: nn.Module) -> nn.Module:
    """The module that ``torch.compile``, DataParallel or DistributedDataParallel were given."""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def device_of(model: nn.Module) -> torch.device:
    """The device of a module's parameters; the CPU for one without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def outputs_of(output: Any, samples: int) -> Tensor:
    """Outputs (samples, outputs) of whatever a network returned: a tensor, a tuple that starts with one, ``.logits``.

    Raises:
        ConfigError: anything else; the message names it.
    """
    found = output
    if isinstance(found, Mapping):
        found = found.get("logits")
    elif not isinstance(found, Tensor) and hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor):
        raise ConfigError(
            f"the network returned a {type(output).__name__}: expected logits ({samples}, classes), a tuple that "
            "starts with them, or logits by that name"
        )
    if found.shape == (samples,):
        found = found.unsqueeze(1)
    if found.ndim != 2 or len(found) != samples:
        raise ConfigError(f"the network returned {tuple(found.shape)}: expected logits ({samples}, classes)")
    return found


def logits_of(output: Any, samples: int) -> Tensor:
    """Logits (samples, classes); one output of a binary network is the logit of class 1 against 0 for class 0.

    >>> logits_of({"logits": torch.tensor([2.0, -1.0])}, 2).argmax(1).tolist()
    [1, 0]

    Raises:
        ConfigError: as `outputs_of`.
    """
    found = outputs_of(output, samples)
    return torch.cat([torch.zeros_like(found), found], dim=1) if found.shape[1] == 1 else found


def named_places(model: nn.Module, *kinds: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a module by one name for each place where one stands, for `called_with`.

    A layer that is registered under two names is one place: torch's ``functional_call`` would not put its tensors back.
    A tensor that two layers share stands in two places.

    Args:
        kinds: ``parameters``, ``buffers``.
    """
    for prefix, module in model.named_modules():
        for kind in kinds:
            yield from getattr(module, f"named_{kind}")(prefix, recurse=False, remove_duplicate=False)


def called_with(model: nn.Module, tensors: Mapping[str, Tensor], inputs: Tensor) -> Any:
    """What a module returns with these tensors in the places of its own, which it has again afterwards."""
    return functional_call(model, dict(tensors), (inputs,), tie_weights=False)


class MeasuredNetwork:
    """A network that measures call: ``network(inputs)`` gives logits (N, classes).

    Parameters and buffers that are not in float32 are handed in as float32 copies; the network itself is not changed.

    Args:
        model: a module in eval mode.
        device: of the inputs.

    Raises:
        ConfigError: a module in train mode, or on another device.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = unwrapped(model)
        for name, module in self.model.named_modules():
            if module.training:
                raise ConfigError(f"the network is in train mode ({name or type(module).__name__}): call model.eval()")
        found = next((parameter.device for parameter in self.model.parameters()), device)
        if found != device:
            raise ConfigError(f"the network is on {found}, the images on {device}: move them to one device")
        self.scripted = isinstance(self.model, torch.jit.ScriptModule)
        self.weights: dict[str, Tensor] = {
            name: tensor.detach().float()
            for name, tensor in named_places(self.model, "parameters", "buffers")
            if tensor.is_floating_point() and tensor.dtype != torch.float32
        }
        if self.scripted and self.weights:
            kinds = {str(tensor.dtype) for tensor in self.model.parameters()}
            raise ConfigError(f"a scripted network in {', '.join(kinds)}: expected float32, call network.float()")

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return logits_of(self.run(inputs), len(inputs))

    def run(self, inputs: Tensor) -> Any:
        """Whatever the network returns."""
        try:
            return called_with(self.model, self.weights, inputs) if self.weights else self.model(inputs)
        except NotImplementedError as error:
            if type(self.model).forward is nn.Module.forward or "forward" in str(error):
                name = type(self.model).__name__
                raise ConfigError(f"{name} has no forward: expected one that takes inputs and gives logits") from error
            raise


@contextmanager
def as_measured(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode, true float32, eager, no gradients; modes, precision and random states are as before at the end."""
    with random_states_kept(), evaluating(model), float32(device), torch.no_grad(), _eager():
        yield


def _eager() -> AbstractContextManager[object]:
    """Hooks see nothing of a compiled graph. Nothing is compiled where dynamo, which is slow to import, is not."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def for_network(inputs: Tensor, device: torch.device) -> Tensor:
    """Inputs on the device, floating point ones in float32."""
    return inputs.to(device, torch.float32 if inputs.is_floating_point() else None)


def normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float], Sequence[float]] | None:
    """Both, as `PixelNetwork` takes them, or None for neither; ConfigError for one without the other."""
    if (mean is None) != (std is None):
        raise ConfigError(f"mean={mean}, std={std}: expected both, or neither")
    return None if mean is None or std is None else (mean, std)


def are_probabilities(logits: Tensor) -> bool:
    """Whether logits (N, classes) are none: of each sample 0 or more, and their sum 1."""
    return bool((logits >= 0).all() & ((logits.sum(1) - 1).abs() < 1e-4).all())


def refuse_probabilities(logits: Tensor) -> None:
    """Raise ConfigError for logits (N, classes) that are probabilities: attacks and losses would not see through them.

    >>> refuse_probabilities(torch.tensor([[0.5, 2.0], [0.1, 0.9]]))
    """
    if len(logits) and logits.shape[1] > 1 and are_probabilities(logits):
        raise ConfigError("the network returns probabilities (they sum to 1): give it logits, without the softmax")


class PixelNetwork(nn.Module):
    """A network of normalised inputs as one of images in [0, 1], so that attacks work in pixel units.

    Args:
        network: takes (images - mean) / std.
        mean, std: per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not len(std) or min(std) <= 0:
            raise ConfigError(f"mean={list(mean)}, std={list(std)}: expected one of each per channel, std positive")
        self.network = network
        self.training = False
        device = device_of(network)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32, device=device))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32, device=device))

    def _per_channel(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if len(self.mean) not in (1, images.shape[1]):
            raise ConfigError(f"mean and std have {len(self.mean)} channels, the images {images.shape[1]}")
        shape = (1, -1, *[1] * (images.ndim - 2))
        return self.mean.view(shape), self.std.view(shape)

    def pixels(self, inputs: Tensor) -> Tensor:
        """The images in [0, 1] of normalised inputs; what is beyond by rounding alone is cut."""
        mean, std = self._per_channel(inputs)
        images = inputs * std + mean
        rounded = images.clamp(0, 1)
        return torch.where((images - rounded).abs() < 1e-5, rounded, images)

    def inputs(self, images: Tensor) -> Tensor:
        """What the network takes for images in [0, 1]."""
        mean, std = self._per_channel(images)
        return (images - mean) / std

    def forward(self, images: Tensor) -> Any:
        return self.network(self.inputs(images))
