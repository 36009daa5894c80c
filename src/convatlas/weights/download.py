"""Files from the network into the cache: broken downloads are resumed, whole ones verified and never fetched again.

The standard library's HTTP, because what there is elsewhere covers a part: torch.hub cannot resume, huggingface_hub
knows one site, and the files here come from several.
"""

import contextlib
import hashlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .. import files
from ..errors import ConfigError, ResourceError, WeightsError, explain
from ..files import cache_folder
from .store import reason

Progress = Callable[[int, int | None], object]  # bytes so far, of how many if that is known
TRIES = 5  # without a byte of progress
PAUSE = 1.0  # seconds before the second try, doubled for each further one
TIMEOUT = 30.0  # seconds without an answer
PIECE = 1 << 20  # bytes
BY_HAND = "or get the file another way and give its path"


@dataclass(frozen=True)
class Checksum:
    """What a file's digest begins with: torchvision's file names carry eight digits of it."""

    algorithm: str
    digits: str

    def fits(self, path: Path) -> bool:
        """Whether it is that of the file."""
        return digest(path, self.algorithm).startswith(self.digits)


def digest(path: Path, algorithm: str) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fetch(url: str, checksum: Checksum | None = None, progress: Progress | None = None) -> Path:
    """The file behind a URL, from the cache if it is there and whole, else from the network.

    Raises ResourceError if it can't be had, keeping what has come of it for the next time; WeightsError if it is not
    what the checksum, or that which the server gives (Hugging Face), says.
    """
    address = urlsplit(url)
    if address.scheme not in ("https", "http") or not address.netloc:
        raise ConfigError("L2", f"{url!r} is no https address", "give a file, a hub name or an https address")
    entry = Entry(cache_folder() / "weights" / hashlib.sha256(url.encode()).hexdigest()[:16], url)
    with _alone(entry.folder):
        if not entry.whole() or (checksum and not checksum.fits(entry.file)):
            _download(entry, checksum, progress)
    return entry.file


@dataclass(frozen=True)
class Entry:
    """A folder of the cache: the file, or what has come of it, and a record that says what it must be."""

    folder: Path
    url: str

    @property
    def file(self) -> Path:
        """The whole file."""
        name = re.sub(r"[^\w.-]", "_", unquote(urlsplit(self.url).path.rpartition("/")[2]))
        return self.folder / (name.lstrip(".")[-100:] or "file")

    @property
    def part(self) -> Path:
        """What has come so far."""
        return self.folder / "part"

    def record(self) -> dict[str, str]:
        """What is known of the file: url, the server's mark of this version, and the sha256 once it is whole."""
        try:
            record = json.loads((self.folder / "record.json").read_text("utf-8"))
            return record if record["url"] == self.url else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def write(self, **record: str) -> None:
        """Replace the record."""
        files.write_text(self.folder / "record.json", json.dumps({"url": self.url, **record}))

    def whole(self) -> bool:
        """Whether the file is there with the content that it had when it was fetched."""
        sha256 = self.record().get("sha256")
        return bool(sha256) and self.file.is_file() and digest(self.file, "sha256") == sha256


def _download(entry: Entry, checksum: Checksum | None, progress: Progress | None) -> None:
    """Fetch the file, trying again where that may help; a resumed one that proves wrong is fetched anew once."""
    resumed = entry.part.exists()
    while True:
        told = _complete(entry, checksum, progress)
        wrong = next((c for c in (checksum, told) if c and not c.fits(entry.part)), None)
        if wrong is None:
            break
        found = digest(entry.part, wrong.algorithm)[: max(8, len(wrong.digits))]
        entry.part.unlink()
        if not resumed:
            what = f"{entry.url}: its {wrong.algorithm} begins with {found}, not {wrong.digits}"
            raise WeightsError("C4", what, f"try again later, {BY_HAND}")
        resumed = False
    try:
        sha256 = digest(entry.part, "sha256")
        entry.part.replace(entry.file)
    except OSError as error:
        raise _unwritable(entry, error) from None
    entry.write(sha256=sha256)


