"""What the PRS ratio is a property of: one function at other ratios, one ratio at other scales of the logits.

Each function gives a new network and leaves the given one as it is. They take any network whose ends `find_ends` finds
(our three, wrapped ones, those of normalised inputs), and what they give is measured and attacked as any other network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prs_lightning.errors import ConfigError, in_one_line
from prs_lightning.network import MeasuredNetwork, as_measured, device_of, for_network, unwrapped
from prs_lightning.regions.layers import Tap, entering_tensor, find_layer, tapping
from prs_lightning.regions.signs import flat, sign_patterns
from prs_lightning.regions.tracing import Ends, find_ends
from prs_lightning.seeding import keyed_normal, mixed_seed

BATCH = 200
SIDES = (32, 28, 64, 224)
"""Image sizes that are tried where nobody says what a network takes."""


class Beside(nn.Module):
    """``kept``, and behind its outputs (N, D) those of k further units, ``inputs @ weight.T``: (N, D + k).

    ``kept`` runs as it did before: a wider product might add its terms up in another order, and so round differently.

    Args:
        kept: the layer as it was.
        weight: of the further units, (k, inputs).
        rectified: the units come behind a ReLU of their own.
    """

    def __init__(self, kept: nn.Module, weight: Tensor, *, rectified: bool = False) -> None:
        super().__init__()
        self.kept, self.weight, self.rectified = kept, nn.Parameter(weight), rectified
        self.training = kept.training

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        kept = self.kept(*inputs, **named)
        units = F.linear(entering_tensor(inputs, named).flatten(1), self.weight)
        return torch.cat([kept, (units.relu() if self.rectified else units).view(*units.shape, *kept.shape[2:])], 1)


class Without(nn.Module):
    """``kept``, of whose outputs (N, D) only those with the numbers ``alive`` are passed on."""

    alive: Tensor

    def __init__(self, kept: nn.Module, alive: Tensor) -> None:
        super().__init__()
        self.kept, self.training = kept, kept.training
        self.register_buffer("alive", alive)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return self.kept(*inputs, **named).index_select(1, self.alive)


class Blocks(nn.Linear):
    """A linear layer whose sum over the inputs is taken in blocks of ``sizes`` inputs, one after the other.

    So the first block is added up as a layer of these inputs alone does it, and what blocks of zeros add is exactly 0.
    """

    def __init__(self, like: nn.Linear, weight: Tensor, bias: Tensor | None, sizes: Sequence[int]) -> None:
        nn.Module.__init__(self)  # that of a linear layer would draw weights
        self.out_features, self.in_features = weight.shape
        self.sizes, self.training = tuple(sizes), like.training
        self.weight = nn.Parameter(weight)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias))

    def forward(self, inputs: Tensor) -> Tensor:
        parts = zip(inputs.split(self.sizes, -1), self.weight.split(self.sizes, 1), strict=True)
        (first, weight), *others = ((part.contiguous(), weight.contiguous()) for part, weight in parts)
        outputs = F.linear(first, weight, self.bias)
        for part, weight in others:
            outputs = outputs + F.linear(part, weight)
        return outputs


def inert_units(network: nn.Module, k: int, *, seed: int = 0, images: Tensor | None = None) -> nn.Module:
    """The same function with k penultimate units more, of random weights in and zero weights out: PRS -> 1 with k.

    Every logit is the same to the bit, in batches of any size and on every path that measures or attacks: the old
    layers compute what they did, in calls of the same shapes; the new units' outputs meet weights of 0 in a block of
    their own, and adding 0 is exact. Gradients are the same for the same reason.

    What the units see is what their layer sees: inputs of weights that are normal with variance 1 / inputs, no bias.
    Where the penultimate pre-activations are no layer's output but what enters the final layer itself, as the
    pooled features of a ResNet, the new units see these and pass a ReLU of their own.

    Args:
        network: any module whose `find_ends` are found; unwrapped, and copied.
        k: 0 or more.
        seed: of the weights; the first of k units are those of a smaller k.
        images: a few inputs, as the network takes them, to run it on; None: some of a usual size are tried.

    Raises:
        ConfigError: k below 0, a network that is not understood, whose penultimate layer gives maps, or whose
            activation does not take more units.
    """
    for name, value in (("k", k), ("seed", seed)):
        if not (math.isfinite(value) and value == int(value) and value >= 0):
            raise ConfigError(f"{name}={value}: expected a whole number, 0 or more")
    copied, ends, inputs = _copy(network, images)
    if k == 0:
        return copied
    final, tap = _linear(copied, ends), ends.penultimate
    entered: list[Tensor] = []
    with as_measured(copied, inputs.device):
        measured = MeasuredNetwork(copied, inputs.device)
        before = measured(inputs.clone())
        with tapping(copied, [Tap(tap.name, "input")], lambda tap, tensor: entered.append(tensor.flatten(1))):
            measured.run(inputs.clone())
    width = entered[0].shape[1]
    rows = keyed_normal(torch.arange(int(k)), width, mixed_seed(int(seed)) - 2**63) / math.sqrt(width)
    rows = rows.to(final.weight)
    zeros = final.weight.new_zeros(final.out_features, len(rows))
    weight = torch.cat([final.weight.detach(), zeros], dim=1)
    widened = Blocks(final, weight, _bias(final), (*_sizes(final), len(rows)))
    _insert(copied, ends, final, lambda kept, last: Beside(kept, rows, rectified=last), widened)
    with as_measured(copied, inputs.device):
        try:
            measured = MeasuredNetwork(copied, inputs.device)
            same = torch.equal(measured(inputs.clone()), before)
        except RuntimeError as error:
            told = in_one_line(error)
            raise ConfigError(f"the penultimate layer, {tap}, cannot have further units: {told}") from error
    if not same:
        raise ConfigError(f"the penultimate layer, {tap}, is read by more than the final layer: no unit there is inert")
    return copied


def without_dead_units(network: nn.Module, images: Tensor) -> nn.Module:
    """The network without the penultimate units that are positive for none of the training images.

    On these images the function is unchanged *to rounding*: what is left out of each logit's sum are terms that are
    exactly 0, but a shorter sum may be added up in another order. The pre-activations of the units that stay, and so
    regions and PRS ratio, are the same to the bit. On any other image that switches a removed unit on, the function
    differs.

    Args:
        network: as for `inert_units`.
        images: the training images as the network takes them, (N, ...); moved to its device a batch at a time.

    Raises:
        ConfigError: no images, every unit dead, units that pass something on though they are not positive (an
            activation other than ReLU), or a network that is not understood.
    """
    if not len(images):
        raise ConfigError("images are empty: expected the training images, one or more")
    copied, ends, inputs = _copy(network, images)
    final, tap = _linear(copied, ends), ends.penultimate
    entering = Tap(ends.final, "input")
    positive, passed = (torch.zeros(final.in_features, dtype=torch.bool, device=inputs.device) for _ in range(2))

    def look(seen_at: Tap, tensor: Tensor) -> None:
        if seen_at == tap:
            if tensor.shape[1:].numel() != tensor.shape[1]:
                raise ConfigError(f"the penultimate layer, {tap}, gives maps {tuple(tensor.shape[1:])}: expected units")
            positive.logical_or_(sign_patterns(tensor).any(0))
        if seen_at == entering:
            passed.logical_or_((flat(tensor) != 0).any(0))

    with as_measured(copied, inputs.device):
        measured = MeasuredNetwork(copied, inputs.device)
        with tapping(copied, list({tap, entering}), look):
            for batch in images.split(BATCH):
                measured.run(for_network(batch, inputs.device))
    if bool((passed & ~positive).any()):
        unit = int((passed & ~positive).nonzero()[0])
        raise ConfigError(f"penultimate unit {unit} is never positive but passes something on: expected ReLU units")
    alive = positive.nonzero().flatten()
    if not len(alive):
        raise ConfigError(f"all {len(positive)} penultimate units are dead on these images: nothing would be left")
    if len(alive) < len(positive):
        smaller = Blocks(final, final.weight.detach()[:, alive], _bias(final), (len(alive),))
        _insert(copied, ends, final, lambda kept, last: Without(kept, alive), smaller)
    return copied


def scaled(network: nn.Module, c: float, *, images: Tensor | None = None) -> nn.Module:
    """The network with weight and bias of its final layer times c: logits times c, the same classes and regions.

    For a power of two c the logits are exactly c times what they were, as long as none leaves the range of float32. For
    any other they are so to rounding, and a class changes only where two logits were as near as that. Regions and PRS
    ratio lie before the final layer and are the same to the bit for any c.

    Args:
        network, images: as for `inert_units`.
        c: above 0.

    Raises:
        ConfigError: c that is not a finite number above 0, or takes weights out of the range of their numbers.
    """
    if not (math.isfinite(c) and c > 0):
        raise ConfigError(f"c={c}: expected a finite number above 0")
    copied, ends, _ = _copy(network, images)
    final = _linear(copied, ends)
    weight, bias = final.weight.detach() * c, _bias(final)
    if not bool(weight.isfinite().all()) or (bias is not None and not bool((bias * c).isfinite().all())):
        raise ConfigError(f"c={c:g} takes weights of the final layer beyond what {weight.dtype} holds: a smaller c")
    _replace(copied, final, Blocks(final, weight, None if bias is None else bias * c, _sizes(final)))
    return copied


def _copy(network: nn.Module, images: Tensor | None) -> tuple[nn.Module, Ends, Tensor]:
    """A copy of the network, where it ends, and inputs that it takes."""
    copied = deepcopy(unwrapped(network))
    device = device_of(copied)
    tried = [images[:2]] if images is not None and len(images) else list(_guesses(copied))
    with as_measured(copied, device):
        measured = MeasuredNetwork(copied, device)
        for place, inputs in enumerate(tried, start=1):
            inputs = for_network(inputs, device)
            try:
                measured.run(inputs.clone())
            except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                if place == len(tried):
                    kind = type(copied).__name__
                    raise ConfigError(f"{kind} took none of the inputs that were tried: give it images=") from error
                continue
            return copied, find_ends(measured, inputs), inputs
    raise ConfigError(f"{type(copied).__name__} has no convolution and no linear layer: give some inputs, images=")


def _guesses(network: nn.Module) -> Iterator[Tensor]:
    """Random inputs of the shapes that the first convolution, or else the first linear layer, may be made for."""
    shapes: list[tuple[int, ...]] = []
    if convolution := next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None):
        shapes = [(convolution.in_channels, side, side) for side in SIDES]
    elif linear := next((layer for layer in network.modules() if isinstance(layer, nn.Linear)), None):
        width = linear.in_features
        sides = ((channels, math.isqrt(width // channels)) for channels in (1, 3))
        shapes = [(channels, side, side) for channels, side in sides if channels * side**2 == width]
        shapes.append((width,))
    for shape in shapes:
        yield torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))


def _linear(network: nn.Module, ends: Ends) -> nn.Linear:
    """The final layer; ConfigError for one that computes in a way of its own."""
    final = find_layer(network, ends.final)
    if not isinstance(final, nn.Linear) or (type(final).forward not in (nn.Linear.forward, Blocks.forward)):
        raise ConfigError(f"the final layer {ends.final!r} is a {type(final).__name__}: expected an nn.Linear")
    return final


def _bias(final: nn.Linear) -> Tensor | None:
    return None if final.bias is None else final.bias.detach()


def _sizes(final: nn.Linear) -> tuple[int, ...]:
    return final.sizes if isinstance(final, Blocks) else (final.in_features,)


def _insert(network: nn.Module, ends: Ends, final: nn.Linear, around: Any, other: nn.Linear) -> None:
    """Put ``around(layer, last)`` where the penultimate pre-activations are read, and ``other`` for the final layer.

    ``last``: they are read where they enter the final layer.
    """
    tap = ends.penultimate
    if tap.name == ends.final:
        _replace(network, final, nn.Sequential(around(nn.Identity().train(final.training), True), other))
        return
    layer = find_layer(network, tap.name)
    if tap.side == "output":
        _replace(network, layer, around(layer, False))
    else:
        _replace(network, layer, nn.Sequential(around(nn.Identity().train(layer.training), False), layer))
    _replace(network, final, other)


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another, under every name that it has."""
    named = [(parent, name) for parent in network.modules() for name, child in parent.named_children() if child is old]
    for parent, name in named:
        setattr(parent, name, new)
