"""Inception-v3 [arXiv:1512.00567], as its authors released it: large kernels replaced by several small ones.

    35x35:  one 5x5 kept, the other as two 3x3      [Fig. 4 and 5]
    17x17:  7x7 as 1x7 and 7x1                      [Fig. 6]
    8x8:    3x3 as 1x3 beside 3x1                   [Fig. 7]

The paper leaves the widths to its supplement; they are here those of the release (TensorFlow Slim), which torchvision,
timm and Keras carry.  Every convolution is followed by BatchNorm (eps 1e-3) and ReLU.
"""

from dataclasses import dataclass, replace

from torch import nn

from ..tree import Concat, Net, classifier, conv_bn_act, seq
from .inception import aux_head, average, average_inside, begin, split
from .spec import Arch, family, register


@family
@dataclass(frozen=True, kw_only=True)
class InceptionV3(Arch):
    """`aux` hangs the batch-normalised auxiliary classifier on the last 17x17 module [Fig. 8].

    `stem` is "imagenet" (down to 35x35, unpadded; 75 pixels are the least) or "cifar" (the same convolutions at the
    size of the image, and all convolutions padded, so that the grids are 32x32, 16x16 and 8x8).  `tensorflow` is the
    form of keras.applications: average pools leave out what lies over the edge, where others count zeros.
    """

    SE_AT = "mixed*"

    aux: bool = True
    stem: str = "imagenet"
    tensorflow: bool = False

    def assemble(self) -> Net:
        """Weights begin as in the release: see `inception.begin`."""
        pad = 0 if self.stem == "imagenet" else 1
        parts = {
            "stem": stem(self.in_channels, small=self.stem == "cifar"),
            "mixed5b": module35(192, pool=32),
            "mixed5c": module35(256, pool=64),
            "mixed5d": module35(288, pool=64),
            "mixed6a": reduction35(pad),
            "mixed6b": module17(128),
            "mixed6c": module17(160),
            "mixed6d": module17(160),
            "mixed6e": module17(192),
            "mixed7a": reduction17(pad),
            "mixed7b": module8(1280),
            "mixed7c": module8(2048),
            "head": classifier(2048, self.classes, dropout=0.2),
        }
        aux = {"mixed6e": aux_head(self.classes, conv_bn_act)} if self.aux else {}
        net = begin(Net(parts, aux))
        return average_inside(net) if self.tensorflow else net


def stem(cin: int, small: bool) -> nn.Sequential:
    """(N, cin, 299, 299) -> (N, 192, 35, 35), or `small` at the size of the image."""
    stride, pad = (1, 1) if small else (2, 0)
    return seq(
        conv1=conv_bn_act(cin, 32, 3, stride=stride, padding=pad),
        conv2=conv_bn_act(32, 32, 3, padding=pad),
        conv3=conv_bn_act(32, 64, 3),
        pool1=None if small else nn.MaxPool2d(3, 2),
        conv4=conv_bn_act(64, 80, 1),
        conv5=conv_bn_act(80, 192, 3, padding=pad),
        pool2=None if small else nn.MaxPool2d(3, 2),
    )


def module35(cin: int, pool: int) -> Concat:
    """(N, cin, 35, 35) -> (N, 224 + pool, 35, 35)."""
    return Concat(
        one=conv_bn_act(cin, 64),
        five=seq(reduce=conv_bn_act(cin, 48), conv=conv_bn_act(48, 64, 5)),
        threes=seq(reduce=conv_bn_act(cin, 64), conv1=conv_bn_act(64, 96, 3), conv2=conv_bn_act(96, 96, 3)),
        pool=average(cin, pool),
    )


def reduction35(pad: int) -> Concat:
    """(N, 288, 35, 35) -> (N, 768, 17, 17) [Fig. 10]."""
    return Concat(
        three=conv_bn_act(288, 384, 3, stride=2, padding=pad),
        threes=seq(
            reduce=conv_bn_act(288, 64),
            conv1=conv_bn_act(64, 96, 3),
            conv2=conv_bn_act(96, 96, 3, stride=2, padding=pad),
        ),
        pool=nn.MaxPool2d(3, 2, pad),
    )


def module17(inner: int) -> Concat:
    """(N, 768, 17, 17) -> (N, 768, 17, 17)."""
    return Concat(
        one=conv_bn_act(768, 192),
        seven=seq(
            reduce=conv_bn_act(768, inner),
            row=conv_bn_act(inner, inner, (1, 7)),
            column=conv_bn_act(inner, 192, (7, 1)),
        ),
        sevens=seq(
            reduce=conv_bn_act(768, inner),
            column1=conv_bn_act(inner, inner, (7, 1)),
            row1=conv_bn_act(inner, inner, (1, 7)),
            column2=conv_bn_act(inner, inner, (7, 1)),
            row2=conv_bn_act(inner, 192, (1, 7)),
        ),
        pool=average(768, 192),
    )


def reduction17(pad: int) -> Concat:
    """(N, 768, 17, 17) -> (N, 1280, 8, 8)."""
    return Concat(
        three=seq(reduce=conv_bn_act(768, 192), conv=conv_bn_act(192, 320, 3, stride=2, padding=pad)),
        seven=seq(
            reduce=conv_bn_act(768, 192),
            row=conv_bn_act(192, 192, (1, 7)),
            column=conv_bn_act(192, 192, (7, 1)),
            conv=conv_bn_act(192, 192, 3, stride=2, padding=pad),
        ),
        pool=nn.MaxPool2d(3, 2, pad),
    )


def module8(cin: int) -> Concat:
    """(N, cin, 8, 8) -> (N, 2048, 8, 8)."""
    return Concat(
        one=conv_bn_act(cin, 320),
        three=seq(reduce=conv_bn_act(cin, 384), split=split(384, 384)),
        threes=seq(reduce=conv_bn_act(cin, 448), conv=conv_bn_act(448, 384, 3), split=split(384, 384)),
        pool=average(cin, 192),
    )


V3 = InceptionV3(name="inception_v3", paper="arXiv:1512.00567", use="photos; the released network", size=299)
register(
    V3,
    replace(V3, name="inception_v3.keras", use="photos; as keras.applications", aux=False, tensorflow=True),
    replace(V3, name="inception_v3.cifar", use="small images, 32x32", aux=False, stem="cifar", classes=10, size=32),
)
