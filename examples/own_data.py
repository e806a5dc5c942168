"""A folder of images and a network of your own, trained and measured by the command: python examples/own_data.py"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from prs_lightning.train import main


class Small(nn.Module):
    """Takes images in [0, 1]; normalisation is put around it."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, 64))
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).relu())


if __name__ == "__main__":
    digits = load_digits()
    with TemporaryDirectory() as folder:
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            file = Path(folder, "train" if number < 1400 else "test", str(label), f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15).astype("uint8")).save(file)
        command = f"data=folder data.root={folder} data.name=my_digits data.size=8 model._target_=own_data.Small"
        command += " +model.width=16 epochs=2 grid_epochs=[2] data.epsilon=0.1 callbacks.robustness.limit=100"
        sys.argv[1:] = [*command.split(), f"runs={folder}/runs", "logger=csv", *sys.argv[1:]]
        main()
