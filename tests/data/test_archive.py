"""D16: archives as data, and hostile ones, of which nothing is ever written."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile

import pytest

from convatlas.data import open_data
from convatlas.data.archive import Limits, unpacked
from convatlas.errors import DataError, ResourceError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and whatever lies in it."""
    monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / "cache"))
    return lambda: sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


def make_tar(path, *members, mode="w"):
    """Of (name, content) or (name, type, target) members."""
    with tarfile.open(path, mode) as archive:
        for name, what, *target in members:
            member = tarfile.TarInfo(name)
            if target:
                member.type, member.linkname = what, target[0]
                archive.addfile(member)
            else:
                member.size = len(what)
                archive.addfile(member, io.BytesIO(what))
    return path


def make_zip(path, *members, attributes=0):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = attributes
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return path


def photos(png, *, wrapped=""):
    return [(f"{wrapped}{name}/{i}.png", png(seed + i)) for seed, name in ((0, "cat"), (50, "dog")) for i in range(4)]


def refused(path, text, cache, **limits):
    with pytest.raises(DataError, match=r"error\[D16\]") as caught:
        unpacked(path, Limits(**limits))
    assert text in str(caught.value)
    assert path.name in str(caught.value) or "header" in text
    assert cache() == []
    assert not list((path.parent / "cache/archives").glob("*"))


