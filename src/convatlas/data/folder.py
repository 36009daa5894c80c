"""A folder with one folder of images per class, or with such a folder for each of train, val and test."""

import os
import re
import unicodedata
import warnings
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .decode import MAX_PIXELS, read_file, shown
from .images import Decoder, Images, Progress
from .index import LARGE, Index, folders_unchanged, load, save
from .names import Gathered, unpack
from .scan import Scan
from .splits import PARTS, Source, differing_classes

PART_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""How the parts may be called, and what they are."""


def read_folder(
    root: Path,
    *,
    allow_empty_class: bool = False,
    follow_outside: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Source:
    """Find the images below `root`; none of them is opened.

    The classes are those of train, in natural order (1, 2, 10); val and test may lack some.
    A large folder is listed once; what was found is kept in the cache for as long as no folder in it changes.
    Raises DataError D10 for a class without images, D11 for classes that train lacks, D12 for names that differ only in
    their Unicode form, D14 for a folder that cannot be listed.
    """
    options = {"allow_empty_class": allow_empty_class, "follow_outside": follow_outside}
    key = {"folder": os.path.realpath(root), **options}
    index = load(key)
    if index is None or not folders_unchanged(root, index.record["folders"]):
        index = _list(root, allow_empty_class, follow_outside, progress)
        if len(index.arrays["labels"]) > LARGE:
            save(key, index)
    found, arrays = index.record, index.arrays
    names = unpack(arrays["text"], arrays["ends"])
    labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    parts = {part: names[start:stop] for part, (start, stop) in found["parts"].items()}
    return Source(
        name=root.resolve().name,
        images=_images(root, tuple(found["classes"]), labels, names, max_pixels),
        parts=parts if len(parts) > 1 else None,
        warnings=tuple(found["warnings"]),
    )


def _list(root: Path, allow_empty_class: bool, follow_outside: bool, progress: Progress | None) -> Index:
    """What there is in the folder: paths and labels, part by part and class by class."""
    top = Scan(root, follow_outside)
    folders, _ = top.listing()
    parts = _given_parts(root, folders) or {"train": ""}
    scan = Scan(root, follow_outside)
    if parts["train"]:
        scan.ignore("folders beside train, val and test", *sorted(set(folders) - set(parts.values())))
    paths, labels, classes, spans = Gathered(), array("q"), (), {}
    for part, folder in parts.items():
        start = len(paths)
        of_part = _class_folders(scan, folder)
        if part == "train":
            classes = tuple(of_part)
        elif not of_part.keys() <= set(classes):
            raise differing_classes(shown(root / folder), tuple(of_part), "train", classes)
        for number, (name, class_folder) in enumerate(of_part.items()):
            found = _class_images(scan, class_folder, allow_empty_class)
            paths.add(found)
            labels.extend([classes.index(name)] * len(found))
            if progress is not None:
                progress(number + 1, len(of_part))
        spans[part] = (start, len(paths))
    record = {"classes": classes, "parts": spans, "warnings": scan.warnings(), "folders": top.folders | scan.folders}
    return Index(record, {**paths.arrays(), "labels": np.array(labels, copy=False)})


def file_images(root: Path, classes: tuple[str, ...], files: Sequence[tuple[str, str]], max_pixels: int) -> Images:
    """The Images of (path relative to `root`, class name) pairs."""
    label_of = {name: label for label, name in enumerate(classes)}
    labels = torch.tensor([label_of[name] for _, name in files], dtype=torch.int64)
    return _images(root, classes, labels, tuple(path for path, _ in files), max_pixels)


def _images(root: Path, classes: tuple[str, ...], labels: Tensor, names: Sequence[str], max_pixels: int) -> Images:
    content = _Files(root, names, max_pixels, np.zeros((len(names), 2), np.int64))
    read = Decoder(content, names, f"{root}/", max_pixels)
    return Images(classes, labels, names, read, content, changed=content.changed)


def natural(name: str) -> tuple[list[str | int], str]:
    """The sorting key that orders 2 before 10: numbers within the name count as numbers."""
    pieces = re.split("([0-9]+)", name)
    return [int(piece) if number % 2 else piece for number, piece in enumerate(pieces)], name


@dataclass
class _Files:
    """Reads files, and warns once if one is no longer what it was when it was first read.

    stamps: int64 (n, 2), what size (bytes) and time of change (ns) each file then had; 0 before that
    """

    root: Path
    names: Sequence[str]
    max_pixels: int
    stamps: np.ndarray
    warned: bool = False

    def __call__(self, index: int) -> bytes:
        content = read_file(self.root / self.names[index], max_pixels=self.max_pixels)
        if not self.stamps[index].any():
            self.stamps[index] = self._stamp(index)
        elif not self.warned and self.changed(index):
            self.warned = True
            warnings.warn(f"D15: {shown(self.root / self.names[index])} has changed since it was read", stacklevel=2)
        return content

    def changed(self, index: int) -> bool:
        """Whether a file that has been read is now another, or gone."""
        return bool(self.stamps[index].any()) and self._stamp(index) != self.stamps[index].tolist()

    def _stamp(self, index: int) -> list[int]:
        try:
            status = (self.root / self.names[index]).stat()
        except OSError:
            return [0, 0]
        return [status.st_size, status.st_mtime_ns]


def _given_parts(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """By part, its folder, if train has another beside it or is the only folder; else none."""
    parts: dict[str, str] = {}
    for folder in folders:
        part = PART_OF.get(folder)
        if part in parts:
            what = f"{shown(root)} has both {parts[part]} and {folder}, which mean the same"
            raise DataError("D11", what, "keep one of them")
        if part:
            parts[part] = folder
    if "train" not in parts or 1 == len(parts) < len(folders):
        return {}
    return {part: parts[part] for part in PARTS if part in parts}


def _class_folders(scan: Scan, folder: str) -> dict[str, str]:
    """By class name in natural order, the folders in `folder`."""
    folders, images = scan.listing(folder)
    if not folders:
        what = f"{shown(scan.root / folder)} has no class folders ({len(images)} images directly in it)"
        raise DataError("D10", what, "put the images of each class into a folder named after it")
    scan.ignore("images outside the class folders", *images)
    _refuse_twins(scan.root, folders)
    return {Path(path).name: path for path in sorted(folders, key=natural)}


def _class_images(scan: Scan, folder: str, allow_empty_class: bool) -> list[str]:
    """The images in a class folder and below."""
    found = scan.images(folder)
    if not found and not allow_empty_class:
        aside = "".join(f"; {warning}" for warning in scan.warnings())
        what = f"class folder {shown(scan.root / folder)} has no images{aside}"
        raise DataError("D10", what, "add images, delete the folder, or --allow-empty-class")
    _refuse_twins(scan.root, found)
    return found


def _refuse_twins(root: Path, paths: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for path in paths:
        twin = seen.setdefault(unicodedata.normalize("NFC", path), path)
        if twin != path:
            what = f"{shown(root)}: two names differ only in their Unicode form: {twin!a} and {path!a}"
            raise DataError("D12", what, "rename one of them")
