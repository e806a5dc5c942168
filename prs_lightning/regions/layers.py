"""The layers of a network by name: finding them, watching what they put out, and the regions of any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prs_lightning.errors import ConfigError
from prs_lightning.measuring import evaluating, float32
from prs_lightning.regions.region_set import RegionSet

_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that name in ``model.named_modules()``.

    Raises:
        ConfigError: there is none; the message lists names that are near.
    """
    modules = dict(model.named_modules())
    if name and name in modules:
        return modules[name]
    near = get_close_matches(name, modules, n=5, cutoff=0.4) or [key for key in modules if key][:8]
    raise ConfigError(f"layer {name!r} is not in {type(model).__name__}: did you mean {', '.join(near)}?")


def hidden_layers(model: nn.Module, final: nn.Module) -> list[str]:
    """Names of all layers of units except ``final``, in the order of registration.

    Every convolution and fully connected layer counts, by its output before the ReLU. Where a batch normalisation of
    the same width is registered right after it, as in ResNet, that one's output stands for the layer. A residual
    sum is no layer of its own.
    """
    layers = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    names = []
    for place, (name, module) in enumerate(layers):
        if not isinstance(module, nn.Conv2d | nn.Linear) or module is final:
            continue
        width = module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
        for following_name, following in layers[place + 1 : place + 2]:
            if isinstance(following, _NORMALISATIONS) and following.num_features == width:
                name = following_name
        names.append(name)
    return names


@contextmanager
def watching(model: nn.Module, names: Sequence[str], seen: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``seen(name, output)`` for every output of the named layers inside a ``with`` block.

    The output is handed over at once, before a later in-place operation can change it. The hooks are removed at the
    end of the block, whatever happens.

    Raises:
        ConfigError: an unknown name, or an output that is no tensor.
    """

    def hook(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise ConfigError(f"layer {name!r} puts out a {type(output).__name__}: expected a tensor")
        seen(name, output)

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(find_layer(model, name).register_forward_hook(partial(hook, name)).remove)
        yield


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

    def seen(name: str, output: Tensor) -> None:
        nonlocal outputs
        outputs += 1
        regions.add(output)

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]), evaluating(model), float32(device), torch.no_grad():
        with watching(model, [layer], seen):
            for batch in loader:
                images = batch[0] if isinstance(batch, tuple | list) and batch else batch
                if not isinstance(images, Tensor):
                    raise ConfigError(f"a batch of type {type(batch).__name__}: expected a tensor, or a tuple with one")
                outputs = 0
                model(images.to(device))
                if outputs != 1:
                    raise ConfigError(f"layer {layer!r} ran {outputs} times in a forward pass: expected once")
    return regions
