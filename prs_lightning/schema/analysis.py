"""conf/analyze.yaml: its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from prs_lightning.schema.lines import problems
from prs_lightning.schema.values import (
    LARGEST,
    Count,
    Epochs,
    Expected,
    Flag,
    Part,
    Place,
    Rule,
    Seed,
    Several,
    Share,
    key,
)
from prs_lightning.schema.wandb import Wandb


def is_model(value: Any) -> bool:
    """Whether it reads as a run at an epoch."""
    return isinstance(value, str) and value.isprintable() and bool(re.fullmatch(r".+@\d{1,9}", value))


def is_figures(value: Any) -> bool:
    """Whether it is ``all``, ``none``, or a list of different numbers such as 4 and 4b."""
    if not isinstance(value, list):
        return value in ("all", "none")
    numbers = [str(each) for each in value]
    return len({*numbers}) == len(numbers) and all(re.fullmatch(r"\d{1,3}[a-z]?", each) for each in numbers)


Model = Annotated[Any, Rule(is_model, "RUN@EPOCH, for example mnist-cnn6-bs64-seed0@300")]
Grid = Annotated[int, Field(ge=2, le=4096), Expected("an integer from 2 to 4096")]
Draws = Annotated[int, Field(ge=100, le=LARGEST), Expected("an integer of 100 or more")]
Margin = Annotated[float, Field(gt=0, lt=1), Expected("a number above 0 and below 1, as 0.02")]
Simulations = Annotated[int, Field(ge=10, le=LARGEST), Expected("an integer of 10 or more")]
Correlation = Annotated[float, Field(gt=-1, lt=1), Expected("a number between -1 and 1")]
Level = Annotated[float, Field(ge=0.5, lt=1), Expected("a number from 0.5 to below 1, as 0.95")]


class Pair(Part):
    """Networks A and B; and how near two epochs must be that the section on causes takes for equal."""

    a: Model | None = key("network A, a run at an epoch; null: chosen")
    b: Model | None = key("network B, likewise; both or neither")
    accuracy_tolerance: Share = key("how far the test accuracies of a chosen pair, or of a match, may lie apart")
    gap_tolerance: Share = key(
        "how far the logit gaps of the pair at equal gap, or of a match, as a share of the larger"
    )


class Bootstrap(Part):
    """Intervals."""

    draws: Draws = key("how often whole runs are drawn anew")
    seed: Seed = key("of the draws")
    level: Level = key("of the intervals")


class Margins(Part):
    """Changes of a measure, in its unit, that are negligible if they are smaller."""

    robust_accuracy: Margin = key("under any attack")
    cosine_similarity: Margin = key("of the final layer's weights")
    inclusion_ratio: Margin = key("of the test set")
    sparsity: Margin = key("of the features")
    distance: Margin = key("to the decision boundary, in pixel units")


class Power(Part):
    """What `plan=true` simulates."""

    effect: Correlation = key("Spearman between the runs of one batch size; above 0: as claimed")
    seeds: Several = key("of each batch size, tried from the smallest number on until one decides")
    simulations: Simulations = key("studies per claim and number of seeds")
    target: Annotated[float, Field(gt=0, le=1), Expected("a number above 0, at most 1")] = key(
        "share of them that must decide"
    )


class Sizes(Part):
    """Samples that the figures of the two networks look at; null: fewer on a CPU than on an accelerator."""

    plane: Grid | None = key("points along a side of figure 1")
    layers: Count | None = key("training samples of figures 2a, 11 and 16")
    curve: Count | None = key("samples per split of figure 3")
    attacked: Count | None = key("test samples of figures 6a and 6b")
    group: Count | None = key("samples per group of figure 9")
    embedded: Count | None = key("samples of figure 13")
    scaled: Count | None = key("test samples of figure 16")
    audited: Count | None = key("test images of the audits, which `figures=all` makes")


class Analysis(Part):
    """The keys of analyze.py."""

    runs: Place = key("folder of run directories")
    output: Place | None = key("folder of the report; null: `report` in that of the runs")
    data_root: Place | None = key("folder of the data sets' files, or the folder or .npz itself; null: as in the runs")
    grid_epochs: Epochs | None = key("epochs of the candidate models; null: each run's own")
    thresholds: dict[str, Share] = key("least test accuracy of a model, per data set; `default`: of all others")
    pair: Pair = key("networks A and B")
    bootstrap: Bootstrap = key("of the intervals")
    margins: Margins = key("of the verdicts")
    plan: Flag = key("say how many seeds decide each claim")
    power: Power = key("of the plan")
    figures: Annotated[Any, Rule(is_figures, "all, none or a list such as [4,4b,8]")] = key("which are made")
    force: Flag = key("make figures and the negative control again that are there already")
    sizes: Sizes = key("of the figures of the two networks")
    wandb: Wandb = key("where the report is logged")


def wrong(config: Mapping[str, Any], helpers: frozenset[str] = frozenset()) -> Iterator[str]:
    """What is wrong with a composed config of the analysis; ``helpers`` are keys that only interpolations read."""
    if found := problems(Analysis, {key: value for key, value in config.items() if key not in helpers}):
        yield from found
    elif (config["pair"]["a"] is None) != (config["pair"]["b"] is None):
        yield "pair: name both networks, pair.a=RUN@EPOCH pair.b=RUN@EPOCH, or neither"
