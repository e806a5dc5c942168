"""CNN-6: six convolutions and three fully connected layers, without batch normalisation."""

from __future__ import annotations

from torch import Tensor, nn

from prs_lightning.models.base import ImageClassifier


class CNN6(ImageClassifier):
    """CNN-6 of the paper: 943,306 parameters at 3 x 32 x 32 and 10 classes; 128 penultimate units.

    3x3 convolutions (padding 1) of widths 32, 64, pool, 128, 128, pool, 64, pool, 64; then fully connected layers
    of 512, 128 and ``classes`` units. ReLU after all but the last; pooling after ReLU.
    """

    def build(self, channels: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for width in (32, 64, "pool", 128, 128, "pool", 64, "pool", 64):
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
                channels = width
        self.convolutions = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(64 * 4 * 4, 512), nn.ReLU(), nn.Linear(512, 128))
        self.activation = nn.ReLU()
        self.final = nn.Linear(128, classes)

    def logits(self, images: Tensor) -> Tensor:
        return self.final(self.activation(self.hidden(self.convolutions(images))))
