"""One network of each form: the others differ from these in depth, in width or in a single switch."""

import re
from collections.abc import Callable

import pytest

from convatlas.zoo import list_networks

FORMS = (
    *("alexnet.cifar", "vgg11_bn.cifar", "googlenet.cifar", "googlenet.bn", "bn_inception.cifar"),
    *("inception_v2.serial", "inception_v3.cifar", "resnet20", "resnet20.b", "plain20", "resnet50", "resnext50_32x4d"),
    *("preact_resnet50", "preact_resnet110", "densenet40_k12", "densenet_bc100_k12.dropout"),
    *("mobilenet_v1.x0_25", "mobilenet_v1.keras", "mobilenet_v2.x0_35", "mobilenet_v2.expansions"),
    *("shufflenet.g1", "shufflenet.g3.x0_25", "shufflenet.g8.x0_25", "se_shufflenet.g3"),
    *("se_resnet20", "se_resnet50.pre", "se_resnet50.no_squeeze"),
)

DEEP = re.compile("101|152|154|161|164|169|190|200|201|250|264|1001|1202")


def but_slow(slow: Callable[[str], bool]) -> pytest.MarkDecorator:
    """A test of every network, the slow ones only in `make test-slow`."""
    names = [pytest.param(n, marks=pytest.mark.slow) if slow(n) else n for n in list_networks()]
    return pytest.mark.parametrize("name", names)


every_form = but_slow(lambda name: name not in FORMS)
but_the_deep = but_slow(lambda name: DEEP.search(name) is not None)  # the units of other networks, more of them
