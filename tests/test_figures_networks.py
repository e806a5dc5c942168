"""The figures of networks A and B: what is drawn, against Python sets, scipy and the attacks themselves."""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PathCollection
from scipy.spatial.distance import cosine

from prs_lightning.analysis import figures
from prs_lightning.analysis.figures import functions, groups, layers, plane, robustness
from prs_lightning.analysis.figures.inference import first_samples, outputs
from prs_lightning.analysis.networks import Named, NetworkPair
from prs_lightning.attacks import bim, fgsm, pgd, robustness_curve
from prs_lightning.data import Split, balanced_subset, to_unit_range
from prs_lightning.errors import RunError
from prs_lightning.models import CNN6
from prs_lightning.regions.units import inert_units, scaled
from tests.networks import SmallNetwork, logits_and_pre_activations

SIZES = figures.Sizes(plane=24, layers=100, curve=60, attacked=80, group=40, embedded=60, scaled=30)
EPSILON, STEP_SIZE = 0.1, 2 / 255


def part(split: Split, samples: int) -> Split:
    chosen = balanced_subset(split.labels, samples)
    return Split(split.images[chosen], split.labels[chosen])


@pytest.fixture(scope="module")
def small_digits(digits: tuple[Split, Split]) -> tuple[Split, Split]:
    return part(digits[0], 300), part(digits[1], 150)


