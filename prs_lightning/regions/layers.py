"""The layers of a network by name: finding them, and watching what they put out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import Tensor, nn

from prs_lightning.errors import ConfigError

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
