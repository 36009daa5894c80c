"""The notation of BN-Inception's Fig. 5 and appendix."""

from torch import nn

from ...zoo import spec
from ..built import Built, built
from .base import notation
from .googlenet import convolutions


@notation("BN-Inception module", "channels", "widths as in BN-Inception's Fig. 5")
def bn_inception_module(net: Built, part: str) -> str:
    """`#1x1 64; #3x3red 64; #3x3 64; dbl3x3red 64; dbl3x3 96; avg pool proj 32; stride 1` [Fig. 5]."""
    branch = {name: [conv.out_channels for conv in convs] for name, convs in convolutions(net, part).items()}
    (one,), (reduce, three), (reduce_double, *double) = branch.get("one", [0]), branch["three"], branch["double3x3"]
    pool = net.net.get_submodule(f"{part}.pool.pool")
    kind = "max" if isinstance(pool, nn.MaxPool2d) else "avg"
    words = [
        f"#1x1 {one}; #3x3red {reduce}; #3x3 {three}; dbl3x3red {reduce_double}",
        f"dbl3x3 {'+'.join(map(str, dict.fromkeys(double)))}",
        f"{kind} pool proj {branch['pool'][0]}" if "pool" in branch else f"{kind} pass-through",
        f"stride {pool.stride}",
    ]
    return "; ".join(words)


@notation("widest double 3x3", "text", "filters of the widest double 3x3")
def widest_double(net: Built, part: str) -> str:
    """`up to 256`."""
    modules = [name for name in net.net.parts if name.startswith("inception")]
    return f"up to {max(conv.out_channels for m in modules for conv in convolutions(net, m)['double3x3'][1:])}"


@notation("params over GoogLeNet's", "claim", "parameters compared with GoogLeNet's")
def params_over_googlenet(net: Built, part: str) -> str:
    """`+60`, in percent."""
    return _over(net.cost.params, _googlenet(net).cost.params)


@notation("MACs over GoogLeNet's", "claim", "MACs compared with GoogLeNet's")
def macs_over_googlenet(net: Built, part: str) -> str:
    """`+29`, in percent."""
    return _over(net.cost.macs, _googlenet(net).cost.macs)


def _googlenet(net: Built) -> Built:
    """GoogLeNet with the same stem."""
    return built(spec("googlenet", stem=net.spec.to_dict()["stem"]))


def _over(ours: int, theirs: int) -> str:
    return f"{100 * (ours / theirs - 1):+.0f}"
