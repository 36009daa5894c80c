"""What Inception-v2 and Inception-v3 [arXiv:1512.00567] share: branches, the auxiliary head, how weights begin."""

from collections.abc import Callable

from torch import nn

from ..tree import AvgPoolTo, Concat, Net, batch_norm_eps, conv_bn_act, seq
from . import init


def split(cin: int, cout: int) -> Concat:
    """A 3x3 as 1x3 beside 3x1: an expanded filter bank [Fig. 7].  (N, cin, H, W) -> (N, 2 cout, H, W)."""
    return Concat(row=conv_bn_act(cin, cout, (1, 3)), column=conv_bn_act(cin, cout, (3, 1)))


def average(cin: int, cout: int) -> nn.Sequential:
    """The pooling branch: what lies over the edge counts as zeros.  (N, cin, H, W) -> (N, cout, H, W)."""
    return seq(pool=nn.AvgPool2d(3, 1, 1), proj=conv_bn_act(cin, cout))


def average_inside(net: Net) -> Net:
    """Make all average pools leave out what lies over the edge, as TensorFlow's do."""
    for m in net.modules():
        if isinstance(m, nn.AvgPool2d):
            m.count_include_pad = False
    return net


def aux_head(classes: int, block: Callable[..., nn.Sequential]) -> nn.Sequential:
    """The auxiliary classifier [Fig. 8]: (N, 768, 17, 17) -> (N, classes).

    `block` is its fully connected layer, written as a 5x5 convolution of a 5x5 map: with BatchNorm in Inception-v3.
    """
    return seq(
        pool=AvgPoolTo(5, 3, out=5),
        proj=conv_bn_act(768, 128),
        conv=block(128, 768, 5, padding=0),
        flatten=nn.Flatten(1),
        fc=nn.Linear(768, classes),
    )


def begin(net: Net) -> Net:
    """Fill the weights as the authors' release does: from a normal distribution cut at two standard deviations.

    These are 0.1 for convolutions, 0.01 for the last layer, and in auxiliary heads 0.01 for the 5x5 and 0.001 for the
    last layer [tensorflow/models, inception/slim/inception_model.py and ops.py].  Sets the eps of BatchNorm, too.
    """
    init.truncated(net, 0.1)
    init.truncated(net.get_submodule("head"), 0.01)
    for aux in net.aux.values():
        init.truncated(aux.get_submodule("conv"), 0.01)
        init.truncated(aux.get_submodule("fc"), 0.001)
    return batch_norm_eps(net, 1e-3)
