"""Inception-v2 [arXiv:1512.00567, Sec. 6]: the network of the paper's Table 1, with its three kinds of modules.

    35x35:  5x5 as two 3x3                       [Fig. 5]
    17x17:  n x n as 1xn and nx1, n = 7          [Fig. 6]
    8x8:    3x3 as 1x3 beside 3x1                [Fig. 7]

The grid is halved by convolution and pooling side by side [Fig. 10].  (BN-Inception [arXiv:1502.03167], which others
also call Inception-v2, is another network.)

Table 1 prints what enters each row.  The widths inside the modules are not in the paper: they are a reconstruction of
ours.  The branches put out what they do in the released Inception-v3, and their inner convolutions have 32 channels on
the 35x35 grid, 64 on 17x17, 128 on 8x8: the widths that double from grid to grid and come to the printed 3.8 G
multiply-adds (3,753,561,184).
"""

from dataclasses import dataclass, replace

from torch import nn

from ..tree import Concat, Net, classifier, conv_act, conv_bn_act, seq
from .inception import aux_head, average, begin, split
from .spec import Arch, family, register


@family
@dataclass(frozen=True, kw_only=True)
class InceptionV2(Arch):
    """`serial` puts 3x1 behind 1x3 in the 8x8 modules [Fig. 3], instead of beside it [Fig. 7].

    The least image has 75 pixels.
    """

    SE_AT = "mixed*"

    serial: bool = False

    def assemble(self) -> Net:
        """Weights begin as in the release of Inception-v3; the auxiliary head has no BatchNorm on its 5x5."""
        parts = {
            "stem": stem(self.in_channels),
            **{f"mixed5{x}": module35(inner=32) for x in "bcd"},
            "mixed6a": reduction(288, 32, three=384, threes=96),
            **{f"mixed6{x}": module17(inner=64) for x in "bcdef"},
            "mixed7a": reduction(768, 64, three=320, threes=192),
            "mixed7b": module8(1280, inner=128, serial=self.serial),
            "mixed7c": module8(2048, inner=128, serial=self.serial),
            "head": classifier(2048, self.classes, dropout=0.2),
        }
        return begin(Net(parts, {"mixed6f": aux_head(self.classes, conv_act)}))


def stem(cin: int) -> nn.Sequential:
    """The first seven rows of Table 1: (N, cin, 299, 299) -> (N, 288, 35, 35).

    The last convolution is padded, as the map after it says; the table does not mark it.
    """
    return seq(
        conv1=conv_bn_act(cin, 32, 3, stride=2, padding=0),
        conv2=conv_bn_act(32, 32, 3, padding=0),
        conv3=conv_bn_act(32, 64, 3),
        pool=nn.MaxPool2d(3, 2),
        conv4=conv_bn_act(64, 80, 3, padding=0),
        conv5=conv_bn_act(80, 192, 3, stride=2, padding=0),
        conv6=conv_bn_act(192, 288, 3),
    )


def module35(inner: int) -> Concat:
    """(N, 288, 35, 35) -> (N, 288, 35, 35)."""
    return Concat(
        one=conv_bn_act(288, 64),
        three=seq(reduce=conv_bn_act(288, inner), conv=conv_bn_act(inner, 64, 3)),
        threes=seq(reduce=conv_bn_act(288, inner), conv1=conv_bn_act(inner, 96, 3), conv2=conv_bn_act(96, 96, 3)),
        pool=average(288, 64),
    )


def module17(inner: int) -> Concat:
    """(N, 768, 17, 17) -> (N, 768, 17, 17)."""
    return Concat(
        one=conv_bn_act(768, 192),
        seven=seq(reduce=conv_bn_act(768, inner), conv=row_column(inner, 192, 7)),
        sevens=seq(reduce=conv_bn_act(768, inner), conv1=row_column(inner, inner, 7), conv2=row_column(inner, 192, 7)),
        pool=average(768, 192),
    )


def module8(cin: int, inner: int, serial: bool) -> Concat:
    """(N, cin, 8, 8) -> (N, 2048, 8, 8)."""
    return Concat(
        one=conv_bn_act(cin, 320),
        three=seq(reduce=conv_bn_act(cin, inner), conv=factorised(inner, 768, serial)),
        threes=seq(
            reduce=conv_bn_act(cin, inner),
            conv1=conv_bn_act(inner, inner, 3),
            conv2=factorised(inner, 768, serial),
        ),
        pool=average(cin, 192),
    )


def reduction(cin: int, inner: int, three: int, threes: int) -> Concat:
    """(N, cin, H, W) -> (N, cin + three + threes, (H - 1) // 2, (W - 1) // 2) [Fig. 10]."""
    return Concat(
        three=seq(reduce=conv_bn_act(cin, inner), conv=conv_bn_act(inner, three, 3, stride=2, padding=0)),
        threes=seq(
            reduce=conv_bn_act(cin, inner),
            conv1=conv_bn_act(inner, threes, 3),
            conv2=conv_bn_act(threes, threes, 3, stride=2, padding=0),
        ),
        pool=nn.MaxPool2d(3, 2),
    )


def factorised(cin: int, cout: int, serial: bool) -> nn.Module:
    """A 3x3 as 1x3 and 3x1, one behind or one beside the other: (N, cin, H, W) -> (N, cout, H, W)."""
    return row_column(cin, cout, 3) if serial else split(cin, cout // 2)


def row_column(cin: int, cout: int, n: int) -> nn.Sequential:
    """An n x n as 1xn and nx1: (N, cin, H, W) -> (N, cout, H, W)."""
    return seq(row=conv_bn_act(cin, cin, (1, n)), column=conv_bn_act(cin, cout, (n, 1)))


V2 = InceptionV2(name="inception_v2", paper="arXiv:1512.00567", use="photos; the paper's Table 1", size=299)
register(V2, replace(V2, name="inception_v2.serial", use="to compare: 3x1 behind 1x3, not beside it", serial=True))
