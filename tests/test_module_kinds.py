"""Modules of many kinds under the measuring callbacks: each gives the numbers that numpy gives, or one clear line."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from prs_lightning.callbacks.cosine_similarity import CosineSimilarity
from prs_lightning.callbacks.regions import Regions
from prs_lightning.callbacks.robustness import Robustness
from prs_lightning.callbacks.scores import Scores
from prs_lightning.callbacks.sparsity import Sparsity
from prs_lightning.data.sources import source_of
from prs_lightning.errors import ConfigError, RunError
from tests.foreign import CLASSES, FEATURES, TEST, TRAIN, UNITS, Layers, Module, by_numpy, fitted

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # Lightning's own
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True"),  # of a checkpoint
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]


class ModuleReLU(Layers):
    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.relu(self.fc2(self.relu(self.fc1(x.flatten(1))))))


class FunctionInPlace(Layers):
    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu_(self.fc2(self.fc1(x.flatten(1)).relu_())))


class FirstInPlace(Layers):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.clamp_(min=0))


class Dropped(Layers):
    def forward(self, x: Tensor) -> Any:
        x = F.dropout(F.relu(self.fc1(x.flatten(1))), 0.5, self.training)
        return self.head(F.dropout(F.relu(self.fc2(x)), 0.5, self.training))


Outputs = namedtuple("Outputs", "logits hidden")


class Returning(Layers):
    """Gives its logits in another shape."""

    def __init__(self, wrap: Callable[[Tensor], Any], classes: int = CLASSES) -> None:
        super().__init__(classes=classes)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(super().forward(x))


class Model(Module):
    """Calls ``self.model`` in its steps, but has no forward."""

    forward = nn.Module.forward


class Frozen(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.fc1.requires_grad_(False)


class Lazy(Layers):
    def __init__(self) -> None:
        super().__init__()
        weight, bias = self.fc1.weight.data, self.fc1.bias.data
        self.fc1 = nn.LazyLinear(UNITS[0])
        self.fc1(torch.zeros(1, FEATURES))
        self.fc1.weight.data, self.fc1.bias.data = weight, bias


class TwoHeads(Layers):
    """Another head of the same width runs behind the one whose outputs are the logits."""

    def __init__(self, join: Callable[[Tensor, Tensor], Any] = lambda logits, other: (logits, other)) -> None:
        super().__init__()
        self.join, self.other = join, nn.Linear(UNITS[1], CLASSES)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return self.join(self.head(x), self.other(x))


class ByName(Layers):
    def forward(self, x: Tensor) -> Any:
        return self.head(input=F.relu(self.fc2(input=F.relu(self.fc1(input=x.flatten(1))))))


class TwoNames(Layers):
    """Each layer is registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), self.fc1, nn.ReLU(), self.fc2, nn.ReLU(), self.head)

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


