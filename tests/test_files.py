"""The one writer: all or nothing, without litter."""

import errno
import os
import re
import resource
import stat
import subprocess
import sys
import threading
import time

import pytest

from convatlas import files
from convatlas.errors import ResourceError
from convatlas.files import patiently, sweep, write_bytes, write_pieces, write_text

POINTS = ("open", "write", "flush", "fsync", "rename", "dirsync", "reread", "done")


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


class Pieces(list):
    """Pieces that do something when the second one is asked for."""

    def __init__(self, action):
        super().__init__([b"new ", b"content"])
        self.action = action

    def __iter__(self):
        yield self[0]
        self.action()
        yield self[1]


def test_pieces_of_every_kind_are_written_in_their_order(tmp_path):
    pieces = [b"", b"a", memoryview(b"bcd"), bytes(3 << 20), b"z"]
    assert write_pieces(tmp_path / "x", pieces).read_bytes() == b"abcd" + bytes(3 << 20) + b"z"
    assert write_pieces(tmp_path / "x", []).read_bytes() == b""


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path, seen = write_bytes(tmp_path / "file", b"old"), []
    write_pieces(path, Pieces(lambda: seen.append(path.read_bytes())))
    assert seen == [b"old", b"new content"]  # while it is written, while it is read again
    assert path.read_bytes() == b"new content"


def test_content_is_on_the_disk_before_its_name_and_the_name_before_success(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        content = not stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append(f"content {os.fstat(descriptor).st_size}" if content else "folder")
        fsync(descriptor)

    def renamed(source, target):
        events.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_bytes(tmp_path / "file", b"content")
    assert events == ["content 7", "name", "folder"]


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()], ids=repr)
def test_a_writer_that_is_interrupted_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = write_bytes(tmp_path / "file", b"old")

    def interrupt():
        raise error

    with pytest.raises(type(error)):
        write_pieces(path, Pieces(interrupt))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


# --- C2: disks that fail ---


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES], ids=errno.errorcode.get)
def test_a_disk_that_fails_is_named_and_the_file_is_whole(tmp_path, fault, code, point):
    path = write_bytes(tmp_path / "file", b"old")
    fault(f"{errno.errorcode[code]}@{point}:1+")
    with pytest.raises(ResourceError) as caught:
        write_bytes(path, bytes(200_000))
    assert str(caught.value).startswith(f"error[C2]: cannot write {path}: {os.strerror(code)}")
    room = r"\(needs 0\.2 MB, free [\d,]+\.\d MB\)"
    assert bool(re.search(room, caught.value.what)) == (code == errno.ENOSPC)
    assert caught.value.exit_code == 6
    assert path.read_bytes() == (b"old" if POINTS.index(point) <= POINTS.index("rename") else bytes(200_000))
    assert names(tmp_path) == ["file"]
    tries = 4 if code in (errno.EIO, errno.EDQUOT) else 1
    assert files._reached == {point: tries}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ["EIO", "EDQUOT", "ESTALE"])
def test_what_may_pass_is_tried_again(tmp_path, fault, name, point):
    fault(f"{name}@{point}:1")
    assert write_bytes(tmp_path / "file", b"new").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]
    assert files._reached == {point: 2}


def test_waits_grow_to_half_a_minute(monkeypatch):
    waited, errors = [], [OSError(errno.EIO, ""), OSError(errno.ESTALE, ""), OSError(errno.EDQUOT, "")]
    monkeypatch.setattr(time, "sleep", waited.append)

    def action():
        if errors:
            raise errors.pop(0)
        return "done"

    assert patiently(action) == "done"
    assert waited == [1, 5, 25]


# --- C12: network file systems (a shim of os.replace; true NFS is a manual test) ---


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_rename_that_shows_late_is_waited_for(tmp_path, monkeypatch, old):
    path, replace, renames = tmp_path / "file", os.replace, []

    def late(source, target):
        timer = threading.Timer(0.15, replace, (str(source) + ".server", target))
        replace(source, str(source) + ".server")  # the client no longer sees it here, and not yet there
        timer.start()
        renames.append(timer)

    if old:
        write_bytes(path, old)
    monkeypatch.setattr(files, "WAITS", (0.1, 0.2, 0.4))
    monkeypatch.setattr(os, "replace", late)
    write_bytes(path, b"new")
    for timer in renames:
        timer.join()
    assert len(renames) > 1
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("found", [None, b"", b"ne", b"old", b"newer"])
def test_what_does_not_read_back_is_no_success(tmp_path, monkeypatch, found):
    path = tmp_path / "file"

    def replace(source, target):
        if found is not None:
            path.write_bytes(found)

    monkeypatch.setattr(files, "WAITS", (0, 0, 0))
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(ResourceError, match=r"C2.*cannot write .*file: the new file (has not|does not|holds more)"):
        write_bytes(path, b"new")


# --- real limits ---


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


# --- litter ---


def test_sweep_takes_the_leftovers_of_the_dead_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "samples").mkdir()
    leftovers = [f".model.{dead.pid}-0123abcd.part", f"samples/.x.{dead.pid}-0123abcd.part"]
    namesake = f".model.{os.getpid()}-0123abcd.part"  # of a process in a container that is gone
    at_work = f".model.{os.getppid()}-0123abcd.part"
    others = ["model", "model.part", ".hidden", ".movie.mkv.part", f".x.{dead.pid}.part", at_work]
    for name in (*leftovers, namesake, *others):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert names(tmp_path) == sorted([*others, "samples"])
    assert names(tmp_path / "samples") == []
    sweep(tmp_path)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_writer_leaves_a_whole_file_and_what_can_be_swept(tmp_path, point):  # C1
    path = write_bytes(tmp_path / "file.v1.bin", b"old")
    script = "import sys; from convatlas.files import write_bytes; write_bytes(sys.argv[1], bytes(200_000))"
    environment = os.environ | {"CONVATLAS_FAULT": f"kill@{point}:1"}
    assert subprocess.run([sys.executable, "-c", script, path], check=False, env=environment).returncode == -9
    renamed = POINTS.index(point) > POINTS.index("rename")
    assert path.read_bytes() == (bytes(200_000) if renamed else b"old")
    assert len(names(tmp_path)) == (1 if renamed or point == "open" else 2)
    sweep(tmp_path)
    assert names(tmp_path) == ["file.v1.bin"]


def test_faults_come_when_they_are_told_to(tmp_path, fault):
    def outcomes(what):
        fault(what)
        for _ in range(4):
            try:
                write_bytes(tmp_path / "x", b"")
                yield "ok"
            except ResourceError as error:
                yield error.what.split(": ")[-1]

    assert list(outcomes("EACCES@rename:2")) == ["ok", "Permission denied", "ok", "ok"]
    assert list(outcomes("EACCES@rename:2+")) == ["ok", *["Permission denied"] * 3]
    assert list(outcomes("EACCES@elsewhere:1")) == list(outcomes("")) == ["ok"] * 4
