"""The same function at other PRS ratios and scales: to the bit where that is said, else within what rounding can do."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prs_lightning.attacks import pgd
from prs_lightning.errors import ConfigError
from prs_lightning.models import CNN6, VGG16, ResNet18, Wrapped
from prs_lightning.network import MeasuredNetwork, PixelNetwork, as_measured
from prs_lightning.regions import measure
from prs_lightning.regions.layers import find_layer
from prs_lightning.regions.tracing import find_ends
from prs_lightning.regions.units import inert_units, scaled, without_dead_units
from tests import any_networks, attacked
from tests.networks import PlainNetwork

FLOAT32 = 2.0**-24


class Pooled(nn.Module):
    """Ends as a ResNet does: what enters the final layer are means of rectified maps; a final layer without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(1, 24, kernel_size=7, stride=5), nn.BatchNorm2d(24), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(24, 10, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.maps(images)).flatten(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cnn6": lambda: CNN6(channels=1, mean=[0.13], std=[0.31]),
    "resnet18": lambda: ResNet18(channels=1),
    "plain": lambda: PlainNetwork(channels=1),
    "wrapped": lambda: Wrapped(any_networks.Reshaping(1, 10), channels=1, mean=[0.13], std=[0.31]),
    "normalised": lambda: PixelNetwork(any_networks.Reshaping(1, 10), [0.5], [0.25]),
    "view": lambda: any_networks.Convolutional(1, 10),
    "one output": any_networks.OneOutput,
    "pooled": Pooled,
    "digits": lambda: attacked.trained(),
    "trains itself": lambda: any_networks.Own(10),
    "gelu": any_networks.Gelu,
}


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(3)
    return NETWORKS[name]().eval()


@cache
def images() -> Tensor:
    return attacked.digits(130)[0]


