"""Listing folders: links, loops, pipes and files of other kinds are left aside and counted; no file is opened."""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from .decode import shown

_IMAGE_NAME = re.compile(r".*\.(jpe?g|jpe|jfif|a?png|gif|webp|bmp|dib|tiff?|p[bgpn]m)", re.IGNORECASE | re.DOTALL)

_FOLDER, _IMAGE, _HIDDEN = "folder", "image", "hidden"


@dataclass
class Scan:
    """The folders and images below `root`, each folder listed once.  All paths are relative to the root.

    A link to a file inside the root counts as a file.  A link to a folder inside the root is not followed: the images
    are found where they are.  Links that lead out of the root are followed if `follow_outside`.
    """

    root: Path
    follow_outside: bool = False
    ignored: dict[str, list[str]] = field(default_factory=dict)
    """By reason, the paths left aside."""
    folders: dict[str, list[int]] = field(default_factory=dict)
    """By folder listed, when it last got or lost an entry (ns, just before), and how many it has."""

    def __post_init__(self):
        self._real_root = os.path.realpath(self.root)
        root = self.root.stat()
        self._visited = {(root.st_dev, root.st_ino)}

    def listing(self, folder: str = "") -> tuple[list[str], list[str]]:
        """The folders and the images directly in `folder`, sorted.  Raises DataError D14 if it cannot be listed."""
        try:
            modified = (self.root / folder).stat().st_mtime_ns
            with os.scandir(self.root / folder) as entries:
                found = {f"{folder}/{entry.name}".lstrip("/"): self._kind(entry) for entry in entries}
            self.folders[folder] = [modified, len(found)]
        except OSError as error:
            what = f"{shown(self.root / folder)}: cannot list the folder: {error.strerror} (uid {os.geteuid()})"
            raise DataError("D14", what, "make it readable") from error
        folders, images = [], []
        for path, kind in sorted(found.items()):
            if kind == _FOLDER:
                folders.append(path)
            elif kind == _IMAGE:
                images.append(path)
            elif kind != _HIDDEN:
                self.ignore(kind, path)
        return folders, images

    def images(self, folder: str) -> list[str]:
        """All images in `folder` and the folders below it, sorted."""
        folders, images = self.listing(folder)
        while folders:
            deeper, more = self.listing(folders.pop())
            folders += deeper
            images += more
        return sorted(images)

    def ignore(self, reason: str, *paths: str) -> None:
        """Count paths that are left aside."""
        if paths:
            self.ignored.setdefault(reason, []).extend(paths)

    def warnings(self) -> tuple[str, ...]:
        """One line per reason: how many paths were left aside and the first of them."""
        return tuple(
            f"ignored {len(paths)} {reason} (first: {shown(paths[0])})" for reason, paths in self.ignored.items()
        )

    def _kind(self, entry: os.DirEntry[str]) -> str:
        """`folder`, `image`, `hidden`, or the reason to leave the entry aside."""
        if entry.name.startswith("."):
            return _HIDDEN
        try:
            status = entry.stat()
        except OSError:
            return "links that lead nowhere"
        is_folder = stat.S_ISDIR(status.st_mode)
        if entry.is_symlink():
            inside = Path(os.path.realpath(entry.path)).is_relative_to(self._real_root)
            if not inside and not self.follow_outside:
                return "links that lead out of the folder, not followed without --follow-outside"
            if inside and is_folder:
                return "links to folders inside, whose images are found where they are"
        if is_folder:
            identity = (status.st_dev, status.st_ino)
            if identity in self._visited:
                return "links to folders visited already"
            self._visited.add(identity)
            return _FOLDER
        if not stat.S_ISREG(status.st_mode):
            return "pipes, sockets or devices"
        return _IMAGE if _IMAGE_NAME.fullmatch(entry.name) else "files without the extension of an image"
