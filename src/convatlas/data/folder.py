"""A folder with one folder of images per class, or with such a folder for each of train, val and test."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import DataError
from .decode import MAX_PIXELS, read_file, shown
from .images import Decoder, Images
from .scan import Scan
from .splits import PARTS, Source, differing_classes

PART_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""How the parts may be called, and what they are."""


def read_folder(
    root: Path, *, allow_empty_class: bool = False, follow_outside: bool = False, max_pixels: int = MAX_PIXELS
) -> Source:
    """Find the images below `root`; none of them is opened.

    The classes are those of train, in natural order (1, 2, 10); val and test may lack some.
    Raises DataError D10 for a class without images, D11 for classes that train lacks, D12 for names that differ only in
    their Unicode form, D14 for a folder that cannot be listed.
    """
    folders, _ = Scan(root, follow_outside).listing()
    parts = _given_parts(root, folders) or {"train": ""}
    scan = Scan(root, follow_outside)
    if parts["train"]:
        scan.ignore("folders beside train, val and test", *sorted(set(folders) - set(parts.values())))
    found = {part: _classes(scan, folder, allow_empty_class) for part, folder in parts.items()}
    classes = tuple(found["train"])
    for part in found.keys() - {"train"}:
        if not found[part].keys() <= set(classes):
            raise differing_classes(shown(root / parts[part]), tuple(found[part]), "train", classes)
    files = [(path, name) for listing in found.values() for name, paths in listing.items() for path in paths]
    _refuse_twins(root, [path for path, _ in files])
    given = {part: [path for paths in listing.values() for path in paths] for part, listing in found.items()}
    return Source(
        name=root.resolve().name,
        images=file_images(root, classes, files, max_pixels),
        parts=given if len(given) > 1 else None,
        warnings=scan.warnings(),
    )


def file_images(root: Path, classes: tuple[str, ...], files: Sequence[tuple[str, str]], max_pixels: int) -> Images:
    """The Images of (path relative to `root`, class name) pairs."""
    label_of = {name: label for label, name in enumerate(classes)}
    labels = torch.tensor([label_of[name] for _, name in files], dtype=torch.int64)
    names = tuple(path for path, _ in files)
    content = _Files(root, names, max_pixels)
    return Images(classes, labels, names, Decoder(content, names, f"{root}/", max_pixels), content)


def natural(name: str) -> tuple[list[str | int], str]:
    """The sorting key that orders 2 before 10: numbers within the name count as numbers."""
    pieces = re.split("([0-9]+)", name)
    return [int(piece) if number % 2 else piece for number, piece in enumerate(pieces)], name


@dataclass(frozen=True)
class _Files:
    root: Path
    names: tuple[str, ...]
    max_pixels: int

    def __call__(self, index: int) -> bytes:
        return read_file(self.root / self.names[index], max_pixels=self.max_pixels)


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


def _classes(scan: Scan, folder: str, allow_empty_class: bool) -> dict[str, list[str]]:
    """By class name in natural order, the images in its folder below `folder`."""
    folders, images = scan.listing(folder)
    if not folders:
        what = f"{shown(scan.root / folder)} has no class folders ({len(images)} images directly in it)"
        raise DataError("D10", what, "put the images of each class into a folder named after it")
    scan.ignore("images outside the class folders", *images)
    _refuse_twins(scan.root, folders)
    classes = {}
    for path in sorted(folders, key=natural):
        classes[Path(path).name] = found = scan.images(path)
        if not found and not allow_empty_class:
            aside = "".join(f"; {warning}" for warning in scan.warnings())
            what = f"class folder {shown(scan.root / path)} has no images{aside}"
            raise DataError("D10", what, "add images, delete the folder, or --allow-empty-class")
    return classes


def _refuse_twins(root: Path, paths: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for path in paths:
        twin = seen.setdefault(unicodedata.normalize("NFC", path), path)
        if twin != path:
            what = f"{shown(root)}: two names differ only in their Unicode form: {twin!a} and {path!a}"
            raise DataError("D12", what, "rename one of them")
