"""The scatter and curve figures: what is drawn, against numpy, statsmodels and plain Python."""

from __future__ import annotations

import re
import statistics
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.text import Text

from prs_lightning.analysis.figures import Figure, curves, scatter, style
from prs_lightning.analysis.panels import panel_statistics
from prs_lightning.analysis.relations import RELATIONS, Relation
from prs_lightning.measures import (
    COSINE_SIMILARITY,
    DEAD_UNITS,
    DISTANCE,
    INCLUSION_RATIO,
    LOCAL_COMPLEXITY,
    MASKING_GAP,
    PRS_RATIO,
    ROBUST_ACCURACY,
    SPARSITY,
    TEMPERATURE,
    TEST_ACCURACY,
    ZERO_GRADIENT,
)

MEASURES = (
    "train/accuracy", TEST_ACCURACY, PRS_RATIO, ROBUST_ACCURACY, "robust/pgd20_audited", MASKING_GAP, ZERO_GRADIENT,
    INCLUSION_RATIO, COSINE_SIMILARITY, SPARSITY, DEAD_UNITS, "robust/dlr",
)  # fmt: skip


def table(
    models: tuple[str, ...] = ("cnn6",),
    data: tuple[str, ...] = ("mnist", "cifar10"),
    batch_sizes: tuple[int, ...] = (64, 2048),
    seeds: int = 3,
    epochs: int = 4,
) -> pd.DataFrame:
    """Rows like those of the table of runs; random measures in [0, 1] that depend on the PRS ratio a little."""
    rng = np.random.default_rng(0)
    rows = []
    for model in models:
        for name in data:
            for batch_size in batch_sizes:
                for seed in range(seeds):
                    run = f"{name}-{model}-bs{batch_size}-seed{seed}"
                    for epoch in range(1, epochs + 1):
                        ratio = rng.uniform(0.1, 0.9)
                        values = {measure: 0.5 * ratio + 0.5 * rng.uniform() for measure in MEASURES}
                        values |= {PRS_RATIO: ratio, DEAD_UNITS: float(rng.integers(0, 100))}
                        identity = {"run": run, "data": name, "model": model, "batch_size": batch_size, "seed": seed}
                        rows.append(identity | {"epoch": epoch} | values)
    return pd.DataFrame(rows)


def drawn_points(axes: Axes) -> list[np.ndarray]:
    """The offsets of every scatter in a panel, in the order drawn."""
    return [np.asarray(found.get_offsets()) for found in axes.collections if isinstance(found, PathCollection)]


def texts(axes: Axes) -> str:
    return " ".join(text.get_text() for text in axes.texts).replace("\n", " ")


def of_measure(figure: Figure, x: str, y: str) -> Axes:
    return next(axes for axes in figure.figure.axes if (axes.get_xlabel(), axes.get_ylabel()) == (x, y))


