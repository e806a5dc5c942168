"""CNN-6: six convolutions and three fully connected layers, without batch normalisation."""

from __future__ import annotations

from torch import Tensor, nn

from prs_lightning.models.scaled import ScaledClassifier


class CNN6(ScaledClassifier):
    """CNN-6 of the paper: 943,306 parameters at 3 x 32 x 32 and 10 classes; 128 penultimate units.

    3x3 convolutions (padding 1) of widths 32, 64, pool, 128, 128, pool, 64, pool, 64; then fully connected layers
    of 512, 128 and ``classes`` units. ReLU after all but the last; pooling after ReLU. ``width`` and
    ``width_multiplier``: see :class:`ScaledClassifier`.
    """

    WIDTH = 128

    def build(self, channels: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for units in (32, 64, "pool", 128, 128, "pool", 64, "pool", 64):
            if isinstance(units, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, self.scaled(units), kernel_size=3, padding=1), nn.ReLU()]
                channels = self.scaled(units)
        self.convolutions = nn.Sequential(*layers)
        hidden = self.scaled(512)
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * 4 * 4, hidden), nn.ReLU(), nn.Linear(hidden, self.width)
        )
        self.activation = nn.ReLU()
        self.final = nn.Linear(self.width, classes)

    def logits(self, images: Tensor) -> Tensor:
        return self.final(self.activation(self.hidden(self.convolutions(images))))