class SharedWeight(Layers):
    """Two layers have one weight; the other one runs."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(FEATURES, UNITS[0])
        self.other.weight, self.other.bias = self.fc1.weight, self.fc1.bias

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.fc2(F.relu(self.other(x.flatten(1))))))


class Cut(Layers):
    """Learns its last layer alone; what enters it is positive always."""

    def __init__(self, cut: str) -> None:
        super().__init__()
        self.cut = cut

    def hidden(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc2(F.relu(self.fc1(x))))

    def forward(self, x: Tensor) -> Any:
        if self.cut == "detach":
            return self.head(self.hidden(x).detach())
        if self.cut == "checkpoint":
            return self.head(checkpoint(self.hidden, x, use_reentrant=True))
        with torch.no_grad():
            x = self.hidden(x)
        return self.head(x)


class TwoInputs(Module):
    def forward(self, x: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        return self.network(x)


def compiled_in_place() -> nn.Module:
    network = Layers()
    network.compile(backend="eager")
    return network


def in_parts() -> nn.Module:
    layers = Layers()
    return nn.Sequential(nn.Flatten(), layers.fc1, nn.ReLU(), nn.Sequential(layers.fc2, nn.ReLU(True)), layers.head)


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "functions": Layers,
    "one ReLU module that runs twice": ModuleReLU,
    "ReLU in place": lambda: ModuleReLU(inplace=True),
    "functions in place": FunctionInPlace,
    "a first layer in place": FirstInPlace,
    "dropout": Dropped,
    "nested Sequential": in_parts,
    "tuple": lambda: Returning(lambda logits: (logits, None)),
    "list": lambda: Returning(lambda logits: [logits]),
    "named tuple": lambda: Returning(lambda logits: Outputs(logits, 0)),
    "dict": lambda: Returning(lambda logits: {"hidden": logits + 1, "logits": logits}),
    "log-probabilities": lambda: Returning(lambda logits: logits.log_softmax(1)),
    "scaled logits": lambda: Returning(lambda logits: logits * 3),
    "float64": lambda: Layers().double(),
    "bfloat16": lambda: Layers().bfloat16(),
    "half": lambda: Layers().half(),
    "torch.compile": lambda: torch.compile(Layers(), backend="eager"),  # type: ignore[dict-item,return-value]
    "compiled in place": compiled_in_place,
    "DataParallel": lambda: nn.DataParallel(Layers()),
    "partly frozen": Frozen,
    "lazy layers": Lazy,
    "layers of two names": TwoNames,
    "layers of two names in float64": lambda: TwoNames().double(),
    "a weight of two layers": SharedWeight,
    "a weight of two layers in float64": lambda: SharedWeight().double(),
    "a head that is not the logits": TwoHeads,
    "arguments by name": ByName,
    "one output": lambda: Layers(classes=1),
    "one output, flat": lambda: Returning(lambda logits: logits.flatten(), classes=1),
}


def test_the_network_of_these_tests_tells_its_classes_apart() -> None:
    assert Layers()(TRAIN.tensors[0]).argmax(1).bincount().min() > 5


@pytest.mark.parametrize("kind", RIGHT)
def test_a_module_gives_the_numbers_of_numpy(kind: str) -> None:
    network = RIGHT[kind]()
    plain = Layers(classes=1 if "one output" in kind else CLASSES)
    if kind in ("bfloat16", "half"):
        plain = plain.to(torch.bfloat16 if kind == "bfloat16" else torch.half)
    train, test = (TRAIN, TEST)
    if "one output" in kind:
        train, test = (TensorDataset(part.tensors[0], part.tensors[1] % 2) for part in (TRAIN, TEST))
    expected = by_numpy(plain, train, test)
    callbacks = None
    if "one output" in kind:
        from tests.foreign import all_measures

        callbacks = [each for each in all_measures(test=test) if not isinstance(each, CosineSimilarity)]
    module = Module(network)
    flags = [parameter.requires_grad for parameter in module.parameters()]
    kinds = [parameter.dtype for parameter in module.parameters()]
    own = [*module.parameters()]
    found = fitted(module, callbacks, train=DataLoader(train, batch_size=8, shuffle=True), test=test)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    assert found["robust/pgd2"] == pytest.approx(expected["test/accuracy"])  # at epsilon 0
    assert [id(parameter) for parameter in module.parameters()] == [id(parameter) for parameter in own]
    assert [parameter.requires_grad for parameter in module.parameters()] == flags
    assert [parameter.dtype for parameter in module.parameters()] == kinds
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())


SHAPES: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "(N, D)": ((7,), lambda: nn.Linear(7, 8)),
    "(N, C, L)": ((2, 9), lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(21, 8))),
    "rectangles": ((2, 6, 9), lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(56, 8))),
    "5-D": ((1, 4, 5, 6), lambda: nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(48, 8))),
    "sequences": ((5, 4), lambda: LastOfLSTM()),
}


class LastOfLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 8)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize("kind", SHAPES)
def test_inputs_of_any_shape(kind: str) -> None:
    """Regions by a set of tuples, robust accuracy at epsilon 0 by the clean accuracy."""
    from tests.foreign import samples

    shape, body = SHAPES[kind]
    torch.manual_seed(3)
    hidden = body()
    network = nn.Sequential(hidden, nn.ReLU(), nn.Linear(8, CLASSES))
    train, test = samples(40, *shape), samples(20, *shape, seed=1)
    found = fitted(Module(network), train=DataLoader(train, batch_size=8, shuffle=True), test=test)
    with torch.no_grad():
        z, logits = hidden(train.tensors[0]), network(test.tensors[0])
    regions = {tuple(row) for row in (z > 0).tolist()}
    assert found["prs/count"] == len(regions) > 1
    assert found["robust/pgd2"] == pytest.approx(float((logits.argmax(1) == test.tensors[1]).float().mean()))


class Twice(Layers):
    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer, self.square = layer, nn.Linear(UNITS[0], UNITS[0])

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.square(F.relu(self.square(F.relu(self.fc1(x.flatten(1)))))))
        logits = self.head(F.relu(self.fc2(x)))
        return self.head(F.pad(logits, (0, UNITS[1] - CLASSES))) if self.layer == "head" else logits


class ConvolutionAtTheEnd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 6, FEATURES), nn.Conv1d(6, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x.unsqueeze(1)))).flatten(1)


class Broken(Layers):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * float("nan")


def scripted() -> nn.Module:
    return torch.jit.trace(Layers(), torch.rand(2, FEATURES))


REFUSED: dict[str, tuple[Callable[[], nn.Module], list[Any] | None, str]] = {
    "softmax": (lambda: Returning(lambda z: z.softmax(1)), None, "returns probabilities"),
    "sigmoid": (lambda: Returning(torch.sigmoid, classes=1), None, "returns probabilities"),
    "scripted": (
        scripted,
        None,
        "is scripted, or a part of it, which hides its layers",
    ),
    "a text": (lambda: Returning(lambda z: "logits"), None, "returned a str: expected logits"),
    "a dict without logits": (lambda: Returning(lambda z: {"out": z}), None, r"returned a dict: expected logits"),
    "a map of logits": (lambda: Returning(lambda z: z[:, :, None]), None, r"returned \(8, 3, 1\): expected logits"),
    "one output to compare": (lambda: Layers(classes=1), None, "two rows or more to compare"),
    "a shared layer by name": (lambda: Twice("square"), [Regions(layers=["network.square"])], "ran 2 times"),
    "a shared final layer": (lambda: Twice("head"), [Regions()], "'network.head' runs more than once"),
    "no linear layer": (ConvolutionAtTheEnd, [Regions()], "ends in no linear layer of 3 outputs: name the layer"),
    "an unknown layer": (Layers, [Regions(layer="network.fc3")], "did you mean network.fc"),
    "another unknown layer": (Layers, [CosineSimilarity(layer="haed")], "'haed' is not in Module"),
    "a layer without a weight": (ModuleReLU, [CosineSimilarity(layer="network.relu")], "has no weight"),
    "two heads that are added": (
        lambda: TwoHeads(lambda logits, other: logits + other),
        None,
        "come from several linear layers, network.head, network.other: name the layers",
    ),
    "attacked through no_grad": (lambda: Cut("no_grad"), None, "does not reach the images"),
    "attacked through a checkpoint": (
        lambda: Cut("checkpoint"),
        [Robustness(epsilon=0.1, test=TEST)],
        "no attack goes through torch.utils.checkpoint: give it use_reentrant=False",
    ),
    "what a checkpoint hides": (lambda: Cut("checkpoint"), [Regions()], "torch.utils.checkpoint hides what enters"),
    "inputs of another shape": (
        lambda: nn.Linear(FEATURES + 1, CLASSES),
        None,
        r"Module.forward cannot take training inputs as they are, \(8, 12\) in float32 \(mat1 and mat2 shapes",
    ),
    "logits that are not numbers": (Broken, [Regions(), Scores()], "returned NaN or infinite logits"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_measured_is_refused_in_one_line(kind: str) -> None:
    build, callbacks, message = REFUSED[kind]
    module = Module(build())
    with pytest.raises((ConfigError, RunError), match=message) as refusal:
        fitted(module, callbacks)
    assert "\n" not in str(refusal.value)
    assert module.global_step == 0


def test_a_module_without_forward_is_refused() -> None:
    with pytest.raises(ConfigError, match="Model has no forward: expected one that takes inputs and gives logits"):
        fitted(Model(Layers()))


def test_a_forward_of_two_inputs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"TwoInputs.forward cannot take .* missing 1 required .*: expected forward"):
        fitted(TwoInputs(Layers()))


@pytest.mark.parametrize("cut", ["no_grad", "detach"])
def test_layers_are_found_behind_what_cuts_gradients(cut: str) -> None:
    found = fitted(Module(Cut(cut)), [Regions(test=TEST)])
    for name in ("prs/count", "prs/ratio", "prs/inclusion_ratio"):
        assert found[name] == pytest.approx(by_numpy(Layers())[name]), name


def test_validate_finds_layers_without_gradients() -> None:
    found = fitted(
        Module(Cut("no_grad")),
        [Regions(train=TRAIN, test=TEST)],
        fit=lambda trainer, module: trainer.validate(module, DataLoader(TEST, batch_size=8), verbose=False),
        inference_mode=True,
    )
    assert found["prs/count"] == by_numpy(Layers())["prs/count"]


def test_a_second_fit_measures_the_second_network() -> None:
    """The same callbacks, the same test set."""
    test = source_of(TEST, "test")
    callbacks = [Robustness(epsilon=0.0, step_size=0.1, steps=1, audit=False, mean=[0.0], std=[1.0], test=test)]
    other = Layers()
    for parameter in other.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(5))
    for network in (Layers(), other):
        found = fitted(Module(network), callbacks)
        assert found["robust/pgd1"] == pytest.approx(by_numpy(network)["test/accuracy"])
    assert by_numpy(other)["test/accuracy"] != by_numpy(Layers())["test/accuracy"]


def test_averages_beside_the_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="EMAWeightAveraging saves other weights than those that train"):
        fitted(Module(Layers()), [Regions(), EMAWeightAveraging()])


def test_layers_by_name_where_none_is_found() -> None:
    network = ConvolutionAtTheEnd()
    callbacks = [Regions(layer="network.first"), CosineSimilarity(layer="network.last"), Sparsity()]
    found = fitted(Module(network), callbacks)
    z = network.first(TRAIN.tensors[0].unsqueeze(1)).flatten(1)
    assert found["prs/count"] == len({tuple(row) for row in (z > 0).tolist()})


def test_a_network_without_relu_has_no_sparsity() -> None:
    network = nn.Sequential(nn.Linear(FEATURES, 6), nn.GELU(), nn.Linear(6, CLASSES))
    found = fitted(Module(network))
    z = network[0](TRAIN.tensors[0])
    assert found["prs/count"] == len({tuple(row) for row in (z > 0).tolist()})
    assert "features/sparsity" not in found


PRECISIONS: dict[str, Callable[[], None]] = {
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "all backends": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "mkldnn": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),  # type: ignore[attr-defined]
    "old flags": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
}


def settings() -> list[Any]:
    backends: Any = torch.backends
    owners = [backends, backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn]
    owners += [backends.mkldnn, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    return [owner.fp32_precision for owner in owners]


@pytest.mark.parametrize("kind", PRECISIONS)
def test_precision_settings_of_the_process_touch_no_measure(kind: str) -> None:
    before = settings()
    matmul = torch.get_float32_matmul_precision()
    try:
        PRECISIONS[kind]()
        during = settings()
        found = fitted(Module(Layers()))
        assert settings() == during
    finally:
        backends: Any = torch.backends
        backends.fp32_precision = "none"
        torch.set_float32_matmul_precision(matmul)
        leaves = (backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv)
        for owner, value in zip(leaves, (before[3], before[4], before[6], before[7]), strict=True):
            owner.fp32_precision = value
    for name, value in by_numpy(Layers()).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
