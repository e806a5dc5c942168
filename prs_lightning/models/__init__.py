"""The three networks of the study, over one base."""

from prs_lightning.models.base import ImageClassifier
from prs_lightning.models.cnn6 import CNN6
from prs_lightning.models.resnet18 import ResNet18
from prs_lightning.models.vgg16 import VGG16

__all__ = ["CNN6", "VGG16", "ImageClassifier", "ResNet18"]
