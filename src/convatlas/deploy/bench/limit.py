"""What this machine can do at most, measured, and how long a network must take on it at least."""

import statistics
import time
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from ...tree import cost
from ...zoo import Arch
from ..timing import turns

MATRIX, CHANNELS, SIDE = 1024, 256, 28  # of the product and the convolution that are timed
COPY = 1 << 26  # bytes, more than the caches hold
BYTES = 4  # of a float32


@dataclass(frozen=True)
class Limit:
    """Multiply-accumulates and bytes a second: the better of a matrix product and a 3x3 convolution, and a copy."""

    product: float
    convolution: float
    bandwidth: float

    @property
    def macs(self) -> float:
        """The rate that counts."""
        return max(self.product, self.convolution)

    def seconds(self, arch: Arch, batch: int) -> float:
        """The least time for a batch: of every convolution and linear layer the multiply-accumulates, or its weights
        once and its output, whichever takes longer.  What lies between them is counted as free.
        """
        rows = [row for row in cost(arch.skeleton(), arch.size, arch.in_channels).rows if row.macs]
        outputs = (batch * row.shape[0] * row.shape[1] * row.shape[2] for row in rows)
        return sum(
            max(batch * row.macs / self.macs, BYTES * (row.weights + out) / self.bandwidth)
            for row, out in zip(rows, outputs, strict=True)
        )


@torch.inference_mode()
def measure(seconds: float = 1.0) -> Limit:
    """The limits of this machine with as many threads as PyTorch has now."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    x = torch.randn(1, CHANNELS, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    w = torch.randn(CHANNELS, CHANNELS, 3, 3).contiguous(memory_format=torch.channels_last)
    source, target = torch.zeros(COPY // BYTES), torch.zeros(COPY // BYTES)
    runs = {
        "product": partial(torch.mm, a, b),
        "convolution": partial(F.conv2d, x, w, padding=1),
        "copy": partial(target.copy_, source),
    }
    work = {"product": MATRIX**3, "convolution": SIDE**2 * CHANNELS**2 * 9, "copy": 2 * COPY}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken = turns(runs, seconds, least=9, clock=clock)
    rates = {name: work[name] / statistics.quantiles(times, n=10)[0] for name, times in taken.items()}
    return Limit(rates["product"], rates["convolution"], rates["copy"])
