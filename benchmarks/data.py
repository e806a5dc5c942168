"""Reading batches: tensors sliced on the device against torchvision's dataset behind a DataLoader.

Both give normalised float32 batches of the same size from the same digits, once through the data set.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import VisionDataset

from benchmarks.harness import interleaved_medians, table, write_section
from prs_lightning.data import Split, TrainingBatches, load

BATCH_SIZE = 128
MEAN, STD = 0.1307, 0.3081


class Digits(VisionDataset):
    """As torchvision.datasets.MNIST: a uint8 tensor in memory, a PIL image and a transform for each sample."""

    def __init__(self, split: Split) -> None:
        normalise = [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
        super().__init__("", transform=transforms.Compose(normalise))
        self.split = split

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.split.images[index, 0].numpy(), mode="L")
        return self.transform(image), int(self.split.labels[index])


def main() -> None:
    digits, _ = load("mnist5k", "data")
    # 60,000 images, as many as MNIST has.
    split = Split(digits.images.repeat(15, 1, 1, 1), digits.labels.repeat(15))
    loader = DataLoader(Digits(split), batch_size=BATCH_SIZE, shuffle=True, num_workers=2)
    batches = TrainingBatches(split, BATCH_SIZE, seed=0)

    def read_ours() -> int:
        return sum(len((images - MEAN) / STD) for images, _ in batches)

    def read_torchvision() -> int:
        return sum(len(images) for images, _ in loader)

    seconds = interleaved_medians({"ours": read_ours, "torchvision": read_torchvision}, repeats=3)
    count = len(split.labels)
    rows = [
        ("prs_lightning.data.TrainingBatches", f"{count / seconds['ours']:,.0f}", "1"),
        (
            "torchvision, ToTensor, Normalize, DataLoader with 2 workers",
            f"{count / seconds['torchvision']:,.0f}",
            f"1 / {seconds['torchvision'] / seconds['ours']:.1f}",
        ),
    ]
    how = f"{count:,} images of 1 x 32 x 32, shuffled, batches of {BATCH_SIZE}; median of 3 passes, taken in turns."
    write_section(
        "Reading batches",
        f"{how}\n\n" + table(("reader", "images per second", "ratio"), rows),
        command="python -m benchmarks.data",
        packages=("torch", "torchvision"),
    )


if __name__ == "__main__":
    main()
