"""Interventions in modules that know nothing of them: the same weights as of a module that adds the term by itself."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prs_lightning.callbacks import (
    Adversarial,
    HighPRS,
    LabelSmoothing,
    LogitPenalty,
    LowPRS,
    Published,
    WeightDecay,
    WeightNorm,
    Width,
)
from prs_lightning.callbacks.intervening import Intervention
from prs_lightning.errors import ConfigError
from tests.intervened import CLASSES, UNITS, Own, fitted, leaves_no_trace, planted

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated and clipped": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.3},
    "bfloat16": {"precision": "bf16-mixed"},
}


def assert_same(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_weights_are_those_of_a_module_whose_loss_has_the_terms(option: str) -> None:
    def extra(z: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        smoothed = F.cross_entropy(logits, labels, label_smoothing=0.4) - F.cross_entropy(logits, labels)
        return 0.3 * logits.norm(dim=1).square().mean() + smoothed

    found = fitted(Own(), [LogitPenalty(strength=0.3), LabelSmoothing(strength=0.4)], **OPTIONS[option])
    assert_same(found, fitted(Own(extra=extra), [], **OPTIONS[option]), 5e-3 if option == "bfloat16" else 1e-5)
    untouched = fitted(Own(), [], **OPTIONS[option])
    assert (found.head.weight - untouched.head.weight).abs().max() > 0.015
    assert leaves_no_trace(found)


def test_decay_makes_adamw_of_adam_to_the_bit() -> None:
    def adamw(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.5)

    options = OPTIONS["accumulated and clipped"]
    found = fitted(Own(torch.optim.Adam), [WeightDecay(strength=0.5)], **options)
    assert_same(found, fitted(Own(adamw), [], **options))


def test_the_hinge_is_that_of_counts_by_hand() -> None:
    """One epoch to look on, one to act in, with the pattern and the scale of what was seen until then."""
    seen: list[tuple[Tensor, Tensor]] = []

    def extra(z: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        seen.append((z.detach(), labels))
        worth = 0.9 ** torch.arange(len(seen)).flip(0)
        warming = list(zip(0.9 ** torch.arange(3).flip(0), seen[:3], strict=False))
        scale = sum(w * each.abs().sum() for w, (each, _) in warming) / sum(
            w * each.numel() for w, (each, _) in warming
        )
        positive, samples = torch.zeros(CLASSES, UNITS), torch.zeros(CLASSES, 1)
        for w, (each, own) in zip(worth, seen, strict=True):
            positive.index_add_(0, own, w * (each > 0))
            samples.index_add_(0, own, w.expand(len(own), 1))
        signs = torch.where(positive > samples / 2, 1.0, -1.0)[labels]
        acting = 2.0 if len(seen) > 3 else 0.0
        return acting * F.margin_ranking_loss(z / scale, torch.zeros_like(z), signs, margin=0.5)

    found = fitted(Own(), [LowPRS(strength=2.0, decay=0.9)])
    assert_same(found, fitted(Own(extra=extra), []), 1e-5)


def test_counts_are_exact_in_a_training_of_bfloat16() -> None:
    """bfloat16 holds no odd number above 256."""
    low, (inputs, labels) = LowPRS(warmup=1), planted(903)
    module = Own(lambda parameters, lr: torch.optim.SGD(parameters, lr=0.0))
    fitted(module, [low], data=(inputs, labels), batch_size=903, precision="bf16-mixed", max_epochs=2)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        positive = module.hidden(inputs) > 0
    counts = torch.stack([positive[labels == label].sum(0) for label in range(CLASSES)])
    assert (counts[counts > 256] % 2 == 1).any()
    torch.testing.assert_close(low.state_dict()["counts"][:, :UNITS], counts * 1.99)


def test_a_relu_in_place_hides_nothing() -> None:
    found = fitted(Own(tail=nn.ReLU(inplace=True)), [LowPRS(), LogitPenalty(strength=0.1)])
    assert_same(found, fitted(Own(), [LowPRS(), LogitPenalty(strength=0.1)]))


def test_a_compiled_module_is_trained_as_it_is() -> None:
    found = fitted(torch.compile(Own(), backend="eager"), [LowPRS(), LogitPenalty(strength=0.1)])
    assert_same(found._orig_mod, fitted(Own(), [LowPRS(), LogitPenalty(strength=0.1)]))


class Pooled(nn.Module):
    """The end of a ResNet: maps of 2 pixels, rectified, are averaged."""

    def forward(self, z: Tensor) -> Tensor:
        return F.avg_pool1d(z.relu().repeat_interleave(2, 1), 2)


ALL: list[Intervention] = [
    LowPRS(),
    LogitPenalty(strength=0.1),
    LabelSmoothing(),
    WeightDecay(),
    WeightNorm(),
    Published(warmup=1),
    Width(strength=UNITS),
]


@pytest.mark.parametrize("aims", [ALL, [HighPRS(), *ALL[1:5], ALL[6]]], ids=["low", "high"])
def test_a_network_that_ends_as_a_resnet_does(aims: list[Intervention]) -> None:
    found = fitted(Own(tail=Pooled()), aims)
    assert all(parameter.isfinite().all() for parameter in found.parameters())
    assert leaves_no_trace(found)


def test_a_binary_network_of_one_output_and_the_labels_of_its_loss() -> None:
    def extra(z: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        smoothed, exact = (F.binary_cross_entropy_with_logits(logits, each) for each in (0.8 * labels + 0.1, labels))
        return smoothed - exact

    inputs, labels = planted()
    data = inputs, (labels > 0).float()[:, None]
    low = LowPRS(strength=1e-9)
    found = fitted(Own(outputs=1), [low, LabelSmoothing(strength=0.2)], data=data)
    assert_same(found, fitted(Own(outputs=1, extra=extra), [], data=data), 1e-5)
    assert low.state_dict()["counts"].shape == (2, UNITS + 2)


class Convolved(Own):
    """Ends in a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv1d(UNITS, CLASSES, 1)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tail(self.hidden(x))[:, :, None])[:, :, 0]


