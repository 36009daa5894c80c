"""A job whose processes each keep a part of the weights, their gradients and the optimizer's state (FSDP2)."""

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ..errors import ConfigError
from ..tree import Net
from .distributed import Ranks, whole
from .recipe import Recipe


class Shards(Ranks):
    """The processes of torch's default process group; weights are together only while they are computed with."""

    def __init__(self, device: str):
        super().__init__()
        self.mesh = init_device_mesh(torch.device(device).type, (self.size,))

    def wrap(self, net: nn.Module) -> nn.Module:
        """`net` itself, each of its parts in pieces.  FSDP2 has no other layout of weights than the contiguous one."""
        self.skeleton = copy.deepcopy(net).to("meta")
        net.to(memory_format=torch.contiguous_format)
        assert isinstance(net, Net)
        for name in net.parts:
            fully_shard(net.get_submodule(name), mesh=self.mesh)
        fully_shard(net, mesh=self.mesh)
        return net

    def gathering(self, model: nn.Module, last: bool) -> AbstractContextManager[object]:
        """Nothing: there is one part only."""
        return nullcontext()

    def in_one_piece(self, net: nn.Module) -> nn.Module:
        """A copy; all processes must ask for it together."""
        device = next(net.parameters()).device
        copied = copy.deepcopy(self.skeleton).to_empty(device=device)
        copied.load_state_dict(whole(net.state_dict()))
        return copied


def refuse_what_cannot_be_sharded(recipe: Recipe) -> None:
    """Raise ConfigError L4 for an average of the weights, of which FSDP2 makes no copy, and for steps in parts."""
    for name in ("ema", "polyak"):
        if getattr(recipe, name):
            raise ConfigError("L4", f"--shard keeps no average of the weights, but {name} asks for one", f"--{name} 0")
    if recipe.accumulate > 1:
        raise ConfigError("L4", "--shard and --accumulate do not go together", "--accumulate 1")
