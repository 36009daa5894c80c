"""AlexNet [NIPS 2012]: five convolutions and three fully connected layers, the network that won ILSVRC-2012.

The convolutions 2, 4 and 5 are in two groups, because the network was trained on two GPUs: a layer in groups sees only
the channels on its own GPU [Sec. 3.2, 3.5].
"""

from dataclasses import dataclass, replace

from torch import nn

from ..tree import Net, conv_act, local_response_norm, seq
from . import init
from .spec import Arch, family, register


@family
@dataclass(frozen=True, kw_only=True)
class AlexNet(Arch):
    """`widths` are the channels of the five convolutions, `groups` the groups of the second, fourth and fifth.

    An image of another size is pooled to the map that the first fully connected layer takes.  `port` is the form that
    Torch made of the author's later network and torchvision took over: without local response normalisation, conv1
    padded by 2 (for 224 pixels), dropout before the hidden layers and not behind them.  `small` is the form for 32x32:
    conv1 5x5/1, poolings padded by 1, and hidden layers of 1024 units on a 4x4 map.
    """

    SE_AT = "stage*.conv*"

    widths: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256)
    groups: int = 2
    port: bool = False
    small: bool = False

    def assemble(self) -> Net:
        """Weights begin as N(0, 0.01^2), biases 1 where the paper says so [Sec. 5]: "positive inputs" for the ReLUs.

        In the small form, where that stands still for more than a thousand steps, they begin as Glorot's, biases 0.
        """
        c1, c2, c3, c4, c5 = self.widths
        k, stride, padding = (5, 1, 2) if self.small else (11, 4, 2 if self.port else 0)
        parts = {
            "stage1": seq(
                conv1=conv_act(self.in_channels, c1, k, stride=stride, padding=padding),
                lrn1=self.norm(),
                pool1=self.pool(),
            ),
            "stage2": seq(
                conv2=conv_act(c1, c2, 5, groups=self.groups),
                lrn2=self.norm(),
                pool2=self.pool(),
            ),
            "stage3": seq(
                conv3=conv_act(c2, c3, 3),
                conv4=conv_act(c3, c4, 3, groups=self.groups),
                conv5=conv_act(c4, c5, 3, groups=self.groups),
                pool5=self.pool(),
            ),
            "head": self.head(c5),
        }
        if self.small:
            return init.glorot(Net(parts))
        net = init.gaussian(Net(parts), 0.01)
        for name in ("stage2.conv2.conv", "stage3.conv4.conv", "stage3.conv5.conv", "head.fc6", "head.fc7"):
            nn.init.ones_(net.get_submodule(name).get_parameter("bias"))
        return net

    def norm(self) -> nn.Module | None:
        """Behind the ReLU of the first two convolutions [Sec. 3.3]."""
        return None if self.port else local_response_norm()

    def pool(self) -> nn.Module:
        """Overlapping: windows of 3, two pixels apart [Sec. 3.4]."""
        return nn.MaxPool2d(3, 2, padding=1 if self.small else 0)

    def head(self, c: int) -> nn.Sequential:
        """Three fully connected layers, dropout 0.5 on the hidden ones [Sec. 4.2]: (N, c, H, W) -> (N, classes)."""
        side, hidden = (4, 1024) if self.small else (6, 4096)
        return seq(
            pool=nn.AdaptiveAvgPool2d(side),
            flatten=nn.Flatten(1),
            drop5=nn.Dropout(0.5) if self.port else None,
            fc6=nn.Linear(c * side * side, hidden),
            act6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(0.5),
            fc7=nn.Linear(hidden, hidden),
            act7=nn.ReLU(inplace=True),
            drop7=None if self.port else nn.Dropout(0.5),
            fc8=nn.Linear(hidden, self.classes),
        )


ALEXNET = AlexNet(name="alexnet", paper="NIPS 2012", use="photos; the network that began it all", size=227)
UNGROUPED = replace(ALEXNET, name="alexnet.ungrouped", use="to see what the two groups cost and save", groups=1)
ONE_TOWER = replace(
    UNGROUPED,
    name="alexnet.owt",
    paper="arXiv:1404.5997",
    use="photos; the author's later network, for one GPU",
    widths=(64, 192, 384, 256, 256),
)
TORCHVISION = replace(ONE_TOWER, name="alexnet.torchvision", use="photos; as torchvision", port=True, size=224)
CIFAR = replace(ALEXNET, name="alexnet.cifar", use="small images, 32x32", small=True, classes=10, size=32)
register(ALEXNET, UNGROUPED, ONE_TOWER, TORCHVISION, CIFAR)
