"""The three networks of the study, over one base, and the wrapper of any other."""

from prs_lightning.models.base import ImageClassifier
from prs_lightning.models.building import check_network, network_of
from prs_lightning.models.cnn6 import CNN6
from prs_lightning.models.resnet18 import ResNet18
from prs_lightning.models.vgg16 import VGG16
from prs_lightning.models.wrapped import Wrapped

__all__ = ["CNN6", "VGG16", "ImageClassifier", "ResNet18", "Wrapped", "check_network", "network_of"]
