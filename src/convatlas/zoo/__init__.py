"""The networks, one family a file, and the registry that knows them by name."""

from . import (
    alexnet,
    bn_inception,
    densenet,
    googlenet,
    inception_v2,
    inception_v3,
    mobilenet_v1,
    mobilenet_v2,
    preact_resnet,
    resnet,
    senet,
    shufflenet,
    vgg,
)
from .spec import Arch, create, list_networks, register, spec

__all__ = [
    "Arch",
    "alexnet",
    "bn_inception",
    "create",
    "densenet",
    "googlenet",
    "inception_v2",
    "inception_v3",
    "list_networks",
    "mobilenet_v1",
    "mobilenet_v2",
    "preact_resnet",
    "register",
    "resnet",
    "senet",
    "shufflenet",
    "spec",
    "vgg",
]
