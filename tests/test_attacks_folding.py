"""Batch normalisation folded into convolutions: exact enough, or declined."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prs_lightning.attacks import pgd
from prs_lightning.attacks.folding import fold_batch_norm
from tests.attacked import digits, trained

STEP = 2 / 255


def test_folding_batch_norm_keeps_logits_predictions_and_the_network() -> None:
    network, (images, labels) = trained(batch_norm=True), digits(100)
    folded = fold_batch_norm(network, images[:8])
    assert folded is not None
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-4)
        found = pgd(network, images, labels, epsilon=0.05, step_size=STEP, steps=5)
        assert torch.equal(network(found.adversarial).argmax(1) == labels, found.correct_after)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 2


def test_folding_declines_what_it_cannot_do_exactly() -> None:
    images = digits(4)[0]
    convolution, norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = convolution, norm

        def forward(self, images: Tensor) -> Tensor:
            found = self.convolution(images)
            return (self.norm(found) + found).mean((2, 3))

    class Deciding(Branching):
        def forward(self, images: Tensor) -> Tensor:
            found = self.norm(self.convolution(images)).mean((2, 3))
            return found if found.sum() > 0 else -found

    assert fold_batch_norm(Branching().eval(), images) is None
    assert fold_batch_norm(Deciding().eval(), images) is None
    assert fold_batch_norm(trained(), images) is None