def test_a_layer_can_be_named() -> None:
    assert leaves_no_trace(fitted(Convolved(), [LowPRS(layer="second", classes=CLASSES)]))


class Fails(pl.Callback):
    def on_train_batch_end(self, *_: Any) -> None:
        raise ValueError("as it must")


@pytest.mark.parametrize("others", [[Fails(), LowPRS()], [LowPRS(), Fails()]], ids=["before", "behind"])
def test_nothing_is_left_in_the_module_after_an_error(others: list[pl.Callback]) -> None:
    module = Own()
    with pytest.raises(ValueError, match="as it must"):
        fitted(module, others)
    assert leaves_no_trace(module)


class Manual(Own):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Twice(Own):
    def training_step(self, batch: Any) -> Any:
        self(batch[0])
        return super().training_step(batch)


PAIR = planted()


@pytest.mark.parametrize(
    ("module", "callbacks", "data", "words"),
    [
        (Manual(), [LowPRS()], PAIR, "Manual steps its optimizers itself: an intervention needs automatic"),
        (Own(), [LogitPenalty(strength=1)], PAIR[:1], "expected .inputs, labels.; an intervention needs them"),
        (Own(), [LowPRS()], (PAIR[0], torch.rand(48, 3)), r"shape \(16, 3\), .*expected whole class numbers"),
        (Convolved(), [LowPRS()], PAIR, "LowPRS: Convolved ends in no linear layer of 3 outputs: give it layer= and"),
        (Convolved(), [LogitPenalty(strength=1)], PAIR, "LogitPenalty: Convolved ends in no .*: leave it out"),
        (Own(), [LowPRS(layer="thirst", classes=3)], PAIR, "layer 'thirst' is not in Own: did you mean first"),
        (Twice(), [LowPRS()], PAIR, "layer second ran twice in a training step: expected once"),
        (Own(), [LowPRS(), HighPRS()], PAIR, "LowPRS and HighPRS contradict each other: expected one of them"),
        (Own(), [HighPRS(), Published(warmup=1)], PAIR, "HighPRS and Published contradict each other"),
        (Own(), [LogitPenalty(strength=1, warmup=3)], PAIR, "LogitPenalty: warmup=3 of 3 epochs: it would never act"),
        (
            Own(),
            [Width(strength=8)],
            PAIR,
            "width.strength=8, but the penultimate layer, second, has 6 units: expected",
        ),
        (Own(), [Adversarial(epsilon=0.1)], (PAIR[0] * 2, PAIR[1]), r"images lie in .*expected \[0, 1\]"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_cannot_be_trained_so_is_refused_in_one_line(module: Own, callbacks: Any, data: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        fitted(module, callbacks, data=data)
    assert "\n" not in str(error.value)
    assert leaves_no_trace(module)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (LowPRS, {"strength": -1}, "LowPRS: strength=-1: expected a finite number, 0 or more"),
        (WeightNorm, {"strength": float("inf")}, "strength=inf"),
        (WeightDecay, {"strength": "much"}, "strength=much"),
        (HighPRS, {"warmup": -1}, "HighPRS: warmup=-1 must be an integer of 0 or more"),
        (HighPRS, {"warmup": 0.5}, "warmup=0.5"),
        (LowPRS, {"pattern": "fixed", "warmup": 0}, "pattern=fixed, warmup=0: expected moving, or fixed after 1"),
        (LowPRS, {"pattern": "best"}, "pattern=best"),
        (LowPRS, {"decay": 1.0}, "decay=1.0"),
        (LowPRS, {"layer": "second"}, "layer=second, classes=None: expected both, or neither"),
        (LabelSmoothing, {"strength": 1.1}, "LabelSmoothing: strength=1.1: expected a share, between 0 and 1"),
        (Published, {"warmup": 0}, "Published: warmup=0, .*expected 1 or more"),
        (Published, {"sign_weight": -1}, "sign_weight=-1"),
        (Adversarial, {"epsilon": 0.1, "strength": 20}, "epsilon=2 must be 1 or less"),
        (Adversarial, {"epsilon": 0.1, "steps": 0}, "steps=0 must be a whole number, 1 or more"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused(kind: type[Intervention], values: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        kind(**values)
