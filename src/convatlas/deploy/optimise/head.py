"""The head of most networks: global average pooling and a linear layer."""

from torch import nn

from ...tree import Net, seq
from ...tree.transform import chains


def convolve_head(net: Net) -> Net:
    """Write the linear layer behind a pooling to one pixel as a 1x1 convolution, and flatten behind it.

    ONNX Runtime then stays in its blocked layout, without a copy.
    """
    for chain in chains(net):
        layers = [layer for _, _, layer in chain]
        for i, (owner, name, flatten) in enumerate(chain[:-1]):
            match layers[i - 1], flatten, layers[i + 1]:
                case nn.AdaptiveAvgPool2d(output_size=1), nn.Flatten(), nn.Linear() as fc:
                    conv = nn.Conv2d(fc.in_features, fc.out_features, 1, dtype=fc.weight.dtype)
                    conv.weight.data, conv.bias = fc.weight.data[:, :, None, None], fc.bias
                    delattr(owner, name)
                    last, after, _ = chain[i + 1]
                    last.set_submodule(after, seq(conv=conv, flatten=flatten))
    return net
