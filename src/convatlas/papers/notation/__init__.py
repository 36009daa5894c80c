"""What the papers' tables would print for our networks, one paper's notation a file."""

from . import resnet, vgg
from .base import NOTATIONS

__all__ = ["NOTATIONS", "resnet", "vgg"]
