"""Networks that are not freshly initialised, and files to attack."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from convatlas.data import Preprocess
from convatlas.weights import Bundle
from convatlas.zoo import spec


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The order of additions, and so the last bit, depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def seed() -> int:
    """A fresh seed for `random`, printed if the test fails."""
    seed = random.randrange(2**32)
    random.seed(seed)
    print(f"seed {seed}")
    return seed


def randomise_norms(net: nn.Module) -> nn.Module:
    """Statistics and affine parameters that are not the trivial ones; in eval mode."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean, std=0.2)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.2)
    return net.eval()


@pytest.fixture(scope="session")
def randomised() -> Callable[[nn.Module], nn.Module]:
    return randomise_norms


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    """`make_bundle("resnet20", classes=3)`: a bundle of a network with random weights."""

    def make(name: str, **overrides) -> Bundle:
        torch.manual_seed(0)
        arch = spec(name, **overrides)
        return Bundle(
            spec=arch,
            weights=randomise_norms(arch.build()).state_dict(),
            classes=tuple(f"class {i}" for i in range(arch.classes)),
            preprocess=Preprocess(size=arch.size, resize=arch.size + 4),
            metrics={"val": {"top1": 0.5}, "epochs": [1, 2]},
            recipe={"lr": 0.1, "name": "naïve"},
            source="tests",
            licence="CC0",
        )

    return make


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data and weights kept beside the project, where there are any."""
    folder = Path(__file__).parents[3] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside the project")
    return folder
