"""Your own LightningModule, measured after every epoch: python examples/own_module.py"""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

from prs_lightning.callbacks import CosineSimilarity, Regions, Robustness, Scores, Sparsity


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head = torch.nn.Linear(64, 128), torch.nn.Linear(128, 32), torch.nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.fc2(F.relu(self.fc1(images.flatten(1))))))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


digits = load_digits()
images = TensorDataset(torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target))
train, val, test = random_split(images, [1200, 197, 400], generator=torch.Generator().manual_seed(0))
measures = [Scores(), Regions(), CosineSimilarity(), Sparsity(), Robustness(epsilon=0.1, step_size=0.02, test=test)]
trainer = pl.Trainer(max_epochs=3, callbacks=measures, logger=False, enable_checkpointing=False)
trainer.fit(Classifier(), DataLoader(train, batch_size=32, shuffle=True), DataLoader(val, batch_size=200))
for name, value in sorted(trainer.callback_metrics.items()):
    print(f"{name:32} {value:.4f}")
