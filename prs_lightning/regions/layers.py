"""The layers of a network by name: finding them, and watching what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import Tensor, nn

from prs_lightning.errors import ConfigError

_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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
        if not isinstance(module, (*_CONVOLUTIONS, nn.Linear)) or module is final:
            continue
        width = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        for following_name, following in layers[place + 1 : place + 2]:
            if isinstance(following, _NORMALISATIONS) and following.num_features == width:
                name = following_name
        names.append(name)
    return names


@dataclass(frozen=True)
class Tap:
    """Where pre-activations are read: the ``"output"`` or the ``"input"`` of the module of that name."""

    name: str
    side: str = "output"

    def __str__(self) -> str:
        return self.name if self.side == "output" else f"the input of {self.name}"


def entering_tensor(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """The first argument of a module's call, by place or by name."""
    return next(iter((*inputs, *named.values())), None)


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

    def before(tap: Tap, module: nn.Module, inputs: Any, named: Any) -> None:
        look(tap, entering_tensor(inputs, named))

    def after(tap: Tap, module: nn.Module, inputs: Any, output: Any) -> None:
        look(tap, output)

    with ExitStack() as hooks:
        for tap in taps:
            module = find_layer(model, tap.name)
            if tap.side == "output":
                hooks.callback(module.register_forward_hook(partial(after, tap)).remove)
            else:
                hooks.callback(module.register_forward_pre_hook(partial(before, tap), with_kwargs=True).remove)
        yield
