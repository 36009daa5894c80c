"""What is predicted: encoded images in files, folders, WebDataset shards, Parquet files and object stores, in order."""

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..data.decode import MAX_PIXELS, read_file, shown
from ..data.names import Gathered, unpack
from ..data.parquet import encoded_images, parquet_files
from ..data.samples import IMAGE_EXTENSIONS, Shard, members
from ..data.scan import Scan
from ..data.shards import Members, shard_files
from ..errors import DataError
from .remote import is_remote, remote_images

Content = Callable[[int], bytes]
Part = tuple[Sequence[str], Content]
"""Names, and the bytes of image i of them or the DataError that says why there are none."""


@dataclass(frozen=True)
class Inputs:
    """n encoded images.

    names: what rows and errors call them: paths, of an image in a shard or a Parquet file `path/member` or `path/row`
    content: the bytes of image i; raises DataError where there are none
    """

    names: Sequence[str]
    content: Content

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """The sha256 of the names."""
        sha = hashlib.sha256()
        for name in self.names:
            sha.update(name.encode("utf-8", "surrogateescape") + b"\0")
        return sha.hexdigest()


def find_inputs(places: Iterable[str | Path]) -> Inputs:
    """All images at these places, in their order; a place that offers none is one input, whose error says why.

    A place is a file, a folder (all images below it; without any, the shards or Parquet files directly in it), a
    WebDataset shard or `name-{000..099}.tar`, a Parquet file, or a file or folder in an object store such as
    `s3://bucket/folder`.  Labels are not needed.
    """
    names, contents, ends = Gathered(), [], []
    for place in places:
        for part_names, content in _parts(place):
            names.add(part_names)
            contents.append(content)
            ends.append(len(names))
    return Inputs(unpack(**names.arrays()), _Joined(tuple(contents), tuple(ends)))


def _parts(place: str | Path) -> list[Part]:
    try:
        if is_remote(place):
            return [remote_images(str(place))]
        path = Path(place)
        if _is_folder(path):
            return _in_folder(path)
        if path.suffix == ".tar":
            return [_whole(_members, shard) for shard in shard_files(path) or [path]]
        return [_whole(_rows, path)] if path.suffix == ".parquet" else [_files([path])]
    except DataError as error:
        return [_refused(place, error)]


def _in_folder(folder: Path) -> list[Part]:
    if images := Scan(folder).images(""):
        return [_files(folder / name for name in images)]
    shards = [_whole(_members, path) for path in shard_files(folder)]
    parts = shards or [_whole(_rows, path) for path in parquet_files(folder)]
    if not parts:
        raise DataError("D10", f"{shown(folder)}: no images in the folder", "give image files, or folders of them")
    return parts


def _whole(part: Callable[[Path], Part], path: Path) -> Part:
    """A part made of a shard or a Parquet file; a damaged one is one input with an error."""
    try:
        return part(path)
    except DataError as error:
        return _refused(path, error)


def _files(paths: Iterable[Path]) -> Part:
    names = _packed(str(path) for path in paths)
    return names, _Files(names)


def _members(path: Path) -> Part:
    shard, found, offsets, sizes = Shard.at(path), Gathered(), array("q"), array("q")
    for member, _ in members(shard):
        if member.name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS:
            found.add([f"{path}/{member.name}"])
            offsets.append(member.offset_data)
            sizes.append(member.size)
    if not sizes:
        raise DataError("D10", f"{shown(path)}: no images in the shard", "give shards with images")
    names, of_the_one = unpack(**found.arrays()), np.zeros(len(sizes), np.int8)
    return names, Members([shard], names, of_the_one, np.array(offsets), np.array(sizes), MAX_PIXELS)


def _rows(path: Path) -> Part:
    count, _ = encoded_images(path)
    return _packed(f"{path}/{row}" for row in range(count)), _Rows(path)


def _refused(place: str | Path, error: DataError) -> Part:
    return (str(place),), _Refused(error)


def _packed(names: Iterable[str]) -> Sequence[str]:
    gathered = Gathered()
    gathered.add(names)
    return unpack(**gathered.arrays())


def _is_folder(path: Path) -> bool:
    """False also for what may not be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False


@dataclass(frozen=True)
class _Joined:
    """Contents one after another; `ends` says where each ends."""

    contents: Sequence[Content]
    ends: Sequence[int]

    def __call__(self, index: int) -> bytes:
        part = bisect_right(self.ends, index)
        return self.contents[part](index - (self.ends[part - 1] if part else 0))


@dataclass(frozen=True)
class _Files:
    names: Sequence[str]

    def __call__(self, index: int) -> bytes:
        return read_file(Path(self.names[index]))


@dataclass(frozen=True)
class _Refused:
    error: DataError

    def __call__(self, index: int) -> bytes:
        raise self.error


@dataclass(frozen=True)
class _Rows:
    """Of a Parquet file, which each process opens itself; two are held, for where one ends and the next begins."""

    path: Path

    def __call__(self, index: int) -> bytes:
        return _opened(self.path)(index)


@lru_cache(2)
def _opened(path: Path) -> Content:
    return encoded_images(path)[1]
