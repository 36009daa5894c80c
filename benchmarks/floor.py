"""What a data set gives away without a network: the largest class, and logistic regression on small pixels.

    python benchmarks/floor.py DATA

The same parts as `convatlas train --data DATA`, measured on the test part.
"""

import sys

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.transforms.v2.functional import resize

from convatlas import open_data

SIDE = 32


def main() -> None:
    splits = open_data(sys.argv[1])
    pixels, labels = {}, {}
    for part in ("train", "test"):
        images = getattr(splits, part)
        small = [resize(images.read(i), [SIDE, SIDE], antialias=True).flatten() for i in range(len(images))]
        pixels[part], labels[part] = torch.stack(small).float().numpy(), images.labels.numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=300))
    model.fit(pixels["train"], labels["train"])
    largest = torch.bincount(splits.train.labels).argmax().item()
    print(f"largest class        {(labels['test'] == largest).mean():.2%}")
    print(f"logistic regression  {model.score(pixels['test'], labels['test']):.2%} on {SIDE}x{SIDE} pixels")


if __name__ == "__main__":
    main()
