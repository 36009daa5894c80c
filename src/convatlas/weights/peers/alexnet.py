"""AlexNet elsewhere: the form with one tower and without local response normalisation."""

from ...zoo import Arch
from .peer import Peer, Rules, Unlike


def torchvision(spec: Arch) -> Rules:
    """Torchvision counts the layers of `features` and `classifier`."""
    convolutions, linears = (0, 3, 6, 8, 10), {6: 1, 7: 4, 8: 6}
    return (
        *((rf"stage\d\.conv{n}\.conv", f"features.{i}") for n, i in enumerate(convolutions, 1)),
        *((rf"head\.fc{n}", f"classifier.{i}") for n, i in linears.items()),
    )


def pytorchcv(spec: Arch) -> Rules:
    """Pytorchcv has our stages, and counts their units from 1."""
    return (
        (r"stage([12])\.conv\d\.conv", r"features.stage\1.unit1.conv"),
        *((rf"stage3\.conv{n}\.conv", f"features.stage3.unit{n - 2}.conv") for n in (3, 4, 5)),
        (r"head\.fc([67])", lambda m: f"output.fc{int(m[1]) - 5}.fc"),
        (r"head\.fc8", "output.fc3"),
    )


PEERS = (
    Peer("torchvision", {"alexnet.torchvision": "alexnet"}, torchvision),
    Peer("pytorchcv", {"alexnet.torchvision": "alexnetb"}, pytorchcv),
)
UNLIKE = (
    Unlike("pytorchcv", "alexnet", "alexnet.ungrouped",
           "It normalises with a fifth of the paper's alpha, because PyTorch divides alpha by the window's size."),
)  # fmt: skip
