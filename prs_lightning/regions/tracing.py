"""Which layers a network ends in, found by running it: the final linear layer, and what enters its activation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from prs_lightning.errors import ConfigError
from prs_lightning.measuring import float32
from prs_lightning.network import MeasuredNetwork, logits_of
from prs_lightning.regions.layers import find_layer

ACTIVATIONS = {
    *("ReluBackward0", "ReluBackward1", "LeakyReluBackward0", "LeakyReluBackward1", "EluBackward0", "EluBackward1"),
    *("GeluBackward0", "SiluBackward0", "TanhBackward0", "HardtanhBackward0", "HardtanhBackward1", "CeluBackward0"),
    *("SoftplusBackward0", "SigmoidBackward0", "MishBackward0", "HardswishBackward0", "PreluKernelBackward0"),
    *("ThresholdBackward0", "ThresholdBackward1", "LogSigmoidBackward0", "RreluWithNoiseBackward0"),
}
"""Autograd's names of the functions that count as activations."""

SHAPES = {
    *("ViewBackward0", "ReshapeAliasBackward0", "UnsafeViewBackward0", "SqueezeBackward0", "SqueezeBackward1"),
    *("UnsqueezeBackward0", "AliasBackward0", "CloneBackward0", "SliceBackward0", "SqueezeBackward2"),
    *("ToCopyBackward0", "TBackward0", "ExpandBackward0"),
}
"""Those that change no value; dropout is none of them in eval mode."""

PROBABILITIES = {"SoftmaxBackward0", "SigmoidBackward0"}


@dataclass(frozen=True)
class Tap:
    """Where pre-activations are read: the ``"output"`` or the ``"input"`` of the module of that name."""

    name: str
    side: str = "output"

    def __str__(self) -> str:
        return self.name if self.side == "output" else f"the input of {self.name}"


@dataclass(frozen=True)
class Ends:
    """The name of the final linear layer, and where the penultimate pre-activations are read."""

    final: str
    penultimate: Tap


@contextmanager
def tapping(model: nn.Module, taps: Sequence[Tap], seen: Callable[[Tap, Tensor], None]) -> Iterator[None]:
    """Call ``seen(tap, tensor)`` at every tap of a forward pass inside a ``with`` block.

    The tensor is handed over at once, before a later in-place operation can change it. The hooks are removed at the
    end of the block, whatever happens.

    Raises:
        ConfigError: an unknown name, or what is there is no tensor.
    """

    def look(tap: Tap, tensor: Any) -> None:
        if isinstance(tensor, tuple) and len(tensor) == 1:
            (tensor,) = tensor
        if not isinstance(tensor, Tensor):
            raise ConfigError(f"layer {tap}: a {type(tensor).__name__} is no layer of units; expected a tensor")
        seen(tap, tensor)

    def before(tap: Tap, module: nn.Module, inputs: Any) -> None:
        look(tap, inputs)

    def after(tap: Tap, module: nn.Module, inputs: Any, output: Any) -> None:
        look(tap, output)

    with ExitStack() as hooks:
        for tap in taps:
            module = find_layer(model, tap.name)
            if tap.side == "output":
                hooks.callback(module.register_forward_hook(partial(after, tap)).remove)
            else:
                hooks.callback(module.register_forward_pre_hook(partial(before, tap)).remove)
        yield


class Relus(TorchFunctionMode):
    """Calls ``seen(output)`` for every ReLU that runs inside a ``with`` block, of a module or of a function."""

    NAMES = frozenset({torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, nn.functional.relu, nn.functional.relu_})

    def __init__(self, seen: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in self.NAMES:
            self.seen(output)
        return output


def find_ends(network: MeasuredNetwork, inputs: Tensor) -> Ends:
    """Run the network once on a few inputs and read off where it ends.

    The final layer is the last ``nn.Linear`` that ran. The penultimate pre-activations are what enters the activation
    before it; without one, as behind the pooling of a ResNet, what enters the final layer itself.

    Raises:
        ConfigError: a scripted network, outputs that are probabilities, no linear layer at the end, or one that runs
            more than once.
    """
    model = network.model
    if network.scripted:
        raise ConfigError(
            f"{type(model).__name__} is scripted, which hides its layers: give the module that it was scripted from"
        )
    calls: list[tuple[str, nn.Module, Any, Any]] = []
    names = {module: name for name, module in model.named_modules() if name}

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            # In-place operations give the tensor another function: kept is the one that made it.
            entered = [tensor for tensor in inputs if isinstance(tensor, Tensor)]
            calls.append((names[module], module, _last(entered), output.grad_fn))

    def remember(module: nn.Module, inputs: Any) -> None:
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                before[module] = tensor.grad_fn

    before: dict[nn.Module, Any] = {}
    weights = {name: tensor.detach().float().requires_grad_() for name, tensor in model.named_parameters()}
    weights |= {name: tensor for name, tensor in network.weights.items() if name not in weights}
    with ExitStack() as hooks, float32(inputs.device), torch.enable_grad():
        for module in names:
            hooks.callback(module.register_forward_hook(record).remove)
            hooks.callback(module.register_forward_pre_hook(remember).remove)
        output = functional_call(model, weights, (inputs.clone(),))
    logits = logits_of(output, len(inputs))
    if (end := _behind(logits.grad_fn, SHAPES)) is not None and end.name() in PROBABILITIES:
        raise ConfigError(
            "the network returns probabilities: give it logits, without the softmax or sigmoid at its end"
        )
    linear = [call for call in calls if isinstance(call[1], nn.Linear)]
    if not linear or linear[-1][1].out_features != _outputs(output, len(inputs)):
        raise ConfigError(
            f"{type(model).__name__} ends in no linear layer of {logits.shape[1]} outputs: name the layer to measure, "
            "Regions(layer=...), and leave CosineSimilarity out"
        )
    final, module, _, _ = linear[-1]
    if sum(call[1] is module for call in linear) > 1:
        raise ConfigError(f"the final layer {final!r} runs more than once in a forward pass: expected once")
    return Ends(final, _penultimate(calls, before, final, module))


def _outputs(output: Any, samples: int) -> int:
    """How many numbers a network returns for each sample: 1 for a binary one."""
    if not isinstance(output, Tensor):
        return logits_of(output, samples).shape[1]
    return output.shape[1] if output.ndim > 1 else 1


def _last(tensors: Sequence[Tensor]) -> Tensor | None:
    return tensors[-1] if tensors else None


def _behind(node: Any, passed: set[str]) -> Any:
    """The first function on the way back that is none of ``passed``; None at a leaf."""
    while node is not None and node.name() in passed:
        node = node.next_functions[0][0] if node.next_functions else None
    return node


def _penultimate(calls: Sequence[Any], before: dict[nn.Module, Any], final: str, module: nn.Module) -> Tap:
    entering = Tap(final, "input")
    activation = _behind(before[module], SHAPES)
    if activation is None or activation.name() not in ACTIVATIONS:
        return entering
    source = activation.next_functions[0][0]
    for name, _, _, made_by in calls:  # of nested modules the innermost returns first
        if made_by is not None and made_by is source:
            return Tap(name)
    for name, inner, _, made_by in calls:
        if made_by is activation and before.get(inner) is source:
            return Tap(name, "input")
    return entering
