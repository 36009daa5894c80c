"""A training step against torchvision's same network: the same weights, images and SGD, turn by turn in one process.

    python benchmarks/train_step.py [--rounds 15]

Prints the median and the range of the ratio of images per second, ours / theirs, over the rounds.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torchvision

from convatlas import create

CASES = [
    ("resnet18.b", "resnet18", 128, 16),
    ("resnet50.v1_5", "resnet50", 128, 8),
    ("vgg11_bn", "vgg11_bn", 64, 8),
]


def stepper(net: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, memory_format: torch.memory_format):
    net = net.train().to(memory_format=memory_format)
    images = images.contiguous(memory_format=memory_format)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def step() -> float:
        started = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - started

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds after 2 of warm-up")
    for ours, theirs, size, batch in CASES:
        images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))
        a = stepper(create(ours), images, labels, torch.channels_last)  # as convatlas trains
        b = stepper(
            getattr(torchvision.models, theirs)(), images, labels, torch.contiguous_format
        )  # as its recipe does
        pairs = [(a(), b()) for _ in range(rounds + 2)][2:]
        ratios = sorted(theirs_s / ours_s for ours_s, theirs_s in pairs)
        speed = batch / statistics.median(ours_s for ours_s, _ in pairs)
        print(
            f"{ours:14} {size} px, batch {batch}: {speed:6.1f} images/s, ratio to torchvision "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
