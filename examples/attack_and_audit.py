"""Attack any torch network, and audit what the attack says, without a Trainer: python examples/attack_and_audit.py"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from prs_lightning.attacks import pgd, robustness_curve
from prs_lightning.audit import audit
from prs_lightning.regions import measure

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]  # in [0, 1]: epsilon is in these units
labels = torch.tensor(digits.target)
network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
for _ in range(8):
    for rows in torch.randperm(1400).split(50):
        optimizer.zero_grad()
        F.cross_entropy(network(images[rows]), labels[rows]).backward()
        optimizer.step()
network.eval()
test = images[1400:], labels[1400:]

print("regions:", measure(network, images[:1400].split(200), layer="3"))
result = pgd(network, *test, epsilon=0.1, step_size=0.02, steps=20)
print(f"robust accuracy under PGD-20: {result.robust_accuracy:.3f}")
print("at epsilon 0, 0.05, 0.1, 0.2:", robustness_curve(network, *test, pgd, [0, 0.05, 0.1, 0.2]))
print(audit(network, *test, epsilon=0.1, step_size=0.02, square_steps=50))
