"""A fault of oneDNN, which computes PyTorch's convolutions on a CPU, and the way round it."""

from functools import partial

from torch import Tensor, nn

NARROW = 16  # channels: fewer than a register of AVX-512 holds


def spare_narrow_strides(net: nn.Module) -> None:
    """Let 1x1 convolutions with a stride and few channels compute without one, on every stride-th pixel: the same sums.

    oneDNN's gradient of such weights, channels last, writes past its workspace: with more than one thread the process
    crashes or hangs in the middle of a step [uxlfoundation/oneDNN#6035; seen with torch 2.14.1].
    """
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels // m.groups < NARROW]
    for m in convs:
        if m.kernel_size == (1, 1) and m.stride != (1, 1):
            m.register_forward_pre_hook(partial(_every, stride=m.stride))
            m.stride = (1, 1)


def _every(conv: nn.Module, inputs: tuple[Tensor], stride: tuple[int, ...]) -> Tensor:
    return inputs[0][:, :, :: stride[0], :: stride[1]]