@pytest.fixture(scope="module")
def networks(small_digits: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> NetworkPair:
    """Network A learned for a moment; B is A with saturated logits and three dead penultimate units."""
    train, test = small_digits
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        network = SmallNetwork(channels=1, mean=[0.13], std=[0.31])
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(10):
            for index in torch.randperm(len(train.labels)).split(50):
                optimizer.zero_grad()
                logits = network(to_unit_range(train.images[index]))
                torch.nn.functional.cross_entropy(logits, train.labels[index]).backward()
                optimizer.step()
        made.append(network.eval())
    a, b = made
    with torch.no_grad():
        b.hidden.bias[13:] = -1e4
        b.final.weight *= 1e4
        b.final.bias *= 1e4
    return NetworkPair(
        a=Named("A", a, "A: batch 2048, PRS ratio 0.9"), b=Named("B", b, "B: batch 64, PRS ratio 0.1"),
        train=train, test=test, epsilon=EPSILON, step_size=STEP_SIZE,
    )  # fmt: skip


def patterns(z: torch.Tensor) -> list[tuple[bool, ...]]:
    return [tuple(row) for row in (z.flatten(1) > 0).tolist()]


def offsets(axes) -> list[np.ndarray]:
    return [np.asarray(found.get_offsets()) for found in axes.collections if isinstance(found, PathCollection)]


def test_the_plane_goes_through_the_three_images(networks: NetworkPair) -> None:
    images = to_unit_range(networks.test.images[[3, 40, 90]])
    found = plane.plane_through(images, 9)
    rebuilt = found.origin.flatten() + found.corners @ found.directions
    torch.testing.assert_close(rebuilt, images.flatten(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.directions @ found.directions.T, torch.eye(2), atol=1e-5, rtol=0)
    distance = torch.dist(images[0], images[2])
    torch.testing.assert_close(found.corners[2].norm(), distance, atol=1e-3, rtol=0)
    points = found.points().view(9, 9, -1)
    torch.testing.assert_close(points[0, 8] - points[0, 0], (found.u[8] - found.u[0]) * found.directions[0])
    torch.testing.assert_close(points[8, 0] - points[0, 0], (found.v[8] - found.v[0]) * found.directions[1])
    with pytest.raises(RunError, match="no plane"):
        plane.plane_through(images[[0, 1, 0]], 9)


def test_figure_1_colours_each_region_and_class_of_the_plane(networks: NetworkPair) -> None:
    chosen = plane.three_images(networks)
    labels = networks.test.labels[chosen]
    assert len(set(labels.tolist())) == 3
    for network in (networks.a.network, networks.b.network):
        assert torch.equal(network(to_unit_range(networks.test.images[chosen])).argmax(1), labels)
    figure = plane.figure_1(networks, sizes=SIZES)
    surface = plane.plane_through(to_unit_range(networks.test.images[chosen]), SIZES.plane)
    for row, (letter, network) in enumerate((("A", networks.a.network), ("B", networks.b.network))):
        regions, logits = figure.figure.axes[2 * row : 2 * row + 2]
        with torch.no_grad():
            scores, features = logits_and_pre_activations(network, surface.points())
        side = SIZES.plane
        np.testing.assert_allclose(
            logits.images[0].get_array(), scores.max(1).values.view(side, side), rtol=1e-4, atol=1e-4
        )
        found = patterns(features)
        assert f"{len(set(found)):,} regions at n = 576 points" in regions.get_title()
        tints = np.asarray(regions.images[0].get_array()).reshape(-1, 3)
        by_region: dict[tuple[object, ...], set[tuple[float, ...]]] = {}
        for pattern, label, tint in zip(found, scores.argmax(1).tolist(), tints.tolist(), strict=True):
            by_region.setdefault((pattern, label), set()).add(tuple(tint))
        assert {len(colours) for colours in by_region.values()} == {1}
        assert len({tuple(tint) for tint in tints.tolist()}) == len(by_region)
        numbers = figure.numbers[figure.numbers["network"] == letter]
        assert numbers["region"].nunique() == len(set(found))
        np.testing.assert_array_equal(numbers["predicted_class"], scores.argmax(1))
        # A boundary is drawn where the predicted class changes, and the three images are marked on their places.
        assert len(regions.collections) == len({*scores.argmax(1).tolist()})
        marks = np.array([line.get_xydata()[0] for line in regions.lines])
        np.testing.assert_allclose(marks, surface.corners)


def test_figure_2a_counts_the_regions_of_every_layer(networks: NetworkPair) -> None:
    figure = layers.figure_2a(networks, sizes=SIZES)
    images = to_unit_range(part(networks.train, SIZES.layers).images)
    for line, network in zip(figure.figure.axes[0].lines, (networks.a.network, networks.b.network), strict=True):
        with torch.no_grad():
            first = network.convolutions[1](network.convolutions[0]((images - network.mean) / network.std))
            last = logits_and_pre_activations(network, images)[1]
        expected = [len(set(patterns(z))) / len(images) for z in (first, last)]
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert expected[1] < 1
    assert list(figure.numbers["kind"]) == ["convolution", "fully connected"] * 2
    assert [tick.get_text() for tick in figure.figure.axes[0].get_xticklabels()] == ["conv 1", "fc 1"]
    assert "n = 100 training samples" in figure.figure.axes[0].get_title()


def test_figure_3_draws_the_curves_of_the_attacks(networks: NetworkPair) -> None:
    figure = robustness.figure_3(networks, sizes=SIZES)
    radii = [0.0, 0.01, 0.025, 0.05, 0.1]
    attacks = {
        "FGSM": fgsm,
        "BIM-5": partial(bim, steps=5, step_size=STEP_SIZE),
        "PGD-20": partial(pgd, steps=20, step_size=STEP_SIZE),
        "PGD-100": partial(pgd, steps=100, step_size=STEP_SIZE),
    }
    titles = [axes.get_title() for axes in figure.figure.axes]
    assert titles == [f"{letter}, {name} set, n = 60" for letter in "AB" for name in ("training", "test")]
    for axes, (network, split) in zip(
        figure.figure.axes,
        [
            (network, split)
            for network in (networks.a.network, networks.b.network)
            for split in (networks.train, networks.test)
        ],
        strict=True,
    ):
        chosen = part(split, 60)
        for line, (name, attack) in zip(axes.lines, attacks.items(), strict=True):
            if name == "PGD-100" and (network is networks.b.network or split is networks.train):
                continue  # one of four is enough of the dearest
            expected = robustness_curve(network, to_unit_range(chosen.images), chosen.labels, attack, radii)
            np.testing.assert_allclose(line.get_xdata(), radii, atol=1e-12)
            np.testing.assert_allclose(line.get_ydata(), expected, err_msg=name)
    ends = figure.numbers[(figure.numbers["network"] == "A") & (figure.numbers["split"] == "test")]
    ends = ends.pivot_table("robust_accuracy", "attack", "epsilon").loc["PGD-20"]
    assert ends.iloc[0] > ends.iloc[-1] + 0.2


def test_figure_6a_tells_failures_without_a_gradient_apart(networks: NetworkPair) -> None:
    figure = robustness.figure_6a(networks, sizes=SIZES)
    test = part(networks.test, SIZES.attacked)
    bars = [[bar.get_width() for bar in container] for container in figure.figure.axes[0].containers]
    drawn = np.array(bars).reshape(2, 3)
    for letter, network, widths in (("A", networks.a.network, drawn[0]), ("B", networks.b.network, drawn[1])):
        result = pgd(network, to_unit_range(test.images), test.labels, epsilon=EPSILON, step_size=STEP_SIZE, steps=20)
        tried, failed = result.correct_before, result.correct_after
        counts = [
            int((tried & ~failed).sum()),
            int((failed & ~result.zero_gradient_end).sum()),
            int((failed & result.zero_gradient_end).sum()),
        ]
        numbers = figure.numbers[figure.numbers["network"] == letter]
        assert list(numbers["count"]) == counts
        assert set(numbers["n"]) == {int(tried.sum())} == {sum(counts)}
        np.testing.assert_allclose(widths, np.array(counts) / sum(counts))
    share = figure.numbers.set_index(["network", "outcome"])["share"]
    assert share["A", "failure_zero_gradient"] < 0.2
    assert share["B", "failure_zero_gradient"] > 0.5
    assert [tick.get_text()[0] for tick in figure.figure.axes[0].get_yticklabels()] == ["A", "B"]


def one_class(label: int) -> CNN6:
    """A network that names one class whatever it sees."""
    network = CNN6(channels=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.final.bias[label] = 1
    return network


def keep(network: CNN6, path: Path) -> None:
    """A checkpoint of it."""
    kept = {"architecture": "CNN6", "state_dict": network.state_dict(), "hyper_parameters": dict(network.hparams)}
    torch.save(kept, path)


def test_figure_6a_attacks_the_other_seeds(networks: NetworkPair, tmp_path: Path) -> None:
    """Of a network that names one class whatever it sees, all attacks fail without a gradient."""
    paths = []
    for seed, always in ((3, 0), (5, 1)):
        network = one_class(always)
        paths.append((seed, tmp_path / f"{seed}.ckpt"))
        keep(network, paths[-1][1])
    siblings = (paths[0], (4, tmp_path / "its-own.ckpt"), paths[1])
    pair = replace(networks, a=replace(networks.a, siblings=siblings, seed=4))
    figure = robustness.figure_6a(pair, sizes=SIZES)
    alone = robustness.figure_6a(networks, sizes=SIZES).numbers
    numbers = figure.numbers.set_index(["network", "seed", "outcome"])
    assert numbers.index.get_level_values("seed").unique().tolist() == [3, 4, 5, 0]
    for seed, label in ((3, 0), (5, 1)):
        of_class = int((part(networks.test, SIZES.attacked).labels == label).sum())
        assert numbers.loc["A", seed]["count"].tolist() == [0, 0, of_class]
    assert numbers.loc["A", 4]["count"].tolist() == alone[alone["network"] == "A"]["count"].tolist()
    assert numbers.loc["B", 0]["count"].tolist() == alone[alone["network"] == "B"]["count"].tolist()
    axes = figure.figure.axes[0]
    bars = [container[0].get_width() for container in axes.containers]
    np.testing.assert_allclose(bars[:3], numbers.loc["A"].groupby("outcome", sort=False)["share"].mean())
    success, failure = (np.sort(points[:, 0]) for points in offsets(axes))
    np.testing.assert_allclose(success, np.sort(numbers.loc["A"].xs("success", level="outcome")["share"]))
    assert failure.tolist()[:2] == [0, 0]  # nothing but failures with zero gradient
    assert "3 seeds" in axes.get_yticklabels()[0].get_text()


def test_figure_6b_draws_the_logits_before_and_after(networks: NetworkPair) -> None:
    figure = robustness.figure_6b(networks, sizes=SIZES)
    test = part(networks.test, SIZES.attacked)
    for axes, network in zip(figure.figure.axes, (networks.a.network, networks.b.network), strict=True):
        result = pgd(network, to_unit_range(test.images), test.labels, epsilon=EPSILON, step_size=STEP_SIZE, steps=20)
        tried = result.correct_before
        for drawn, images in zip(offsets(axes), (to_unit_range(test.images), result.adversarial), strict=True):
            with torch.no_grad():
                logits = network(images[tried]).tolist()
            labels = test.labels[tried].tolist()
            other = [max(row[:label] + row[label + 1 :]) for row, label in zip(logits, labels, strict=True)]
            true = [row[label] for row, label in zip(logits, labels, strict=True)]
            np.testing.assert_allclose(drawn, np.column_stack([other, true]), rtol=1e-4, atol=1e-3)
        before, after = offsets(axes)
        assert (before[:, 1] > before[:, 0]).all()
        assert (after[:, 1] <= after[:, 0]).sum() == (tried & ~result.correct_after).sum()
        assert f"n = {int(tried.sum())} correctly classified" in axes.get_title()


def test_figure_7a_draws_the_cosines_of_scipy(networks: NetworkPair) -> None:
    figure = layers.figure_7a(networks, sizes=SIZES)
    for axes, network in zip(figure.figure.axes, (networks.a.network, networks.b.network), strict=False):
        weight = network.final.weight.detach().numpy().astype(float)
        expected = [[1 - cosine(one, other) for other in weight] for one in weight]
        np.testing.assert_allclose(axes.images[0].get_array(), expected, atol=1e-9)
        mean = np.mean([expected[i][j] for i in range(10) for j in range(i + 1, 10)])
        assert f"mean {mean:.3f} over n = 45 pairs" in axes.get_title()
        assert axes.images[0].get_clim() == (-1, 1)


def test_groups_are_inside_and_outside_the_training_regions(networks: NetworkPair) -> None:
    wrong = networks.test.labels.clone()
    wrong[::3] = (wrong[::3] + 1) % 10  # so that samples in and out of the regions are misclassified
    given = Split(networks.test.images, wrong)
    for network in (networks.a.network, networks.b.network):
        found = groups.groups(network, networks.train, given)
        with torch.no_grad():
            _, train = logits_and_pre_activations(network, to_unit_range(networks.train.images))
            logits, test = logits_and_pre_activations(network, to_unit_range(networks.test.images))
        populated, right = set(patterns(train)), (logits.argmax(1) == wrong).tolist()
        inside = [pattern in populated for pattern in patterns(test)]
        every = range(len(inside))
        assert found.inclusion.tolist() == [i for i in every if right[i] and inside[i]]
        assert found.exclusion.tolist() == [i for i in every if right[i] and not inside[i]]
        others = [
            max(row[:label] + row[label + 1 :]) for row, label in zip(logits.tolist(), wrong.tolist(), strict=True)
        ]
        margins = logits.gather(1, wrong[:, None]).squeeze(1) - torch.tensor(others)
        torch.testing.assert_close(found.margins, margins, rtol=1e-4, atol=1e-3)
    found = groups.groups(networks.a.network, networks.train, networks.test)
    assert all(len(places) > 0 for places in found.members().values())
    some = found.some(20).members()
    assert max(len(places) for places in some.values()) == 20
    largest = max(some.values(), key=len)
    assert len(largest.unique()) == 20
    ordered = networks.test.labels.diff() >= 0
    assert ordered.all()  # in the order of the classes: the first 20 would hold two of them
    assert len(networks.test.labels[largest].unique()) > 4


@given(
    st.lists(st.floats(-30, 30, width=32), max_size=25),
    st.lists(st.floats(-30, 30, width=32), max_size=25),
    st.sampled_from([0.0, 0.1, 0.5, 3.0]),
)
@settings(max_examples=100, deadline=None)
def test_matched_pairs_are_near_one_to_one_and_as_many_as_can_be_taken(ours, theirs, caliper: float) -> None:
    one, other = np.array(ours, dtype=np.float32), np.array(theirs, dtype=np.float32)
    pairs = groups.matched_pairs(one, other, caliper)
    assert pairs.shape == (len(pairs), 2)
    np.testing.assert_array_equal(pairs, groups.matched_pairs(one, other, caliper))
    left, right = (set(column.tolist()) for column in pairs.T)
    assert len(left) == len(right) == len(pairs) <= min(len(ours), len(theirs))
    if not ours or not theirs:
        return
    farthest = caliper * statistics.pstdev([*one.tolist(), *other.tolist()])
    assert all(abs(float(one[i]) - float(other[j])) <= farthest * (1 + 1e-6) for i, j in pairs.tolist())
    # Nobody of the smaller group was left while somebody near enough was free.
    free = [
        [float(v) for k, v in enumerate(values) if k not in taken] for values, taken in ((one, left), (other, right))
    ]
    assert all(abs(a - b) > farthest * (1 - 1e-6) or farthest == 0 for a in free[0] for b in free[1])


def test_groups_that_differ_in_margin_alone_do_not_differ_at_equal_margin() -> None:
    rng = np.random.default_rng(0)
    margins = np.concatenate([rng.normal(6, 2, 900), rng.normal(3, 2, 200)]).astype(np.float32)
    withstood = torch.from_numpy(margins > 4 + rng.normal(0, 0.5, len(margins)))  # whoever is far from the boundary
    found = groups.Groups(torch.arange(900), torch.arange(900, 1100), torch.from_numpy(margins))

    def difference(chosen: groups.Groups) -> tuple[float, float]:
        of_groups = [(withstood[places], chosen.margins[places]) for places in chosen.members().values()]
        (inside, near), (outside, far) = [(float(a.double().mean()), float(b.mean())) for a, b in of_groups]
        return inside - outside, near - far

    robust, margin = difference(found.some(1000))
    assert robust > 0.4
    assert margin > 2.5
    matched = found.matched(1000)
    assert len(matched.inclusion) == len(matched.exclusion) > 120  # who has no like is left out
    robust, margin = difference(matched)
    assert abs(robust) < 0.06
    assert abs(margin) < 0.05
    few = found.matched(50)
    assert len(few.inclusion) == len(few.exclusion) == 50
    places = dict(zip(matched.inclusion.tolist(), matched.exclusion.tolist(), strict=True))
    assert all(places[i] == j for i, j in zip(few.inclusion.tolist(), few.exclusion.tolist(), strict=True))
    assert len(few.exclusion.unique()) == 50
    for empty in (found._replace(exclusion=found.exclusion[:0]), found._replace(inclusion=found.inclusion[:0])):
        assert [len(places) for places in empty.matched(50).members().values()] == [0, 0]


def test_figure_9_draws_the_mean_over_seeds_of_each_group(networks: NetworkPair) -> None:
    figure = groups.figure_9(networks, sizes=SIZES)
    table = figure.numbers
    columns = ["network", "seed", "matching", "group", "epsilon", "robust_accuracy", "n", "margin"]
    assert list(table.columns) == columns
    axes = figure.figure.axes
    for column, (letter, network) in enumerate((("A", networks.a.network), ("B", networks.b.network))):
        found = groups.groups(network, networks.train, networks.test)
        chosen = {"none": found.some(SIZES.group), "clean margin": found.matched(SIZES.group)}
        for row, (matching, members) in enumerate(chosen.items()):
            panel, lines = axes[2 * row + column], iter(axes[2 * row + column].lines)
            for group, places in members.members().items():
                rows = table[(table["network"] == letter) & (table["group"] == group) & (table["matching"] == matching)]
                assert set(rows["n"]) == {len(places)}
                assert f"n({group}) = {len(places)}" in panel.get_title()
                if not len(places):
                    assert rows["robust_accuracy"].isna().all()
                    continue
                line = next(lines)
                images, labels = (values[places] for values in networks.test)
                attack = partial(pgd, steps=20, step_size=STEP_SIZE, indices=places)
                expected = robustness_curve(network, to_unit_range(images), labels, attack, line.get_xdata().tolist())
                np.testing.assert_allclose(line.get_ydata(), expected)
                assert line.get_ydata()[0] == 1
                assert rows["margin"].iloc[0] == pytest.approx(float(found.margins[places].mean()), rel=1e-4)
    matched = table[table["matching"] == "clean margin"]
    assert matched.pivot_table("n", "network", "group").nunique(axis=1).tolist() == [1, 1]
    spread = table[table["matching"] == "none"].groupby("network")["margin"].agg(np.ptp)
    assert (matched.groupby("network")["margin"].agg(np.ptp) < 0.5 * spread).all()


def test_the_mean_and_the_band_of_figure_9_are_over_seeds() -> None:
    from prs_lightning.analysis.figures.style import panels

    table = pd.DataFrame(
        [
            {"network": "A", "seed": s, "group": g, "epsilon": e, "robust_accuracy": value, "n": n, "margin": 3.0 + s}
            for s, g, e, value, n in [
                (0, "inclusion", 0.0, 1.0, 40), (1, "inclusion", 0.0, 1.0, 30),
                (0, "inclusion", 0.1, 0.6, 40), (1, "inclusion", 0.1, 0.2, 30),
                (0, "exclusion", 0.0, np.nan, 0), (1, "exclusion", 0.0, np.nan, 0),
            ]
        ]
    ).assign(matching="none")  # fmt: skip
    axes = panels(1, 1)[1][0, 0]
    groups._draw_groups(axes, table)
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_ydata(), [1.0, 0.4])
    edge = axes.collections[0].get_paths()[0].vertices
    deviation = np.std([0.6, 0.2], ddof=1)
    at = edge[edge[:, 0] == 0.1, 1]
    np.testing.assert_allclose([at.min(), at.max()], [0.4 - deviation, 0.4 + deviation])
    title = axes.get_title().replace("\n", " ")
    assert "n(inclusion) = 30 to 40, margin 3.5 n(exclusion) = 0; 2 seeds" in title
    assert "no sample in the exclusion group" in axes.texts[0].get_text()
    axes = panels(1, 1)[1][0, 0]
    groups._draw_groups(axes, table.assign(robust_accuracy=np.nan, n=0, matching="clean margin"))
    assert "no two samples are as near" in axes.texts[0].get_text().replace("\n", " ")


def test_figure_9_loads_the_other_seeds(networks: NetworkPair, tmp_path: Path) -> None:
    chosen = torch.cat([(networks.test.labels == label).nonzero().flatten()[:n] for label, n in ((0, 3), (1, 1))])
    four = Split(networks.test.images[chosen], networks.test.labels[chosen])
    paths = []
    for seed, always in ((3, 0), (4, 1)):
        network = one_class(always)
        paths.append((seed, tmp_path / f"{seed}.ckpt"))
        if seed == 4:  # the other is the named network itself, which is not loaded once more
            keep(network, paths[-1][1])
        else:
            own = network.eval()
    pair = replace(networks, a=Named("A", own, "A", siblings=tuple(paths), seed=3), train=four, test=four)
    table = groups.curves_of_groups(pair, pair.a, 1000)
    for matching, inside in (("none", {3: 3, 4: 1}), ("clean margin", {3: 0, 4: 0})):
        rows = table[(table["epsilon"] == 0) & (table["matching"] == matching)]
        sizes = rows.set_index(["seed", "group"])["n"].to_dict()
        # Both put every image into one region, and each is right on the class that it always names.
        assert sizes == {
            (seed, g): inside[seed] * (g == "inclusion") for seed in inside for g in ("inclusion", "exclusion")
        }


def test_figure_16_shows_other_ratios_of_one_function_and_other_robust_accuracies_of_one_ratio(
    networks: NetworkPair,
) -> None:
    figure = functions.figure_16(networks, sizes=SIZES)
    numbers = figure.numbers
    train, test = part(networks.train, SIZES.layers), part(networks.test, SIZES.scaled)
    images, threat = to_unit_range(test.images), {"epsilon": EPSILON, "step_size": STEP_SIZE, "steps": 20}
    added = numbers.loc[numbers["panel"] == "units", "added"].unique().tolist()
    assert min(added) < 0
    assert [*functions.ADDED[:3]] == [units for units in sorted(added) if units >= 0][:3]
    for letter, network in (("A", networks.a.network), ("B", networks.b.network)):
        units, scales = (
            numbers[(numbers["network"] == letter) & (numbers["panel"] == panel)] for panel in ("units", "scale")
        )
        for row in units[units["added"].isin((0, 2, 16))].to_dict("records"):
            made = inert_units(network, row["added"])
            z = outputs(made, train.images)[1]
            assert z.shape[1] == row["units"] == 16 + row["added"]
            assert len(set(patterns(z))) / len(z) == row["prs_ratio"]
            assert torch.equal(outputs(made, images)[0], outputs(network, images)[0])
        results = {}
        for scale in (2.0**-6, 1.0, 2.0**10):
            louder = scaled(network, scale)
            ce, margin = (pgd(louder, images, test.labels, loss=loss, **threat) for loss in ("cross_entropy", "margin"))
            row = scales[scales["scale"] == scale].iloc[0]
            assert row["robust_accuracy"] == pytest.approx(ce.robust_accuracy)
            both = ce.correct_after & margin.correct_after
            assert row["audited_accuracy"] == pytest.approx(float(both.double().mean()))
            assert row["accuracy"] == pytest.approx(float(ce.correct_before.double().mean()))
            results[scale] = row
        assert scales["prs_ratio"].nunique() == 1
        shown = units[units["added"] >= 0]
        for name in ("robust_accuracy", "audited_accuracy", "accuracy"):
            assert set(shown[name]) == {results[1.0][name]}
        assert results[2.0**10]["robust_accuracy"] > results[2.0**-6]["robust_accuracy"]
    removed = numbers[numbers["added"] < 0].to_dict("records")
    assert {row["network"] for row in removed} >= {"B"}  # three of its units died
    for row in removed:
        z = outputs(networks.a.network if row["network"] == "A" else networks.b.network, train.images)[1]
        assert row["units"] == int((z > 0).any(0).sum()) == 16 + row["added"]
        assert row["prs_ratio"] == len(set(patterns(z))) / len(z)
        assert np.isnan(row["robust_accuracy"])  # nothing is proven of test images
    left, right = figure.figure.axes
    assert "n = 100 training samples" in left.get_title()
    assert "n = 30 test samples" in right.get_title()
    for phrase in ("What follows: the PRS ratio is a property of the parameters", "What does not: "):
        assert phrase in figure.caption


def test_figure_16_does_without_the_dead_units_where_all_are() -> None:
    network = SmallNetwork(channels=1).eval()
    with torch.no_grad():
        network.hidden.weight.zero_()
        network.hidden.bias.fill_(-1)
    table = functions.ratios_by_units(network, torch.rand(20, 1, 32, 32))
    assert table["added"].tolist() == list(functions.ADDED)
    assert table["prs_ratio"].iloc[0] == 1 / 20


def test_figure_11_shows_the_strongest_maps_and_the_share_of_zeros(networks: NetworkPair) -> None:
    figure = layers.figure_11(networks, sizes=SIZES)
    chosen = plane.three_images(networks)[:1]
    image = to_unit_range(networks.test.images[chosen])
    train = to_unit_range(part(networks.train, SIZES.layers).images)
    for row, network in enumerate((networks.a.network, networks.b.network)):
        picture, drawn = (figure.figure.axes[2 * row + column].images[0].get_array() for column in (0, 1))
        np.testing.assert_allclose(picture, image[0, 0])
        with torch.no_grad():
            of_image, of_all = (
                network.convolutions[:3]((images - network.mean) / network.std) for images in (image, train)
            )
        order = sorted(range(4), key=lambda channel: -float(of_image[0, channel].mean()))
        scaled = (of_image[0] / of_image.max()).numpy()
        for place, channel in enumerate(order):
            top, left = 9 * (place // 2), 9 * (place % 2)
            np.testing.assert_allclose(drawn[top : top + 8, left : left + 8], scaled[channel], atol=1e-6)
        share = float((of_all == 0).float().mean())
        assert f"{share:.0%} zeros" in figure.figure.axes[2 * row + 1].get_title()
        numbers = figure.numbers[figure.numbers["network"] == "AB"[row]]
        assert list(numbers["channel"]) == order
        np.testing.assert_allclose(numbers["zeros_in_layer"], share)


def test_relu_outputs_of_one_module_called_twice_count_as_two(networks: NetworkPair) -> None:
    class Twice(SmallNetwork):
        def logits(self, images: torch.Tensor) -> torch.Tensor:
            first = self.convolutions[:3](images)
            z = self.hidden(torch.flatten(self.convolutions[2](first - 1e6), 1))
            return self.final(self.activation(z))

    images = networks.train.images[:250]  # more than one batch
    found = layers.relu_maps(Twice(channels=1).eval(), images[:1], images)
    assert [share for _, share in found] == [pytest.approx(found[0][1]), 1.0]
    assert 0 < found[0][1] < 1


def test_figure_13_keeps_classes_together(networks: NetworkPair) -> None:
    figure = layers.figure_13(networks, sizes=SIZES)
    labels = part(networks.test, 60).labels.numpy()
    for axes, letter in zip(figure.figure.axes, "AB", strict=True):
        numbers = figure.numbers[figure.numbers["network"] == letter]
        np.testing.assert_array_equal(numbers["label"], labels)
        for label, drawn in enumerate(offsets(axes)):
            np.testing.assert_array_equal(drawn, numbers[numbers["label"] == label][["x", "y"]])
        assert sorted(text.get_text() for text in axes.texts) == [str(label) for label in range(10)]
        places = numbers[["x", "y"]].to_numpy()
        distance = ((places[:, None] - places) ** 2).sum(-1)
        np.fill_diagonal(distance, np.inf)
        assert (labels[distance.argmin(1)] == labels).mean() > 0.3  # 0.1 by chance
    with pytest.raises(RunError, match="expected at least 5"):
        layers.embedding(np.zeros((3, 2)))
    with pytest.raises(RunError, match="all alike"):
        layers.embedding(np.zeros((30, 2)))


def test_first_samples_are_balanced_where_the_classes_allow_it(networks: NetworkPair) -> None:
    assert first_samples(networks.test, 50).labels.bincount().tolist() == [5] * 10
    assert len(first_samples(networks.test, 10_000).labels) == 150
    uneven = Split(networks.test.images[:30], torch.tensor([0] * 28 + [1] * 2))
    assert len(first_samples(uneven, 20).labels) == 20


def test_outputs_leave_the_mode_of_the_network(networks: NetworkPair) -> None:
    network = SmallNetwork(channels=1).train()
    first, second = (outputs(network, networks.test.images[:5])[0] for _ in range(2))
    assert network.training
    assert network.convolutions[3].training
    torch.testing.assert_close(first, second)  # no dropout


def test_all_figures_of_networks_are_made_and_kept(networks: NetworkPair, tmp_path: Path) -> None:
    empty = pd.DataFrame({"run": []})
    only = ["2a", "7a"]
    calls: list[int] = []

    def load() -> NetworkPair:
        calls.append(1)
        return networks

    for turn in range(2):
        made = figures.make_all(
            empty, empty, load, folder=tmp_path, key="k", only=only, sizes=asdict(SIZES), progress=lambda line: None
        )
        assert [(done.error, done.kept) for done in made] == [(None, bool(turn))] * 2
    assert len(calls) == 1
    made = figures.make_all(
        empty, empty, load, folder=tmp_path, key="other", only=["7a"], sizes=asdict(SIZES), progress=lambda line: None
    )
    assert not made[0].kept
