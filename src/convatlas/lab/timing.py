"""Times that a noisy machine does not spoil: one thread, processor seconds, the contestants taking turns."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from ..deploy.timing import turns
from .experiment import Finding

TURNS = 9  # at least


@torch.inference_mode()
def race(nets: Mapping[str, nn.Module], images: torch.Tensor, seconds: float = 1.0) -> dict[str, list[float]]:
    """Processor seconds of a forward pass of each network, in eval mode, on images (N, C, H, W), turn by turn."""
    return race_of({name: partial(net.eval(), images) for name, net in nets.items()}, seconds)


def race_of(runs: Mapping[str, Callable[[], object]], seconds: float = 1.0) -> dict[str, list[float]]:
    """Processor seconds of a call of each, turn by turn for about so many seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return turns(runs, seconds, least=TURNS, clock=time.process_time)
    finally:
        torch.set_num_threads(threads)


def times_as_long(what: str, these: Sequence[float], those: Sequence[float], bound: float = 1.0) -> Finding:
    """That these take more than `bound` times as long as those: the median ratio of a turn and its 95 % interval."""
    from scipy import stats

    ratios = [a / b for a, b in zip(these, those, strict=True)]
    reach = stats.quantile_test(ratios, p=0.5).confidence_interval(0.95)
    return Finding(what, statistics.median(ratios), float(reach.low), float(reach.high), bound)
