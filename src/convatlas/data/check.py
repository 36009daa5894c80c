"""Every image read once before anything depends on it, so that bad files are named at the start."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError, DataError
from .decode import is_animated, shown
from .images import MEMORY_LIMIT, Images, Progress, Store, for_each

OnBadFile = Literal["fail", "skip", "lazy"]
OnAnimated = Literal["first", "fail"]


@dataclass(frozen=True)
class BadFile:
    """A file left out: its name in the data set, its class, the fault's ID and text, and the SHA-256 of its content."""

    name: str
    label: str
    id: str
    reason: str
    sha256: str | None


def check(
    images: Images,
    on_bad_file: OnBadFile = "fail",
    *,
    on_animated: OnAnimated = "first",
    limit_bytes: int = MEMORY_LIMIT,
    progress: Progress | None = None,
) -> tuple[Images, tuple[BadFile, ...], tuple[str, ...]]:
    """Read every image once.  Returns the good images, the bad files and warnings.

    The good images are held in memory if all of them fit `limit_bytes`.  A bad file is never replaced by another.
    `fail` raises the DataError of the first bad file with the count of the others, `skip` leaves bad files out,
    `lazy` reads nothing now: the read that meets a bad file raises.  Images stored as pixels are not read.
    Of an animation the first frame is used, with one warning for all, or it counts as a bad file if that is `fail`.
    """
    if on_bad_file not in ("fail", "skip", "lazy"):
        raise ConfigError("L2", f"on_bad_file is {on_bad_file!r}", "give fail, skip or lazy")
    content = images.content
    if on_bad_file == "lazy" or content is None:
        return images, (), ()
    store = Store(limit_bytes)
    errors: dict[int, DataError] = {}
    animated: set[int] = set()

    def visit(index: int) -> None:
        try:
            store.keep(index, images.read(index))
        except DataError as error:
            errors[index] = error
        else:
            if is_animated(content(index)):
                animated.add(index)
                if on_animated == "fail":
                    what = f"{shown(images.names[index])}: animated, or of several pages"
                    errors[index] = DataError("D6", what, "put a still image there, or run with --on-animated=first")

    for_each(len(images), visit, progress)
    if errors and on_bad_file == "fail":
        raise _first_of(errors)
    good = [index for index in range(len(images)) if index not in errors]
    bad = tuple(bad_file(images, index, errors[index]) for index in sorted(errors))
    return store.hold(images).subset(good), bad, _animations(images, animated - errors.keys())


def changes(images: Images) -> tuple[str, ...]:
    """A warning if files are no longer what they were when they were first read, by this process."""
    found = [index for index in range(len(images)) if images.changed and images.changed(index)]
    if not found:
        return ()
    return (f"D15: {len(found)} files have changed since they were read (first: {shown(images.names[found[0]])})",)


def _first_of(errors: dict[int, DataError]) -> DataError:
    first = errors[min(errors)]
    others = f" ... and {len(errors) - 1} more" if len(errors) > 1 else ""
    return DataError(first.id, first.what + others, first.remedy)


def bad_file(images: Images, index: int, error: DataError) -> BadFile:
    """What is known of image `index`, whose reading raised `error`."""
    assert images.content is not None
    try:
        sha256 = hashlib.sha256(images.content(index)).hexdigest()
    except DataError:  # not readable at all
        sha256 = None
    return BadFile(images.names[index], images.classes[int(images.labels[index])], error.id, error.what, sha256)


def _animations(images: Images, animated: set[int]) -> tuple[str, ...]:
    if not animated:
        return ()
    first = images.names[min(animated)]
    return (f"{len(animated)} animated or multi-page images, of which only the first frame is used (first: {first})",)
