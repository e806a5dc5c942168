"""ReLU after pooling instead of before it, and in place: the same numbers from less memory traffic."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prs_lightning.measuring import float32


def pool_first(model: nn.Module, example: Tensor) -> nn.Module:
    """The network with ReLU and max pooling changed places wherever they follow each other in an ``nn.Sequential``.

    A maximum and ReLU commute, also in their gradients: a window whose maximum is positive has it in one place, any
    other has none. ReLU then works on a quarter of the values. After a pooling or a convolution, whose gradients do not
    need their outputs, it also works in place. All of it made the passes of CNN-6 on a CPU 3% to 4% faster.

    The network itself is not changed: those containers are replaced in a twin that shares all else. It is returned as
    it was if nothing is to be gained, or if the logits of ``example`` (images) differ in any bit, as they do where a
    network looks into its containers.
    """
    twin = _twin(model)
    if twin is model:
        return model
    with torch.no_grad(), float32(example.device):
        return twin if torch.equal(model(example), twin(example)) else model


def _twin(module: nn.Module) -> nn.Module:
    """The module, or, where a container below it changes, a copy that shares parameters and all other modules."""
    layers = {name: None if layer is None else _twin(layer) for name, layer in module._modules.items()}
    if type(module) is nn.Sequential:
        layers = _reordered(layers)
    if list(layers.items()) == list(module._modules.items()):
        return module
    twin = module.__new__(type(module))
    twin.__dict__ = {**module.__dict__, "_modules": layers}
    return twin


def _reordered(layers: dict[str, nn.Module | None]) -> dict[str, nn.Module | None]:
    found: list[tuple[str, nn.Module | None]] = []
    for name, layer in layers.items():
        last, before = found[-1] if found else ("", None)
        if _is(before, nn.ReLU) and _is(layer, nn.MaxPool2d) and not getattr(layer, "return_indices", False):
            found[-1:] = [(name, layer), (last, nn.ReLU(inplace=True))]
        elif _is(layer, nn.ReLU) and _is(before, nn.Conv2d):
            found.append((name, nn.ReLU(inplace=True)))
        else:
            found.append((name, layer))
    return dict(found)


def _is(layer: nn.Module | None, kind: type[nn.Module]) -> bool:
    """Exactly of this class, and nobody watches it by a hook."""
    return type(layer) is kind and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
