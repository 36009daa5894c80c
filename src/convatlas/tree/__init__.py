"""The module tree as the architecture: combinators, leaves, the cost fold, transforms, features, drawing."""

from .combinators import Concat, Gate, Highway, Net, Residual, seq
from .cost import Cost, cost
from .draw import draw
from .features import Features, features
from .fold import Fold, Row, Signal, rule
from .layers import (
    SE,
    AvgPoolTo,
    SamePad,
    Scale,
    Shuffle,
    ZeroPad,
    bn_act_conv,
    classifier,
    conv,
    conv_act,
    conv_bn,
    conv_bn_act,
    local_response_norm,
)
from .recompute import recompute
from .transform import (
    batch_norm_eps,
    find,
    fold_batch_norm,
    freeze,
    insert_se,
    replace_head,
    same_padding,
    set_in_channels,
)

__all__ = [
    "SE",
    "AvgPoolTo",
    "Concat",
    "Cost",
    "Features",
    "Fold",
    "Gate",
    "Highway",
    "Net",
    "Residual",
    "Row",
    "SamePad",
    "Scale",
    "Shuffle",
    "Signal",
    "ZeroPad",
    "batch_norm_eps",
    "bn_act_conv",
    "classifier",
    "conv",
    "conv_act",
    "conv_bn",
    "conv_bn_act",
    "cost",
    "draw",
    "features",
    "find",
    "fold_batch_norm",
    "freeze",
    "insert_se",
    "local_response_norm",
    "recompute",
    "replace_head",
    "rule",
    "same_padding",
    "seq",
    "set_in_channels",
]
