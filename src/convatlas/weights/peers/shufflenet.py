"""ShuffleNet elsewhere."""

import re

from ...zoo import Arch
from .peer import Peer, Rules, Unlike

LAYERS = {"conv1": "compress", "conv2": "dw", "conv3": "expand"}


def pytorchcv(spec: Arch) -> Rules:
    """Pytorchcv counts stages and units from 1, and calls the layers by what they do."""

    def layer(m: re.Match[str]) -> str:
        stage, unit, name, kind = m.groups()
        last = f"{'bn' if kind == 'norm' else 'conv'}{name[-1]}"
        return f"features.stage{int(stage) - 1}.unit{int(unit) + 1}.{LAYERS[name]}_{last}"

    return (
        (r"stem\.conv", "features.init_block.conv"),
        (r"stem\.norm", "features.init_block.bn"),
        (r"stage(\d)\.(\d)\.(?:mix|res)\.body\.(\w+)\.(conv|norm)", layer),
        (r"head\.fc", "output"),
    )


PEERS = (
    Peer("pytorchcv",
         {f"shufflenet.g{g}": f"shufflenet_g{g}_w1" for g in (1, 2, 3, 4, 8)}
         | {f"shufflenet.g{g}.x0_5": f"shufflenet_g{g}_wd2" for g in (1, 3)},
         pytorchcv),
)  # fmt: skip
UNLIKE = tuple(
    Unlike("pytorchcv", f"shufflenet_g{g}_wd4", f"shufflenet.g{g}.x0_25",
           "Its first convolution has 6 channels; the paper's complexities come out with 12.")
    for g in (1, 3)
)  # fmt: skip
