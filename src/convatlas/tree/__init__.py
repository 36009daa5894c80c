"""The module tree as the architecture: combinators, leaves, the cost fold, transforms, features, drawing."""

from .combinators import Concat, Gate, Net, Residual, seq
from .cost import Cost, cost
from .fold import Fold, Row, Signal, rule
from .layers import SE, Shuffle, ZeroPad, classifier, conv, conv_act, conv_bn, conv_bn_act

__all__ = [
    "SE",
    "Concat",
    "Cost",
    "Fold",
    "Gate",
    "Net",
    "Residual",
    "Row",
    "Shuffle",
    "Signal",
    "ZeroPad",
    "classifier",
    "conv",
    "conv_act",
    "conv_bn",
    "conv_bn_act",
    "cost",
    "rule",
    "seq",
]
