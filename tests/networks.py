"""A network small enough to train in a second, with dropout and batch normalisation to make mistakes visible."""

from __future__ import annotations

from torch import Tensor, nn

from prs_lightning.models import ImageClassifier, ResNet18


class SmallNetwork(ImageClassifier):
    """One convolution with batch normalisation, dropout, and 16 penultimate units."""

    def build(self, channels: int, classes: int) -> None:
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 4, kernel_size=3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()
        )
        self.hidden = nn.Linear(4 * 8 * 8, 16)
        self.activation = nn.ReLU()
        self.final = nn.Linear(16, classes)

    def logits(self, images: Tensor) -> Tensor:
        return self.final(self.activation(self.hidden(self.convolutions(images))))


class PlainNetwork(ImageClassifier):
    """16 penultimate units and nothing that depends on the other samples of a batch, or on chance."""

    def build(self, channels: int, classes: int) -> None:
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(channels * 32 * 32, 16))
        self.activation = nn.ReLU()
        self.final = nn.Linear(16, classes)

    def logits(self, images: Tensor) -> Tensor:
        return self.final(self.activation(self.hidden(images)))


def logits_and_pre_activations(network: ImageClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and penultimate pre-activations of images in [0, 1], layer by layer: an oracle for what traces them."""
    maps = getattr(network, "convolutions", nn.Identity())((images - network.mean) / network.std)
    if isinstance(network, ResNet18):
        return network.final(maps.flatten(1)), maps.flatten(1)
    z = network.hidden(maps)
    return network.final(getattr(network, "activation", nn.ReLU())(z)), z