@pytest.mark.parametrize(
    ("draw", "x", "y"),
    [
        (scatter.figure_4, (PRS_RATIO, "PRS ratio"), (ROBUST_ACCURACY, "RA (PGD-20)")),
        (scatter.figure_4b, (PRS_RATIO, "PRS ratio"), ("robust/pgd20_audited", "RA after the audit")),
        (scatter.figure_4b, (PRS_RATIO, "PRS ratio"), ("robust/dlr", "RA after DLR")),
        (scatter.figure_8, (PRS_RATIO, "PRS ratio"), (COSINE_SIMILARITY, "cosine similarity")),
        (scatter.figure_10, (PRS_RATIO, "PRS ratio"), (INCLUSION_RATIO, "inclusion ratio")),
        (scatter.figure_12, (PRS_RATIO, "PRS ratio"), (SPARSITY, "sparsity")),
        (scatter.figure_14, (PRS_RATIO, "PRS ratio"), (MASKING_GAP, "masking gap")),
        (scatter.figure_14, (PRS_RATIO, "PRS ratio"), (ZERO_GRADIENT, "zero-gradient share")),
        (scatter.figure_15, (DEAD_UNITS, "dead units"), (PRS_RATIO, "PRS ratio")),
    ],
)
def test_a_scatter_draws_every_model_and_the_line_of_least_squares(draw, x, y) -> None:
    models = table()
    figure = draw(models)
    axes = of_measure(figure, x[1], y[1])
    groups = [models[models["data"] == name] for name in ("mnist", "cifar10")]
    for offsets, line, group in zip(drawn_points(axes), axes.lines, groups, strict=True):
        np.testing.assert_array_equal(offsets, group[[x[0], y[0]]])
        slope, intercept = np.polyfit(group[x[0]], group[y[0]], 1)
        ends = np.array([group[x[0]].min(), group[x[0]].max()])
        np.testing.assert_allclose(line.get_xdata(), ends)
        np.testing.assert_allclose(line.get_ydata(), intercept + slope * ends)
        assert f": slope {slope:.3g}\n" in axes.get_title() + "\n"
    assert axes.get_title().splitlines()[0] == "CNN-6, n = 24 (6 runs) each"
    uneven = of_measure(draw(models.iloc[1:]), x[1], y[1]).get_title().replace("\n", " ")
    assert ", n = 23 (6 runs)" in uneven
    assert ", n = 24 (6 runs)" in uneven
    numbers = figure.numbers[figure.numbers["panel"] == f"{y[1]} against {x[1]}"]
    np.testing.assert_array_equal(numbers[["x", "y"]], models[[x[0], y[0]]])
    assert list(numbers["run"]) == list(models["run"])
    assert "To see" in figure.caption


def test_dead_units_are_held_fixed_as_in_a_joint_regression() -> None:
    models = table(data=("mnist",))
    models[ROBUST_ACCURACY] = 0.01 * models[DEAD_UNITS] - 0.3 * models[PRS_RATIO] + 0.1 * models[SPARSITY]
    axes = of_measure(scatter.figure_15(models), "PRS ratio, dead units fixed", "RA (PGD-20), dead units fixed")
    joint = sm.OLS(models[ROBUST_ACCURACY], sm.add_constant(models[[PRS_RATIO, DEAD_UNITS]])).fit()
    (line,) = axes.lines
    slope = np.diff(line.get_ydata()) / np.diff(line.get_xdata())
    np.testing.assert_allclose(slope, joint.params[PRS_RATIO])
    (offsets,) = drawn_points(axes)
    assert abs(np.corrcoef(offsets[:, 0], models[DEAD_UNITS])[0, 1]) < 1e-9
    alike = models.assign(**{SPARSITY: 1e-3 * models[DEAD_UNITS] + 0.01 * models[SPARSITY]})
    both = scatter.points(alike, Relation("15", ROBUST_ACCURACY, controls=(DEAD_UNITS, SPARSITY)))
    joint = sm.OLS(alike[ROBUST_ACCURACY], sm.add_constant(alike[[PRS_RATIO, DEAD_UNITS, SPARSITY]])).fit()
    np.testing.assert_allclose(both["slope"], joint.params[PRS_RATIO])  # not what one after the other leaves
    exact = models.assign(**{PRS_RATIO: 1 - models[DEAD_UNITS] / 128})
    assert scatter.points(exact, Relation("15", ROBUST_ACCURACY, controls=(DEAD_UNITS,)))["slope"].isna().all()


