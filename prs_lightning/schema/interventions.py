"""The keys of our interventions, as :mod:`prs_lightning.schema.parts` has those of what else conf/ names."""

from __future__ import annotations

from typing import Annotated, Any

from prs_lightning.schema.attacks import LOSSES, NORMS
from prs_lightning.schema.values import (
    Count,
    Deviations,
    Flag,
    Fraction,
    Natural,
    NotNegative,
    Part,
    PerChannel,
    Positive,
    Radius,
    Seed,
    Share,
    Text,
    key,
    only,
)


class LogitPenalty(Part):
    """Small logits."""

    strength: NotNegative = key("beta, of the squared norm of the logits; 0: nothing is touched")
    warmup: Natural = key("epochs in which it only looks on", 0)


class HighPRS(Part):
    """Many regions."""

    strength: NotNegative = key("how often its term is added to the loss; 0: nothing is touched", 1.0)
    warmup: Natural = key("epochs in which it only looks on", 1)
    margin: NotNegative = key("of the hinge, in units of the pre-activations' mean size", 0.5)
    decay: Fraction = key("what the counts of a batch are worth one batch later", 0.99)
    layer: Text | None = key("whose output are the penultimate pre-activations; null: found", None)
    classes: Count | None = key("how many there are, where `layer` is given; null: found", None)


class LowPRS(HighPRS):
    """Few regions."""

    pattern: Annotated[Any, only("moving", "fixed")] = key(
        "of each class: moving with training, or fixed when the warm-up ends", "moving"
    )


class Adversarial(Part):
    """PGD training."""

    epsilon: Radius = key("in pixel units of images in [0, 1]")
    strength: NotNegative = key("radius of the ball, as a share of epsilon; 0: nothing is touched", 1.0)
    warmup: Natural = key("epochs in which it only looks on", 0)
    steps: Count = key("of the attack", 7)
    step_size: Radius | None = key("in pixel units; null: 2.5 radii over the steps", None)
    seed: Seed = key("of the random starts", 0)
    mean: PerChannel | None = key("per channel, where the network takes normalised images", None)
    std: Deviations | None = key("likewise", None)
    norm: Annotated[Any, only(*NORMS)] = key("of the ball", "linf")
    loss: Annotated[Any, only(*LOSSES)] = key("what the attack maximises", "cross_entropy")
    temperature: Positive = key("T: that loss is of logits / T", 1.0)
    targets: Natural = key("towards each of so many other classes in turn; 0: untargeted", 0)
    random_start: Flag = key("start somewhere in the ball instead of at the image", True)
    restarts: Count = key("how often those that withstood are attacked again", 1)
    early_exit: Flag = key("stop a sample's attack once it is misclassified", False)
    precision: Annotated[Any, only("float32", "bfloat16")] = key("of the gradients", "float32")


class WeightNorm(Part):
    """Bounded weights."""

    strength: NotNegative = key("1: no layer's norm grows; 2: each is halved; 0: no bound", 1.0)
    warmup: Natural = key("epochs in which it only looks on", 0)


class WeightDecay(Part):
    """Decoupled weight decay."""

    strength: NotNegative = key("times the learning rate: what each step takes away", 0.01)
    warmup: Natural = key("epochs in which it only looks on", 0)


class LabelSmoothing(Part):
    """Smoothed labels."""

    strength: Share = key("of a label, which is spread over all classes", 0.1)
    warmup: Natural = key("epochs in which it only looks on", 0)


class Width(Part):
    """Penultimate units."""

    strength: Count = key("their number, which is handed to `model.width`", 32)
    warmup: Natural = key("epochs in which it only looks on", 0)


class Published(Part):
    """The regulariser of the paper's authors."""

    strength: NotNegative = key("of both terms; 0: nothing is touched", 1.0)
    warmup: Count = key("epochs of the loss alone", 50)
    mean_weight: NotNegative = key("of the pull to the mean of the major region", 0.8)
    sign_weight: NotNegative = key("of the pull to its signs", 1.0)


HOME = "prs_lightning.callbacks"
TARGETS: dict[str, type[Part]] = {
    f"{HOME}.low_prs.LowPRS": LowPRS,
    f"{HOME}.high_prs.HighPRS": HighPRS,
    f"{HOME}.logit_penalty.LogitPenalty": LogitPenalty,
    f"{HOME}.adversarial.Adversarial": Adversarial,
    f"{HOME}.weight_norm.WeightNorm": WeightNorm,
    f"{HOME}.weight_decay.WeightDecay": WeightDecay,
    f"{HOME}.label_smoothing.LabelSmoothing": LabelSmoothing,
    f"{HOME}.width.Width": Width,
    f"{HOME}.published.Published": Published,
}
