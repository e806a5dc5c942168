"""Local complexity: by hand where hyperplanes are known, the same for any batch and number of processes."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from prs_lightning.callbacks.local_complexity import LocalComplexity
from prs_lightning.callbacks.regions import Regions
from prs_lightning.errors import ConfigError
from prs_lightning.network import PixelNetwork
from prs_lightning.regions.layers import Tap
from prs_lightning.regions.local_complexity import Balls, crossings, random_frames
from tests.conftest import digit_data
from tests.networks import PlainNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # Lightning's own


def test_frames_are_orthonormal_of_any_direction_and_keyed() -> None:
    indices = torch.arange(400)
    frames = random_frames(indices, 3, 20, key=7)
    torch.testing.assert_close(frames @ frames.mT, torch.eye(3).double().expand(400, 3, 3))
    assert (frames**2).mean(dim=0).max() < 1.5 / 20
    torch.testing.assert_close(random_frames(indices[[5]], 3, 20, key=7), frames[[5]], rtol=0, atol=0)
    assert not torch.equal(random_frames(indices[[5]], 3, 20, key=8), frames[[5]])


def test_points_lie_on_the_sphere_opposite_each_other_and_are_not_clipped() -> None:
    images = torch.zeros(5, 2, 3, 3)
    points = Balls(points=6, radius=0.25).around(images, torch.arange(5), key=0)
    assert points.shape == (5, 6, 2, 3, 3)
    torch.testing.assert_close(points.flatten(2).norm(dim=2), torch.full((5, 6), 0.25))
    torch.testing.assert_close(points[:, :3], -points[:, 3:])
    assert points.min() < 0


def test_hyperplanes_are_counted_as_by_hand() -> None:
    """Every axis of the space is a direction: a hyperplane crosses the hull iff it parts two of the points."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 40), nn.ReLU(), nn.Linear(40, 2)).eval()
    images, indices, balls = torch.rand(30, 1, 3, 3), torch.arange(30), Balls(points=18, radius=0.2)
    found = crossings(network, Tap("1"), images, indices, balls, seed=(3, 1))
    key_points = [balls.around(images[[row]], indices[[row]], _key(3, 1))[0] for row in range(30)]
    weight, bias = network[1].weight.detach().double(), network[1].bias.detach().double()
    for row, points in enumerate(key_points):
        signs = [[float(w @ p + b) > 0 for p in points.flatten(1).double()] for w, b in zip(weight, bias, strict=True)]
        assert found[row] == sum(len(set(each)) == 2 for each in signs)
        # the hull lies inside the ball: never more than the hyperplanes within reach
        reach = (weight @ images[row].flatten().double() + bias).abs() / weight.norm(dim=1)
        assert found[row] <= (reach < 0.2).sum()
    assert 0 < found.sum() < 30 * 40
    in_parts = [crossings(network, Tap("1"), images[rows], rows, balls, seed=(3, 1)) for rows in indices.split(7)]
    assert torch.equal(torch.cat(in_parts), found)
    assert not torch.equal(crossings(network, Tap("1"), images, indices, balls, seed=(3, 2)), found)


def _key(*words: int) -> int:
    from prs_lightning.seeding import draw_key, keyed_generator

    return draw_key(keyed_generator(*words))


def test_normalised_data_give_the_numbers_of_their_images() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 40), nn.ReLU(), nn.Linear(40, 2)).eval()
    images, indices, mean, std = torch.rand(20, 1, 3, 3), torch.arange(20), [0.4], [0.3]
    inside = crossings(PixelNetwork(network, mean, std), Tap("network.1"), images, indices, Balls(radius=0.1))
    normalised = (images - 0.4) / 0.3
    outside = crossings(network, Tap("1"), normalised, indices, Balls(radius=0.1, normalisation=(mean, std)))
    assert (inside - outside).abs().sum() <= 1  # rounding
    assert inside.sum() > 0
    with pytest.raises(ConfigError, match=r"expected \[0, 1\], or give LocalComplexity mean= and std="):
        crossings(network, Tap("1"), normalised, indices, Balls(radius=0.1))


def test_values_that_make_no_ball_are_refused() -> None:
    for values, message in (({"points": 3}, "even"), ({"points": 0}, "even"), ({"radius": 0.0}, "above 0")):
        with pytest.raises(ConfigError, match=message):
            Balls(**values)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ConfigError, match="points=16 of images of 4 pixels: expected 8 at most"):
        crossings(network, Tap("1"), torch.rand(1, 1, 2, 2), torch.arange(1), Balls())
    with pytest.raises(ConfigError, match="floating point"):
        Balls().images(torch.zeros(1, 4, dtype=torch.int64), network)
    with pytest.raises(ConfigError, match="expected both"):
        LocalComplexity(mean=[0.1])


def validated(network: PlainNetwork, *callbacks: pl.Callback, **settings: Any) -> dict[str, float]:
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"), False)
    runner = pl.Trainer(accelerator="cpu", callbacks=[*callbacks], **{"devices": 1, **quiet, **settings})
    runner.validate(network, digit_data(train_limit=101, test_limit=10), verbose=False)
    return {name: value.item() for name, value in runner.callback_metrics.items()}


def test_it_is_measured_at_the_grids_epochs_on_a_subset_of_all_classes() -> None:
    torch.manual_seed(0)
    network, name = PlainNetwork(channels=1), "features/local_complexity"
    options: dict[str, Any] = {"grid_epochs": [3], "samples": 31, "points": 8, "radius": 2.0, "seed": 5}
    network.loaded_epoch = 1  # the second
    assert name not in validated(network, LocalComplexity(**options))
    network.loaded_epoch = 2
    found = validated(network, LocalComplexity(**options), Regions())
    data = digit_data(train_limit=101, test_limit=10)
    data.setup()
    assert data.train is not None
    rows = torch.cat([(data.train.labels == label).nonzero().flatten()[: 3 + (label == 0)] for label in range(10)])
    rows = rows.sort().values
    images: Tensor = data.train.images[rows].float() / 255
    balls = Balls(points=8, radius=2.0)
    by_hand = crossings(network.eval(), Tap("hidden.1"), images, rows, balls, seed=(5, 3))
    assert found[name] == pytest.approx(by_hand.double().mean().item())
    assert found[name] > 1
    assert found == validated(network, LocalComplexity(**options), Regions())
