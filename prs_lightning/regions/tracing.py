"""What running a network tells: the layers that it ends in, its ReLUs, and the regions of any of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prs_lightning.errors import ConfigError
from prs_lightning.measuring import float32
from prs_lightning.network import (
    MeasuredNetwork,
    as_measured,
    called_with,
    device_of,
    for_network,
    named_places,
    outputs_of,
)
from prs_lightning.regions.layers import Tap, entering_tensor, tapping
from prs_lightning.regions.region_set import RegionSet

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

UNSIGNED = {"SoftplusBackward0", "SigmoidBackward0", "LogSigmoidBackward0", "HardswishBackward0", "MishBackward0"}
"""Activations whose sign is not always that of what enters them, in float32."""

PROBABILITIES = {"SoftmaxBackward0", "SigmoidBackward0"}


@dataclass(frozen=True)
class Ends:
    """The name of the final linear layer, and where the penultimate pre-activations are read."""

    final: str
    penultimate: Tap


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


class Connected(TorchFunctionMode):
    """Inside a ``with`` block autograd follows a network through its ``no_grad`` blocks and ``detach`` as well."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch.enable_grad():
            if func in (Tensor.detach, torch.detach):
                return args[0].clone()
            return func(*args, **(kwargs or {}))


def find_ends(network: MeasuredNetwork, inputs: Tensor) -> Ends:
    """Run the network once on a few inputs and read off where it ends.

    The final layer is the ``nn.Linear`` whose outputs become the logits. The penultimate pre-activations are what
    enters the activation before it; without one, as behind the pooling of a ResNet, what enters the final layer itself.

    Raises:
        ConfigError: a scripted network, outputs that are probabilities, no linear layer at the end, or several, or
            one that runs more than once.
    """
    model = network.model
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ConfigError(
            f"{type(model).__name__} is scripted, or a part of it, which hides its layers: give the module that was "
            "scripted"
        )
    calls: list[tuple[str, nn.Module, Any]] = []
    entering: dict[nn.Module, Any] = {}
    names = {module: name for name, module in model.named_modules() if name}

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            # A later operation in place gives the tensor another function: kept is the one that made it.
            calls.append((names[module], module, output.grad_fn))

    def remember(module: nn.Module, inputs: Any, named: Any) -> None:
        if isinstance(entered := entering_tensor(inputs, named), Tensor):
            entering[module] = entered.grad_fn

    with ExitStack() as hooks, float32(inputs.device), torch.inference_mode(False), Connected():
        # Clones, for a network may change in place what it is given: no leaf would allow it.
        named = named_places(model, "parameters")
        weights = {name: each.detach().float().requires_grad_().clone() for name, each in named}
        weights |= {name: tensor for name, tensor in network.weights.items() if name not in weights}
        for module in names:
            hooks.callback(module.register_forward_hook(record).remove)
            hooks.callback(module.register_forward_pre_hook(remember, with_kwargs=True).remove)
        start = inputs.clone()
        if start.is_floating_point():
            start = start.requires_grad_().clone()
        outputs = outputs_of(called_with(model, weights, start), len(inputs))
    if (end := _behind(outputs.grad_fn, SHAPES)) is not None and end.name() in PROBABILITIES:
        raise ConfigError(
            "the network returns probabilities: give it logits, without the softmax or sigmoid at its end"
        )
    linear = [call for call in calls if isinstance(call[1], nn.Linear)]
    nearest = _nearest(outputs.grad_fn, {made_by for *_, made_by in linear})
    last = [call for call in linear if call[2] in nearest and call[1].out_features == outputs.shape[1]]
    if not last:
        raise ConfigError(
            f"{type(model).__name__} ends in no linear layer of {outputs.shape[1]} outputs: name the layer to measure, "
            "Regions(layer=...), and leave CosineSimilarity and Collapse out"
        )
    final, module, _ = last[-1]
    if len(found := list(dict.fromkeys(call[0] for call in last))) > 1:
        raise ConfigError(
            f"the logits come from several linear layers, {', '.join(found)}: name the layers to measure, "
            "Regions(layer=...), CosineSimilarity(layer=...) and Collapse(layer=...)"
        )
    if sum(call[1] is module for call in linear) > 1:
        raise ConfigError(f"the final layer {final!r} runs more than once in a forward pass: expected once")
    return Ends(final, _penultimate(calls, entering, final, module))


def _behind(node: Any, passed: set[str]) -> Any:
    """The first function on the way back that is none of ``passed``; None at a leaf."""
    while node is not None and node.name() in passed:
        node = node.next_functions[0][0] if node.next_functions else None
    return node


def _nearest(node: Any, wanted: set[Any]) -> set[Any]:
    """Those of the wanted functions that are reached on the way back from one without passing another of them."""
    waiting, seen, found = [node], {None}, set()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        if each in wanted:
            found.add(each)
        else:
            waiting += [before for before, _ in each.next_functions]
    return found


def _penultimate(calls: Sequence[Any], entering: dict[nn.Module, Any], final: str, module: nn.Module) -> Tap:
    """Where the tensor is seen that enters the activation in front of the final module."""
    activation = _behind(entering[module], SHAPES)
    if activation is not None and activation.name() == "CheckpointFunctionBackward":
        raise ConfigError(f"torch.utils.checkpoint hides what enters {final!r}: give it use_reentrant=False")
    if activation is None or activation.name() not in ACTIVATIONS:
        return Tap(final, "input")
    source = activation.next_functions[0][0]
    for name, _, made_by in calls:  # of nested modules the innermost returns first
        if made_by is not None and made_by is source:
            return Tap(name)
    for name, inner, made_by in calls:
        if made_by is activation and entering.get(inner) is source:
            return Tap(name, "input")
    if activation.name() in UNSIGNED:
        raise ConfigError(f"what enters the activation before {final!r} is no module's output: name a layer, layer=...")
    return Tap(final, "input")  # the activation keeps the sign of what no module gives


def measure(model: nn.Module, loader: Iterable[Any], *, layer: str) -> RegionSet:
    """The populated regions of one layer of any torch module over all samples of a loader.

    The network runs in eval mode, without gradients and in float32; afterwards its modes, its hooks and torch's random
    state are as before. Name the layer before the ReLU: it does not matter if that ReLU works in place.

    Args:
        model: takes a batch of inputs; they are moved to the device of its parameters.
        loader: batches, each a tensor or a tuple or list whose first element is one.
        layer: a name of ``model.named_modules()``, with an output (N, D) or (N, C, H, W).

    Raises:
        ConfigError: an unknown layer (with near names), one that does not run once in each forward pass, or a batch
            of another kind.

    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> measure(network, [torch.zeros(5, 4), torch.zeros(3, 4)], layer="0").ratio
    0.125
    """
    regions, outputs = RegionSet(), 0

    def seen(tap: Tap, output: Tensor) -> None:
        nonlocal outputs
        outputs += 1
        regions.add(output)

    device = device_of(model)
    with as_measured(model, device):
        network = MeasuredNetwork(model, device)
        with tapping(network.model, [Tap(layer)], seen):
            for batch in loader:
                images = batch[0] if isinstance(batch, tuple | list) and batch else batch
                if not isinstance(images, Tensor):
                    raise ConfigError(f"a batch of type {type(batch).__name__}: expected a tensor, or a tuple with one")
                outputs = 0
                network.run(for_network(images, device))
                if outputs != 1:
                    raise ConfigError(f"layer {layer!r} ran {outputs} times in a forward pass: expected once")
    return regions