@pytest.mark.parametrize("suffix", ["zip", "ZIP", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("wrapped", ["", "photos/", "./a/b/"])
def test_an_archive_is_as_good_as_its_folder(tmp_path, png, suffix, wrapped):
    path, members = tmp_path / f"pets.{suffix}", photos(png, wrapped=wrapped)
    if suffix.lower() == "zip":
        make_zip(path, *members, ("__MACOSX/cat/._0.png", b"fork"))
    else:
        make_tar(path, *members, mode="w:" + {"tgz": "gz", "tar": ""}.get(suffix, suffix[-3:].lstrip(".")))
    splits = open_data(path)
    assert splits.name == (wrapped.strip("./").split("/")[-1] or "pets")
    assert splits.classes == ("cat", "dog")
    assert len(splits.train) + len(splits.val) + len(splits.test) == 8


def test_it_is_unpacked_once_and_again_when_it_has_changed(tmp_path, png):
    path = make_zip(tmp_path / "pets.zip", *photos(png))
    first = unpacked(path)
    marked = first / "cat/0.png"
    marked.write_bytes(b"marked")
    assert unpacked(path) == first
    assert marked.read_bytes() == b"marked"
    make_zip(path, *photos(png), ("eel/0.png", png()))
    assert (unpacked(path) / "eel/0.png").exists()
    assert unpacked(path) != first


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a/.."])
def test_members_that_leave_the_folder(tmp_path, cache, name):
    refused(
        make_tar(tmp_path / "x.tar.gz", ("a/0.png", b"0"), (name, b"evil"), mode="w:gz"), "leaves the target", cache
    )
    refused(make_zip(tmp_path / "x.zip", ("a/0.png", b"0"), (name, b"evil")), "leaves the target folder", cache)


@pytest.mark.parametrize(
    ("type", "target", "said"),
    [
        (tarfile.SYMTYPE, "../../etc/passwd", "is a link"),
        (tarfile.SYMTYPE, "0.png", "is a link"),
        (tarfile.LNKTYPE, "/etc/passwd", "is a link"),
        (tarfile.CHRTYPE, "", "is a pipe or device"),
        (tarfile.FIFOTYPE, "", "is a pipe or device"),
    ],
)
def test_links_and_devices(tmp_path, cache, type, target, said):
    refused(make_tar(tmp_path / "x.tar.gz", ("a/0.png", b"0"), ("a/x.png", type, target), mode="w:gz"), said, cache)


def test_links_in_a_zip(tmp_path, cache):
    path = make_zip(tmp_path / "x.zip", ("a", "/etc"), attributes=(stat.S_IFLNK | 0o777) << 16)
    refused(path, "is a link or device", cache)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice(tmp_path, cache):
    for twice in ("a/0.png", "a//0.png", "./a/0.png"):
        refused(make_tar(tmp_path / "x.tgz", ("a/0.png", b"0"), (twice, b"1"), mode="w:gz"), "is there twice", cache)
        refused(make_zip(tmp_path / "x.zip", ("a/0.png", b"0"), (twice, b"1")), "is there twice", cache)
    refused(make_zip(tmp_path / "x.zip", ("a", b"0"), ("a/0.png", b"1")), "'a' is both a file and a folder", cache)


def test_a_backslash_and_a_password(tmp_path, cache):
    refused(make_zip(tmp_path / "x.zip", ("..\\x.png", b"0")), "means different things to different systems", cache)
    path = make_zip(tmp_path / "x.zip", ("a/0.png", b"0"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "archive member 'a/0.png' is encrypted", cache)


@pytest.mark.timeout(60)
def test_bombs_are_refused_by_what_they_say_of_themselves(tmp_path, cache):
    zeros = bytes(30 << 20)
    refused(make_zip(tmp_path / "x.zip", ("a/0.png", zeros)), "would become more than", cache, free_of_ratio=1 << 20)
    path = make_tar(tmp_path / "x.tar.gz", ("a/0.png", zeros), mode="w:gz")
    assert path.stat().st_size < 100_000
    refused(path, "would become more than", cache, free_of_ratio=1 << 20)
    refused(path, "would become more than 1,000", cache, bytes=1000)
    giant = tarfile.TarInfo("a/0.png")
    giant.size = 1 << 50  # of which nothing is there
    (tmp_path / "y.tar").write_bytes(giant.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress((tmp_path / "y.tar").read_bytes()))
    refused(tmp_path / "y.tar.gz", "would become more than", cache)


def test_too_many_members(tmp_path, cache):
    members = [(f"a/{i}.png", b"") for i in range(11)]
    refused(make_tar(tmp_path / "x.tgz", *members, mode="w:gz"), "more than 10 members", cache, members=10)
    refused(make_zip(tmp_path / "x.zip", *members), "more than 10 members", cache, members=10)


@pytest.mark.slow
def test_a_million_members(tmp_path, cache):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(1_000_000):
            archive.writestr(f"{i}", b"")
    refused(tmp_path / "x.zip", "more than 200,000 members", cache)


def test_a_name_of_a_gigabyte_is_not_read(tmp_path, cache):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    refused(tmp_path / "x.tar.gz", "has a header of 1,073,741,824 bytes", cache)


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9])
def test_a_cut_archive(tmp_path, png, cache, kept):
    for path in (
        make_zip(tmp_path / "x.zip", *photos(png)),
        make_tar(tmp_path / "x.tar.gz", *photos(png), mode="w:gz"),
    ):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
        refused(path, "damaged, or no such archive", cache)


def test_a_wrong_checksum_leaves_no_folder(tmp_path, png, cache):
    path = make_zip(tmp_path / "x.zip", *photos(png))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 16] ^= 1  # CRC of the last member, in the directory
    path.write_bytes(content)
    refused(path, "damaged, or no such archive (Bad CRC-32", cache)


def test_a_size_that_is_a_lie_is_found_out(tmp_path, png, cache):
    path = make_zip(tmp_path / "x.zip", ("a/0.png", bytes(5 << 20)))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24
    content[place : place + 4] = struct.pack("<I", 1000)
    path.write_bytes(content)
    refused(path, "damaged, or no such archive", cache)


def test_a_full_or_forbidden_cache_is_said_so(tmp_path, png, monkeypatch):
    path = make_zip(tmp_path / "x.zip", *photos(png))
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match=r"error\[C2\]: cannot unpack .*x\.zip into .*file: Not a directory"):
        unpacked(path)


def test_what_a_killed_unpacker_left_is_swept(tmp_path, png, cache):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    left = tmp_path / f"cache/archives/.{pid}-01234567.part"
    alive = tmp_path / "cache/archives/.1-01234567.part"
    for folder in (left, alive):
        (folder / "x/cat").mkdir(parents=True)
    unpacked(make_zip(tmp_path / "x.zip", *photos(png)))
    assert not left.exists()
    assert alive.exists()