def seen(model: nn.Module, inputs: Tensor, batch: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, pre-activations (N, D) and what enters the final layer, by hooks of our own, as measured."""
    found: dict[str, list[Tensor]] = {"logits": [], "z": [], "h": []}
    with as_measured(model, inputs.device):
        measured = MeasuredNetwork(model, inputs.device)
        ends = find_ends(measured, inputs[:2])
        tapped, final = (find_layer(model, name) for name in (ends.penultimate.name, ends.final))
        hooks = [
            tapped.register_forward_hook(
                lambda _, given, output: found["z"].append(
                    (output if ends.penultimate.side == "output" else given[0]).clone().flatten(1)
                )
            ),
            final.register_forward_hook(lambda _, given, output: found["h"].append(given[0].clone().flatten(1))),
        ]
        for part in inputs.split(batch):
            found["logits"].append(measured(part))
        for hook in hooks:
            hook.remove()
    return torch.cat(found["logits"]), torch.cat(found["z"]), torch.cat(found["h"])


def patterns(z: Tensor) -> set[tuple[bool, ...]]:
    return {tuple(row) for row in (z > 0).tolist()}


def bits(tensor: Tensor) -> bytes:
    return (tensor + 0.0).numpy().tobytes()  # -0.0 and 0.0 are one number


@pytest.mark.parametrize("name", NETWORKS)
def test_inert_units_change_no_bit_of_a_logit_and_add_regions(name: str) -> None:
    given = network(name)
    state = {key: value.clone() for key, value in given.state_dict().items()}
    random = torch.get_rng_state()
    widened = inert_units(given, 40)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in given.state_dict().items())
    for inputs, batch in ((images(), 64), (images()[:7], 1), (images(), 130)):
        logits, z, _ = seen(given, inputs, batch)
        more_logits, more, _ = seen(widened, inputs, batch)
        assert bits(logits) == bits(more_logits)
        assert more.shape == (len(z), z.shape[1] + 40)
        assert bits(more[:, : z.shape[1]]) == bits(z)
    assert len(patterns(more)) >= len(patterns(z))
    assert (more[:, z.shape[1] :].std(0) > 0).float().mean() > 0.4  # of a ResNet's some are never positive
    if name in ("resnet18", "pooled"):  # what enters the final layer has passed a ReLU, and so have the new units
        assert (more >= 0).all()
    assert not widened.training
    sizes = [sum(each.numel() for each in model.parameters()) for model in (given, widened)]
    assert sizes[1] > sizes[0]


def test_it_is_measured_and_attacked_as_any_network_and_the_ratio_goes_to_1() -> None:
    given, (inputs, labels) = network("digits"), attacked.digits(130)
    ratios = []
    for k in (0, 4, 300):
        widened = inert_units(given, k)
        with as_measured(widened, inputs.device):
            tap = find_ends(MeasuredNetwork(widened, inputs.device), inputs[:2]).penultimate
        found = measure(widened, inputs.split(50), layer=tap.name)
        z = seen(widened, inputs)[1]
        assert (found.units, found.ratio) == (32 + k, len(patterns(z)) / len(z))
        ratios.append(found.ratio)
    assert ratios[0] < ratios[1] < ratios[2] == 1
    for loss in ("cross_entropy", "margin"):
        before, after = (
            pgd(model, inputs[:40], labels[:40], epsilon=0.1, step_size=0.02, steps=5, loss=loss)
            for model in (given, widened)
        )
        assert torch.equal(before.correct_after, after.correct_after)
        assert torch.equal(before.adversarial, after.adversarial)
        assert torch.equal(before.zero_gradient_end, after.zero_gradient_end)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_layout_of_the_images_changes_nothing(channels_last: bool) -> None:
    kind = torch.channels_last if channels_last else torch.contiguous_format
    given = NETWORKS["cnn6"]().eval().to(memory_format=kind)
    inputs = images()[:33].to(memory_format=kind)
    assert bits(seen(given, inputs)[0]) == bits(seen(inert_units(given, 1000), inputs)[0])


def test_the_first_of_k_units_are_those_of_a_smaller_k_and_another_seed_gives_others() -> None:
    few, many, other = (inert_units(network("plain"), k, seed=s) for k, s in ((3, 0), (9, 0), (3, 1)))
    weights = [made.hidden[1].weight for made in (few, many, other)]
    assert torch.equal(weights[0], weights[1][:3])
    assert not (weights[0] == weights[2]).any()
    twice = inert_units(few, 4, seed=1)
    logits, z, _ = seen(twice, images())
    assert bits(logits) == bits(seen(network("plain"), images())[0])
    assert torch.equal(z[:, :19], seen(few, images())[1])
    assert z.shape[1] == 23


def test_the_units_weights_are_what_is_said() -> None:
    widened = inert_units(network("cnn6"), 2000)
    weight = widened.hidden[3].weight.detach()
    assert weight.shape == (2000, 512)
    assert float(weight.mean()) == pytest.approx(0, abs=1e-3)
    assert float(weight.var()) == pytest.approx(1 / 512, rel=0.01)
    assert widened.final.weight.shape == (10, 2128)
    assert not widened.final.weight[:, 128:].any()
    assert torch.equal(widened.final.weight[:, :128], network("cnn6").final.weight)
    with torch.no_grad():  # units, of a network that can go on learning: their weights reach the logits
        widened.final.weight[:, 128:] += 0.1
    assert (seen(widened, images())[0] != seen(network("cnn6"), images())[0]).all()


def test_vgg_is_widened_in_the_second_fully_connected_layer() -> None:
    given = VGG16(channels=1).eval()
    inputs = images()[:3]
    logits, z, _ = seen(inert_units(given, 8), inputs)
    assert bits(logits) == bits(seen(given, inputs)[0])
    assert z.shape == (3, 4104)


def dying(name: str, dead: int) -> nn.Module:
    """A copy whose first penultimate units are never positive on any image in [0, 1]."""
    torch.manual_seed(3)
    made = NETWORKS[name]().eval()
    with as_measured(made, torch.device("cpu")):
        ends = find_ends(MeasuredNetwork(made, torch.device("cpu")), images()[:2])
    layer = find_layer(made, ends.penultimate.name) if ends.penultimate.side == "output" else made.maps[1]
    with torch.no_grad():
        layer.bias[:dead] = -5 if name == "gelu" else -1e3
    return made


@pytest.mark.parametrize("name", ["cnn6", "plain", "wrapped", "normalised", "view", "one output", "pooled"])
def test_without_dead_units_the_function_on_the_images_is_the_same_to_rounding(name: str) -> None:
    given = dying(name, 5)
    fewer = without_dead_units(given, images())
    logits, z, h = seen(given, images())
    less_logits, less, _ = seen(fewer, images())
    alive = [unit for unit in range(z.shape[1]) if any(value > 0 for value in z[:, unit].tolist())]
    assert 0 < len(alive) <= z.shape[1] - 5
    assert bits(less) == bits(z[:, alive])  # to the bit
    assert len(patterns(less)) == len(patterns(z))
    # A sum of D products and a bias, in any order: Higham 2002, section 3.1, with D + 1 roundings.
    with as_measured(given, images().device):
        final = find_layer(given, find_ends(MeasuredNetwork(given, images().device), images()[:2]).final)
    products = h.double().abs() @ final.weight.detach().double().abs().T
    products += 0 if final.bias is None else final.bias.detach().double().abs()
    bound = 2 * (h.shape[1] + 1) * FLOAT32 * 1.01 * products
    differences = (less_logits.double() - logits.double()).abs()[:, -products.shape[1] :]
    assert (differences <= bound).all()
    assert torch.equal(less_logits.argmax(1), logits.argmax(1))


def test_without_dead_units_the_function_is_the_same_to_the_bit_where_sums_are_exact() -> None:
    given = dying("plain", 6)
    with torch.no_grad():
        for parameter in given.parameters():
            parameter.copy_((parameter * 64).round())
    whole = (images() * 4).round()
    logits, _, _ = seen(given, whole)
    fewer = without_dead_units(given, whole)
    assert bits(seen(fewer, whole)[0]) == bits(logits)
    on = next(unit for unit in range(16) if (seen(given, whole)[1][:, unit] > 0).any())
    with torch.no_grad():
        fewer.final.weight[:, 0] += 1  # of the first unit that is left
    changed = (seen(fewer, whole)[0] != logits).any(1)
    assert torch.equal(changed, seen(given, whole)[1][:, on] > 0)


def test_inert_units_that_died_are_removed_again() -> None:
    widened = inert_units(dying("plain", 4), 50)
    z = seen(widened, images())[1]
    fewer = without_dead_units(widened, images())
    assert seen(fewer, images())[1].shape[1] == int((z > 0).any(0).sum()) <= 62
    torch.testing.assert_close(seen(fewer, images())[0], seen(widened, images())[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_scale_of_two_is_exact_and_another_keeps_the_classes(name: str) -> None:
    given = network(name)
    logits, z, _ = seen(given, images())
    for c in (2.0**10, 2.0**-7, 1.0):
        larger, same, _ = seen(scaled(given, c), images())
        assert bits(larger) == bits(logits * c)
        assert bits(same) == bits(z)
    larger, same, _ = seen(scaled(given, 3.7), images())
    assert bits(same) == bits(z)
    torch.testing.assert_close(larger, logits * 3.7, rtol=1e-5, atol=1e-4 * float(logits.abs().max()))
    top = logits.topk(2).values
    sure = top[:, 0] - top[:, 1] > 1e-4 * top.abs().amax()
    assert torch.equal(larger.argmax(1)[sure], logits.argmax(1)[sure])


def test_a_scale_moves_robust_accuracy_under_cross_entropy_alone() -> None:
    given, (inputs, labels) = network("digits"), attacked.digits(130)
    options = {"epsilon": 0.15, "step_size": 0.02, "steps": 10}
    louder = scaled(given, 2.0**10)
    margins = [pgd(model, inputs, labels, loss="margin", **options) for model in (given, louder)]
    assert torch.equal(margins[0].correct_after, margins[1].correct_after)
    assert torch.equal(margins[0].adversarial, margins[1].adversarial)
    before, after = (pgd(model, inputs, labels, **options) for model in (given, louder))
    assert after.robust_accuracy > before.robust_accuracy + 0.2
    # What fooled the network fools it at any scale.
    with torch.no_grad():
        assert torch.equal(given(before.adversarial).argmax(1), louder(before.adversarial).argmax(1))


def test_what_is_made_can_be_saved_scaled_and_widened_in_any_order() -> None:
    given = network("plain")
    one = inert_units(scaled(given, 8.0), 5)
    other = scaled(inert_units(given, 5), 8.0)
    assert bits(seen(one, images())[0]) == bits(seen(other, images())[0]) == bits(seen(given, images())[0] * 8)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    fresh = inert_units(scaled(network("plain"), 2.0), 5, seed=4)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert bits(seen(fresh, images())[0]) == bits(seen(one, images())[0])


def test_a_network_in_double_keeps_its_numbers() -> None:
    given = network("plain").to(torch.float64)
    try:
        assert inert_units(given, 3).final.weight.dtype == torch.float64
        assert bits(seen(inert_units(given, 3), images())[0]) == bits(seen(given, images())[0])
    finally:
        given.float()


class Maps(nn.Module):
    """Flattens rectified maps into the final layer, so its penultimate units are places of maps."""

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 8, stride=8), activation or nn.ReLU(), nn.Flatten(), nn.Linear(64, 9)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Watching(PlainNetwork):
    """Reads the penultimate layer a second time."""

    def logits(self, images: Tensor) -> Tensor:
        return super().logits(images) + self.hidden(images).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: inert_units(network("plain"), -1), "k=-1: expected a whole number"),
        (lambda: inert_units(network("plain"), 1.5), "k=1.5: expected a whole number"),
        (lambda: inert_units(network("plain"), 2, seed=-1), "seed=-1: expected a whole number"),
        (lambda: scaled(network("plain"), 0), "c=0: expected a finite number above 0"),
        (lambda: scaled(network("plain"), -2.0), "c=-2.0: expected"),
        (lambda: scaled(network("plain"), float("nan")), "c=nan: expected"),
        (lambda: scaled(network("plain"), float("inf")), "c=inf: expected"),
        (lambda: scaled(network("plain"), 1e42), "c=1e\\+42 takes weights of the final layer beyond"),
        (lambda: without_dead_units(network("plain"), images()[:0]), "images are empty"),
        (lambda: without_dead_units(dying("plain", 16), images()), "all 16 penultimate units are dead"),
        (lambda: without_dead_units(dying("gelu", 1), images()), "never positive but passes something on"),
        (lambda: inert_units(Maps().eval(), 2), "the penultimate layer, layers.0, cannot have further units"),
        (lambda: without_dead_units(Maps().eval(), images()), "the penultimate layer, layers.0, gives maps"),
        (lambda: inert_units(Watching(channels=1).eval(), 2), "is read by more than the final layer"),
        (lambda: inert_units(nn.Sequential(nn.Conv2d(1, 9, 32), nn.Flatten()).eval(), 2), "ends in no linear layer"),
        (lambda: inert_units(nn.Identity(), 2), "has no convolution and no linear layer: give some inputs, images="),
        (lambda: scaled(network("plain"), 2.0, images=torch.rand(2, 5, 5)), "took none of the inputs that were tried"),
    ],
)
def test_what_cannot_be_is_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_modes_stay_and_a_training_network_is_no_obstacle() -> None:
    given = NETWORKS["plain"]().train()
    for made in (inert_units(given, 2), scaled(given, 2.0), without_dead_units(given, images())):
        assert all(module.training for module in made.modules())
    assert given.training
    assert np.isfinite(seen(inert_units(given, 2).eval(), images())[0].numpy()).all()
