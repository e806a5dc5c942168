"""Batch normalisation folded into the convolution before it."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prs_lightning.measuring import float32

TOLERANCE = 1e-4
"""Largest difference of the logits that folding may make, relative to the largest logit."""


def fold_batch_norm(model: nn.Module, example: Tensor) -> nn.Module | None:
    """The network with each BatchNorm2d folded into the convolution that alone feeds it; None if there is nothing to.

    In eval mode batch normalisation is an affine map per channel, so it can be multiplied into the weights; float32
    rounds differently, which is why the caller judges every result with the network as it was given. The network
    itself is not changed. None is returned, too, if its graph cannot be traced (control flow that depends on data),
    or if the logits of ``example`` (images) change by more than ``TOLERANCE`` or any of its predictions does.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return None
    try:
        graph = fx.Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError, AttributeError, RuntimeError):
        return None  # folding only saves time; what cannot be traced runs as it is
    modules = dict(model.named_modules())
    folded = fx.GraphModule(model, graph)
    pairs = 0
    for node in list(graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        if before.op != "call_module" or not isinstance(modules[before.target], nn.Conv2d) or len(before.users) > 1:
            continue
        shared = sum(other.target == before.target for other in graph.nodes) > 1
        if shared or not modules[node.target].track_running_stats:
            continue
        name = f"folded_{pairs}"
        folded.add_module(name, fuse_conv_bn_eval(modules[before.target], modules[node.target]))
        before.target = name
        node.replace_all_uses_with(before)
        graph.erase_node(node)
        pairs += 1
    if not pairs:
        return None
    folded.graph = graph
    folded.recompile()
    folded.delete_all_unused_submodules()
    with torch.no_grad(), float32(example.device):
        exact, other = model(example), folded(example)
    close = (exact - other).abs().max() <= TOLERANCE * exact.abs().max()
    same = (exact.argmax(1) == other.argmax(1)).all()
    return folded if bool(close & same) else None
