"""A training step against torchvision's same network: the same weights, images and SGD, turn by turn in one process.

    python benchmarks/train_step.py [--rounds 15]

Prints the median and the range of the ratio of images per second, ours / theirs, over the rounds.
"""

import argparse
import os
import statistics

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torchvision

from convatlas import create

from step import stepper

CASES = [
    ("resnet18.b", "resnet18", 128, 16),
    ("resnet50.v1_5", "resnet50", 128, 8),
    ("vgg11_bn", "vgg11_bn", 64, 8),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds after 2 of warm-up")
    for ours, theirs, size, batch in CASES:
        images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))
        net = create(ours).to(memory_format=torch.channels_last)  # as convatlas trains, and below as its recipe does
        a = stepper(net, images.contiguous(memory_format=torch.channels_last), labels)
        b = stepper(getattr(torchvision.models, theirs)(), images, labels)
        pairs = [(a(), b()) for _ in range(rounds + 2)][2:]
        ratios = sorted(theirs_s / ours_s for ours_s, theirs_s in pairs)
        speed = batch / statistics.median(ours_s for ours_s, _ in pairs)
        print(
            f"{ours:14} {size} px, batch {batch}: {speed:6.1f} images/s, ratio to torchvision "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