def test_figure_15_tells_what_its_statistics_tell() -> None:
    models = table(models=("cnn6", "vgg16"))
    models.loc[models.index[:5], DEAD_UNITS] = np.nan
    drawn = scatter.figure_15(models).numbers
    relations = [relation for relation in RELATIONS if relation.figure == "15"]
    rows = panel_statistics(models, relations, draws=20).table
    assert len(rows) == 2 * 4
    for row in rows.itertuples():
        chosen = drawn[(drawn["panel"] == " against ".join(reversed(relations[row.Index // 4].axes)))]
        chosen = chosen[(chosen["model"] == row.model) & (chosen["data"] == row.data)]
        told = (row.ols_slope, row.ols_intercept, row.n_models, row.n_runs)
        assert chosen[["slope", "intercept", "n_models", "n_runs"]].iloc[0].tolist() == pytest.approx(told, abs=1e-12)
        assert len(chosen) == row.n_models


def test_every_network_has_a_column_and_every_measure_a_row() -> None:
    figure = scatter.figure_14(table(models=("resnet18", "cnn6", "my_net"), data=("mnist",)))
    titles = [axes.get_title().splitlines()[0] for axes in figure.figure.axes]
    assert titles == ["CNN-6", "ResNet-18", "my_net"] * 2
    assert [axes.get_ylabel() for axes in figure.figure.axes] == ["masking gap"] * 3 + ["zero-gradient share"] * 3


def test_the_audit_is_drawn_on_the_scale_of_what_it_audits() -> None:
    models = table()
    models["robust/pgd20_audited"] /= 50
    axes = scatter.figure_4b(models).figure.axes
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[1].get_ylim()[1] > models[ROBUST_ACCURACY].max()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda models: models.drop(columns=ROBUST_ACCURACY), "RA (PGD-20): not measured in these runs"),
        (lambda models: models.assign(**{ROBUST_ACCURACY: np.nan}), "RA (PGD-20): not measured in these runs"),
        (lambda models: models.iloc[:0], "no model passed the selection"),
        (lambda models: models[models["run"] == models["run"].iloc[0]], "one run only"),
    ],
)
def test_a_degenerate_scatter_says_why(change, said: str) -> None:
    figure = scatter.figure_4(change(table()))
    assert said in texts(figure.figure.axes[0])


def test_what_is_said_in_an_empty_panel_stays_inside_it() -> None:
    figure = scatter.figure_4b(table(data=("mnist",)))
    canvas = FigureCanvasAgg(figure.figure)
    canvas.draw()
    (axes,) = [axes for axes in figure.figure.axes if "RA (AutoAttack): not measured" in texts(axes)]
    (said,) = axes.texts
    inside, words = axes.get_window_extent(), said.get_window_extent(canvas.get_renderer())
    assert inside.x0 < words.x0 < words.x1 < inside.x1
    assert inside.y0 < words.y0 < words.y1 < inside.y1


def test_no_line_is_drawn_through_constant_x_or_two_models() -> None:
    constant = scatter.figure_4(table(data=("mnist",)).assign(**{PRS_RATIO: 0.1})).figure.axes[0]
    assert "no line, x is constant" in constant.get_title()
    assert not constant.lines
    two = scatter.figure_4(table(data=("mnist",)).iloc[:2]).figure.axes[0]
    assert "too few models for a line, n = 2" in two.get_title()
    assert not two.lines
    assert len(drawn_points(two)[0]) == 2


def test_the_legend_lies_outside_the_data_and_names_every_data_set() -> None:
    figure = scatter.figure_8(table(data=("mnist", "fashion_mnist", "cifar10")))
    FigureCanvasAgg(figure.figure).draw()
    (legend,) = figure.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["MNIST", "F-MNIST", "CIFAR-10"]
    assert all(not legend.get_window_extent().overlaps(axes.get_tightbbox()) for axes in figure.figure.axes)


@pytest.mark.parametrize("draw", [scatter.figure_15, curves.figure_5, curves.figure_7b, curves.figure_2b])
def test_all_letters_are_of_one_size_and_no_title_leaves_its_panel(draw) -> None:
    models = table(models=("cnn6", "vgg16", "a_network_of_my_own"), data=("mnist", "fashion_mnist"), seeds=1)
    models[LOCAL_COMPLEXITY] = 3.0
    canvas = draw(models).figure
    FigureCanvasAgg(canvas).draw()
    sizes = {text.get_fontsize() for text in canvas.findobj(Text) if text.get_text() and text.get_visible()}
    assert sizes == {style.TYPE}
    titles = [axes.title.get_window_extent() for axes in canvas.axes if axes.get_title()]
    assert all(0 <= title.x0 < title.x1 <= canvas.bbox.x1 for title in titles)
    assert not any(one.overlaps(other) for one, other in combinations(titles, 2))
    (legend,) = canvas.legends
    assert 0 <= legend.get_window_extent().x0 < legend.get_window_extent().x1 <= canvas.bbox.x1


def test_letters_have_a_size_in_one_place_alone() -> None:
    sources = {file.name: file.read_text() for file in Path(style.__file__).parent.glob("*.py")}
    assert [name for name, text in sources.items() if re.search("font_?size|[a-z]titlesize", text)] == ["style.py"]


def test_a_line_is_broken_after_a_comma_or_else_between_words() -> None:
    assert style.fitted("ResNet-18, CIFAR-10", 5) == "ResNet-18, CIFAR-10"
    assert style.fitted("one two three four, five", style.width_of("four, five")) == "one two\nthree\nfour, five"
    assert style.fitted("Unbreakable", 0.1) == "Unbreakable"


def test_curves_are_the_mean_and_the_band_one_standard_deviation_over_seeds() -> None:
    rows = table(data=("mnist",))
    figure = curves.figure_5(rows)
    for axes, measure in zip(figure.figure.axes, (TEST_ACCURACY, PRS_RATIO, ROBUST_ACCURACY), strict=True):
        bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
        for batch_size, line, band in zip((64, 2048), axes.lines, bands, strict=True):
            cells = [
                rows[(rows["batch_size"] == batch_size) & (rows["epoch"] == epoch)][measure] for epoch in (1, 2, 3, 4)
            ]
            means = [statistics.mean(cell) for cell in cells]
            deviations = [statistics.stdev(cell) for cell in cells]
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
            np.testing.assert_allclose(line.get_ydata(), means)
            edge = band.get_paths()[0].vertices
            for epoch, mean, deviation in zip((1, 2, 3, 4), means, deviations, strict=True):
                at = edge[edge[:, 0] == epoch, 1]
                np.testing.assert_allclose([at.min(), at.max()], [mean - deviation, mean + deviation])
        assert "n = 3 seeds" in axes.get_title()
    assert len(figure.numbers) == 3 * 2 * 4


def test_local_complexity_is_a_panel_of_figure_5_where_it_was_measured_with_a_point_per_epoch_of_the_grid() -> None:
    rows = table(data=("mnist", "cifar10"), seeds=2, epochs=30)
    assert len(curves.figure_5(rows).figure.axes) == 6
    assert len(curves.figure_5(rows.assign(**{LOCAL_COMPLEXITY: np.nan})).figure.axes) == 6
    on = (rows["epoch"] % 10 == 0) & (rows["data"] == "mnist")
    figure = curves.figure_5(rows.assign(**{LOCAL_COMPLEXITY: np.where(on, 3.0 + rows[PRS_RATIO], np.nan)}))
    panel, other = figure.figure.axes[3], figure.figure.axes[7]
    expected = 3 + rows[on & (rows["batch_size"] == 64)].groupby("epoch")[PRS_RATIO].mean()
    np.testing.assert_allclose(panel.lines[0].get_xydata(), np.column_stack([[10, 20, 30], expected]))
    assert panel.lines[0].get_marker() == "o"
    assert figure.figure.axes[1].lines[0].get_marker() == ""
    assert "local complexity: not measured" in texts(other)
    assert "rival explanation" in figure.caption
    assert "rival" not in curves.figure_5(rows).caption


def test_the_distance_has_a_scale_of_its_own_beside_shares() -> None:
    models = table(data=("mnist",)).assign(**{DISTANCE: 0.01, TEMPERATURE: 0.3})
    models[DISTANCE] += 0.01 * models[PRS_RATIO]
    axes = scatter.figure_4b(models).figure.axes
    shown = {each.get_ylabel(): each for each in axes}
    assert shown["RA (any temperature)"].get_ylim() == shown["RA (PGD-20)"].get_ylim()
    assert shown["distance"].get_ylim()[1] < 0.03
    # One architecture: a row in which nothing was measured is low.
    heights = [each.get_position().height for each in scatter.figure_4b(table(data=("mnist",))).figure.axes]
    assert max(heights[3:]) < 0.6 * min(heights[:3])


def test_a_run_that_was_cut_short_counts_where_it_has_epochs() -> None:
    rows = table(data=("mnist",), batch_sizes=(64,))
    cut = rows[~((rows["seed"] == 2) & (rows["epoch"] > 2))]
    axes = curves.figure_5(cut).figure.axes[1]
    expected = cut[cut["epoch"] == 4][PRS_RATIO].mean()
    assert axes.lines[0].get_ydata()[3] == pytest.approx(expected)
    assert "n = 2 to 3 seeds" in axes.get_title()


def test_one_seed_has_no_band_and_one_epoch_is_a_point() -> None:
    axes = curves.figure_7b(table(data=("mnist",), seeds=1, epochs=1)).figure.axes[0]
    assert not axes.collections
    assert {line.get_marker() for line in axes.lines} == {"o"}
    assert "n = 1 seed" in axes.get_title()


def test_cosine_similarity_over_epochs_has_a_panel_per_network_and_data_set() -> None:
    rows = table(models=("vgg16", "cnn6"), seeds=2)
    figure = curves.figure_7b(rows)
    titles = [axes.get_title() for axes in figure.figure.axes]
    assert [title.rsplit(",", 1)[0] for title in titles if title] == [
        "CNN-6, MNIST", "CNN-6, CIFAR-10", "VGG-16, MNIST", "VGG-16, CIFAR-10",
    ]  # fmt: skip
    chosen = rows[(rows["model"] == "vgg16") & (rows["data"] == "mnist") & (rows["batch_size"] == 64)]
    expected = chosen.groupby("epoch")[COSINE_SIMILARITY].mean()
    np.testing.assert_allclose(figure.figure.axes[2].lines[0].get_ydata(), expected)


def test_measures_over_epochs_that_were_not_taken_are_named() -> None:
    rows = table().drop(columns=[COSINE_SIMILARITY, ROBUST_ACCURACY])
    assert "cosine similarity: not measured" in texts(curves.figure_7b(rows).figure.axes[0])
    assert "RA (PGD-20): not measured" in texts(curves.figure_5(rows).figure.axes[2])
    assert "no epoch was measured" in texts(curves.figure_5(rows.iloc[:0]).figure.axes[0])


def test_figure_2b_shows_the_two_runs_whose_last_ratios_differ_most() -> None:
    rows = table(seeds=2).drop(columns="train/accuracy")
    last = rows["epoch"] == 4
    few, many = "cifar10-cnn6-bs64-seed0", "cifar10-cnn6-bs2048-seed1"
    rows.loc[last, PRS_RATIO] = 0.5
    rows.loc[last & (rows["run"] == few), PRS_RATIO] = 0.01
    rows.loc[last & (rows["run"] == many), PRS_RATIO] = 0.99
    # Of another data set: a wider difference across data sets must not be taken.
    rows.loc[last & (rows["run"] == "mnist-cnn6-bs64-seed0"), PRS_RATIO] = 0.001
    figure = curves.figure_2b(rows)
    accuracy, ratio = figure.figure.axes
    for axes, measure in ((accuracy, TEST_ACCURACY), (ratio, PRS_RATIO)):
        for line, run in zip(axes.lines, (many, few), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), rows[rows["run"] == run][measure])
    assert set(figure.numbers["run"]) == {few, many}
    alone = curves.figure_2b(rows[rows["run"] == few])
    assert "the one run there is" in alone.caption
    assert len(alone.figure.axes[1].lines) == 1
    nothing = curves.figure_2b(rows.drop(columns=PRS_RATIO))
    assert "not measured" in texts(nothing.figure.axes[0])
