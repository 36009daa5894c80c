"""Images that are the same, or look the same, found from a few bytes of each."""

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from .preprocess import luma

GRID = 16  # cells a side
NEAR = 16  # bits of the GRID * GRID; on flower photos: 1 pair of 1,030,330 different ones, 98 % of JPEGs saved at 50 %
REACH = 64
SMALLEST = 32  # px; smaller images have too little in them to tell likeness from chance


def likeness(image: Tensor) -> np.ndarray:
    """The difference hash of uint8 (3, H, W) as 32 bytes: in a 16 x 17 miniature, whether each cell outshines its left.

    Re-encoding, resizing and a change of contrast or brightness hardly change it; crops, mirroring and turning do.
    [Krawetz, "Kind of Like That", 2013]
    """
    miniature = luma(F.resize(image, [GRID, GRID + 1], antialias=True))[0]
    return np.packbits((miniature[:, 1:] > miniature[:, :-1]).numpy())


def equal(digests: np.ndarray) -> list[list[int]]:
    """The rows of uint8 (n, bytes) that are there more than once, a list for each, in the order of their first."""
    if not len(digests):
        return []
    return _groups(np.unique(digests, axis=0, return_inverse=True)[1].tolist())


def near(hashes: np.ndarray, most: int = NEAR) -> list[list[int]]:
    """The rows of uint8 (n, bytes) that are linked by pairs which differ in at most `most` bits, as `equal` does.

    Cut into `most` + 1 pieces, two such rows agree in at least one, so only rows that share a piece are compared, and
    of the many that may share one, each with the `REACH` that follow.
    """
    group = np.arange(len(hashes))  # of each row, the first row of its group
    for piece in range(most + 1):
        keys = _bits(hashes, range(piece, 8 * hashes.shape[1], most + 1))  # spread over the whole image
        order = np.argsort(keys, kind="stable")
        starts = np.arange(len(order))
        for distance in range(1, REACH + 1):
            starts = starts[: np.searchsorted(starts, len(order) - distance)]
            starts = starts[keys[order[starts]] == keys[order[starts + distance]]]
            pairs = np.stack([order[starts], order[starts + distance]], 1)
            pairs = pairs[group[pairs[:, 0]] != group[pairs[:, 1]]]
            first, second = hashes[pairs.T]
            different = np.unpackbits(np.bitwise_xor(first, second), axis=1).sum(1)
            for pair in pairs[different <= most]:
                low, high = sorted(group[pair])
                group[group == high] = low
    return _groups(group.tolist())


def _groups(keys: list[int]) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        members.setdefault(key, []).append(row)
    return [rows for rows in members.values() if len(rows) > 1]


def _bits(rows: np.ndarray, places: range) -> np.ndarray:
    """Bits of every row as one number a row: int64 (n,)."""
    key = np.zeros(len(rows), np.int64)
    for place in places:
        key = 2 * key + (rows[:, place // 8] >> (7 - place % 8) & 1)
    return key
