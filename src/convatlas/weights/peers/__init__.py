"""Other libraries' weights: a table for each family and library."""

from . import (
    alexnet,
    densenet,
    googlenet,
    inception,
    mobilenet,
    preact_resnet,
    resnet,
    senet,
    shufflenet,
    vgg,
)
from .peer import Peer, Unlike, rename

FAMILIES = (alexnet, vgg, googlenet, inception, resnet, preact_resnet, densenet, senet, mobilenet, shufflenet)
PEERS: tuple[Peer, ...] = tuple(peer for family in FAMILIES for peer in family.PEERS)
UNLIKE: tuple[Unlike, ...] = tuple(unlike for family in FAMILIES for unlike in getattr(family, "UNLIKE", ()))
LIBRARIES = tuple(dict.fromkeys(peer.library for peer in PEERS))

__all__ = ["FAMILIES", "LIBRARIES", "PEERS", "UNLIKE", "Peer", "Unlike", "rename"]
