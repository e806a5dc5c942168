"""VGG-16 for 32 x 32 images."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from prs_lightning.models.scaled import ScaledClassifier


class VGG16(ScaledClassifier):
    """VGG-16, configuration D (Simonyan & Zisserman 2015, table 1), no batch normalisation; 4096 penultimate units.

    A 32 x 32 input leaves the convolutions as 512 x 1 x 1, so the classifier is 512 -> 4096 -> 4096 -> ``classes``
    with dropout 0.5; the 7 x 7 pooling of the ImageNet version would only repeat that one position. Convolutions
    and fully connected layers start as torchvision's: He normal (fan out), and normal with deviation 0.01.
    ``width`` and ``width_multiplier``: see :class:`ScaledClassifier`.
    """

    WIDTH = 4096

    def build(self, channels: int, classes: int) -> None:
        self.convolutions = make_layers([each if isinstance(each, str) else self.scaled(each) for each in cfgs["D"]])
        self.convolutions[0] = nn.Conv2d(channels, self.scaled(64), kernel_size=3, padding=1)
        hidden = self.scaled(4096)
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(self.scaled(512), hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, self.width)
        )
        self.activation = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
        self.final = nn.Linear(self.width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def logits(self, images: Tensor) -> Tensor:
        return self.final(self.activation(self.hidden(self.convolutions(images))))
