"""The networks, one family a file, and the registry that knows them by name."""

from . import resnet, vgg
from .spec import Arch, create, list_networks, register, spec

__all__ = ["Arch", "create", "list_networks", "register", "resnet", "spec", "vgg"]
