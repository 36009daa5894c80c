"""What the papers' tables would print for our networks, one paper's notation a file."""

from . import (
    alexnet,
    bn_inception,
    densenet,
    googlenet,
    inception_v3,
    mobilenet_v1,
    mobilenet_v2,
    resnet,
    senet,
    shufflenet,
    vgg,
)
from .base import NOTATIONS

__all__ = [
    "NOTATIONS",
    "alexnet",
    "bn_inception",
    "densenet",
    "googlenet",
    "inception_v3",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet",
    "senet",
    "shufflenet",
    "vgg",
]