def _complete(entry: Entry, checksum: Checksum | None, progress: Progress | None) -> Checksum | None:
    """Make the part the whole file, with as many requests as it takes.  The checksum that the server tells."""
    failed, before = 0, -1
    while True:
        size = entry.part.stat().st_size if entry.part.exists() else 0
        failed, before = (0 if size > before >= 0 else failed), size
        try:
            return _request(entry, checksum is not None, progress)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code != 429:
                what = f"cannot fetch {entry.url}: {error.code} {reason(Exception(error.reason))}"
                raise ResourceError("L5", what, f"check the address, {BY_HAND}") from None
            problem = f"{error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            problem = reason(cause if isinstance(cause, Exception) else Exception(str(cause)))
        failed += 1
        if failed >= TRIES:
            kept = f"; what has come is kept in {entry.folder}" if entry.part.exists() else ""
            what = f"cannot fetch {entry.url}: {problem}{kept}"
            raise ResourceError("L5", what, f"check the network and run it again, {BY_HAND}")
        time.sleep(PAUSE * 2 ** (failed - 1))


def _request(entry: Entry, checked: bool, progress: Progress | None) -> Checksum | None:
    """One request for what is missing.  Raises OSError, HTTPException or URLError if the answer breaks off."""
    have = entry.part.stat().st_size if entry.part.exists() else 0
    version = entry.record().get("version", "")
    if have and not version and not checked:
        have = 0  # it might be another version's beginning, and nobody would notice
    headers = {"User-Agent": "convatlas", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": version} if version else {})
    redirects = _Redirects()
    try:
        answer = urllib.request.build_opener(redirects).open(
            urllib.request.Request(entry.url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        if error.headers.get("Content-Range") != f"bytes */{have}":  # else the part is the whole file
            entry.part.unlink()
            raise ConnectionError("the server has another version of the file") from None
        return redirects.told
    with answer:
        start = have if answer.status == 206 and _starts(answer.headers, have) else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        entry.write(version=_version(answer.headers))
        _save(entry, answer, start, total, progress)
    return redirects.told or _told(answer.headers)


def _save(entry: Entry, answer: HTTPResponse, start: int, total: int | None, progress: Progress | None) -> None:
    try:
        file = entry.part.open("r+b" if start else "wb")
    except OSError as error:
        raise _unwritable(entry, error) from None
    with file:
        done = file.seek(start)
        while piece := answer.read(PIECE):
            try:
                file.write(piece)
            except OSError as error:
                raise _unwritable(entry, error) from None
            done += len(piece)
            if progress:
                progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection broke off after {done:,} of {total:,} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to http, and notes the checksum that comes with one."""

    def __init__(self):
        self.told: Checksum | None = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        self.told = self.told or _told(headers)
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.HTTPError(req.full_url, 400, "it redirects to an address that is not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _told(headers: HTTPMessage) -> Checksum | None:
    """The sha256 that Hugging Face sends of a large file."""
    found = re.fullmatch(r'"([0-9a-f]{64})"', headers.get("X-Linked-ETag", ""))
    return Checksum("sha256", found[1]) if found else None


def _version(headers: HTTPMessage) -> str:
    """A mark of this very content, fit for If-Range; empty if the server has none."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _starts(headers: HTTPMessage, at: int) -> bool:
    """Whether the answer is what comes from there on."""
    return headers.get("Content-Range", "").startswith(f"bytes {at}-")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time works in a folder of the cache."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        what = f"cannot write to the cache {folder}: {explain(error)}"
        raise ResourceError("L5", what, "set $CONVATLAS_CACHE to a writable folder") from None
    with lock:
        with contextlib.suppress(ImportError):  # not on Windows
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unwritable(entry: Entry, error: OSError) -> ResourceError:
    what = f"cannot write to the cache {entry.folder}: {explain(error)}"
    return ResourceError("L5", what, "free space there, or set $CONVATLAS_CACHE to another folder")
