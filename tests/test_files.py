"""The one writer: all or nothing, without litter."""

import errno
import os
import resource
import stat
import subprocess
import sys

import pytest

from convatlas.errors import ResourceError
from convatlas.files import sweep, write_bytes, write_text, write_with


@pytest.fixture
def small_files():
    """No file of this process may grow beyond 64 KiB: what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_creates_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    assert write_bytes(path, b"old") == path
    assert write_bytes(str(path), b"new") == path
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


def test_text_is_utf8_and_keeps_undecodable_file_names(tmp_path):
    name = os.fsdecode(b"\xff.png")
    assert write_text(tmp_path / "x", f"Käfer\n{name}").read_bytes() == b"K\xc3\xa4fer\n\xff.png"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = write_bytes(tmp_path / "file", b"old")

    def fill(file):
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    write_with(path, fill)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()], ids=repr)
def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = write_bytes(tmp_path / "file", b"old")

    def fill(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_with(path, fill)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failing_disk_is_named_with_the_remedy(tmp_path, code):
    def fill(file):
        raise OSError(code, os.strerror(code))

    with pytest.raises(ResourceError) as caught:
        write_with(tmp_path / "file", fill)
    assert str(caught.value).startswith(f"error[C2]: cannot write {tmp_path / 'file'}: {os.strerror(code)}. Remedy:")
    assert names(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path, small_files):
    path = write_bytes(tmp_path / "file", b"old")
    with pytest.raises(ResourceError, match=r"cannot write .*file: File too large"):
        write_bytes(path, bytes(65537))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_places_that_cannot_be_written_are_named(tmp_path):
    file = write_bytes(tmp_path / "file", b"old")
    for path, why in (
        (file / "inside", "Not a directory|File exists"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path, "Is a directory|File exists|Device or resource busy|Permission denied"),
        ("/proc/convatlas", "No such file or directory|Permission denied|Operation not permitted"),
    ):
        with pytest.raises(ResourceError, match=f"cannot write .*({why}). Remedy"):
            write_bytes(path, b"new")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_without_permission_is_named(tmp_path):
    script = (
        "import os, sys; from convatlas.files import write_bytes; os.setuid(65534)\n"
        "try: write_bytes(sys.argv[1] + '/file', b'x')\n"
        "except Exception as error: print(error)"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert f"error[C2]: cannot write {tmp_path}/file: Permission denied" in done.stdout
    assert names(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        path = write_bytes(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_sweep_takes_the_leftovers_of_the_dead_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leftover, at_work = f".model.{dead.pid}-0123abcd.part", f".model.{os.getpid()}-0123abcd.part"
    others = ["model", "model.part", ".hidden", ".movie.mkv.part", f".x.{dead.pid}.part", at_work]
    for name in (leftover, *others):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert names(tmp_path) == sorted(others)
    sweep(tmp_path)


def test_what_a_killed_writer_leaves_is_swept(tmp_path):
    script = (
        "import os, sys; from convatlas.files import write_with\n"
        "def fill(file): file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
        "write_with(sys.argv[1] + '/file.v1.bin', fill)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == -9
    (left,) = names(tmp_path)
    assert left.startswith(".file.v1.bin.")
    sweep(tmp_path)
    assert names(tmp_path) == []
