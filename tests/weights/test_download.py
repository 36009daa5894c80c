"""Downloads from a real server that breaks off, lies, forgets and moves: whole and verified, or refused."""

import hashlib
import json
import os
import threading

import pytest

from convatlas import files
from convatlas.errors import ConfigError, ResourceError, WeightsError
from convatlas.weights import download
from convatlas.weights.download import Checksum, cache_folder, fetch

CONTENT = bytes(range(256)) * 5000  # 1,280,000 bytes: more than one piece
SHA256 = Checksum("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def url(server):
    server.files["/models/net.pth"] = CONTENT
    return server.url("/models/net.pth")


def left(tmp_path):
    """The files of the cache's one entry."""
    (folder,) = (tmp_path / "cache" / "weights").iterdir()
    return {path.name for path in folder.iterdir()} - {"lock"}


def test_a_file_comes_once(server, url, tmp_path):
    path = fetch(url)
    assert path.read_bytes() == CONTENT
    assert path.name == "net.pth"
    assert left(tmp_path) == {"net.pth", "record.json"}
    assert json.loads((path.parent / "record.json").read_text()) == {"url": url, "sha256": SHA256.digits}
    server.answers = [500] * 9
    assert fetch(url) == path
    assert fetch(url, SHA256) == path
    assert len(server.requests) == 1


def test_progress_is_told(url):
    seen = []
    fetch(url, progress=lambda done, total: seen.append((done, total)))
    assert [total for _, total in seen] == [len(CONTENT)] * len(seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 1
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_broken_download_goes_on_where_it_broke(server, url):
    server.cuts = [100_000, 7, 500_000]
    assert fetch(url).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=100000-", "bytes=100007-", "bytes=600007-"]


def test_it_goes_on_in_a_later_run(server, url, tmp_path):
    server.cuts = [300_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "TRIES", 1)
        with pytest.raises(
            ResourceError, match=r"L5.*broke off after 300,000 of 1,280,000 bytes; what has come is kept"
        ):
            fetch(url)
    assert left(tmp_path) == {"part", "record.json"}
    assert fetch(url).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=300000-"


@pytest.mark.parametrize("checksum", [None, SHA256])
def test_another_version_is_fetched_from_its_beginning(server, url, checksum, tmp_path):
    server.files["/models/net.pth"] = b"old" * 400_000
    server.cuts = [300_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "TRIES", 1)
        with pytest.raises(ResourceError):
            fetch(url)
    server.files["/models/net.pth"] = CONTENT
    assert fetch(url, checksum).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=300000-"  # it asked for the rest, and got the whole


def test_a_server_without_ranges_sends_all_again(server, url):
    server.ranges, server.cuts = False, [300_000]
    assert fetch(url).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize(("checksum", "wanted"), [(None, None), (SHA256, "bytes=300000-")])
def test_without_a_mark_of_the_version_only_a_checksum_allows_going_on(server, url, checksum, wanted):
    server.etags, server.cuts = False, [300_000]
    assert fetch(url, checksum).read_bytes() == CONTENT
    assert server.requests[-1][1] == wanted


def test_a_resumed_file_that_proves_wrong_is_fetched_anew(server, url, tmp_path):
    server.etags, server.cuts = False, [300_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "TRIES", 1)
        with pytest.raises(ResourceError):
            fetch(url, SHA256)
    (part,) = (tmp_path / "cache" / "weights").glob("*/part")
    part.write_bytes(b"x" * 300_000)
    assert fetch(url, SHA256).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", None]


def test_a_part_that_is_the_whole_is_not_fetched_again(server, url, tmp_path):
    folder = fetch(url).parent
    (folder / "net.pth").rename(folder / "part")
    assert fetch(url, SHA256).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=1280000-"
    (folder / "net.pth").unlink()
    (folder / "part").write_bytes(CONTENT + b"more")
    assert fetch(url, SHA256).read_bytes() == CONTENT
    assert server.requests[-2:] == [("/models/net.pth", "bytes=1280004-"), ("/models/net.pth", None)]


def test_wrong_bytes_are_refused_and_not_kept(server, url, tmp_path):
    server.files["/models/net.pth"] = CONTENT[:-1] + b"!"
    with pytest.raises(
        WeightsError, match=rf"error\[C4\]: {url}: its sha256 begins with \w{{64}}, not {SHA256.digits}"
    ):
        fetch(url, SHA256)
    assert left(tmp_path) == {"record.json"}
    server.files["/models/net.pth"] = CONTENT
    assert fetch(url, SHA256).read_bytes() == CONTENT


def test_a_few_digits_are_a_checksum_too(server, url):
    assert fetch(url, Checksum("sha256", SHA256.digits[:8])).read_bytes() == CONTENT
    with pytest.raises(WeightsError, match=rf"begins with {SHA256.digits[:8]}, not 01234567"):
        fetch(url, Checksum("sha256", "01234567"))


def test_what_rots_in_the_cache_is_fetched_again(server, url):
    path = fetch(url)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert fetch(url).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("record", ["", "{", "[]", "3", '{"url": "https://elsewhere", "sha256": "0"}'])
def test_a_damaged_record_is_no_record(server, url, record):
    (fetch(url).parent / "record.json").write_text(record)
    assert fetch(url).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_redirects_are_followed_and_their_checksum_believed(server, url):
    told = {"X-Linked-ETag": f'"{SHA256.digits}"'}
    server.redirects["/resolve"] = (url, told)
    assert fetch(server.url("/resolve")).read_bytes() == CONTENT
    server.redirects["/wrong"] = (url, {"X-Linked-ETag": f'"{"0" * 64}"'})
    with pytest.raises(WeightsError, match=r"C4.*not 0000"):
        fetch(server.url("/wrong"))


def test_a_broken_download_goes_on_behind_a_redirect(server, url):
    server.redirects["/resolve"] = (url, {})
    server.cuts = [300_000]
    assert fetch(server.url("/resolve")).read_bytes() == CONTENT
    assert server.requests[-1] == ("/models/net.pth", "bytes=300000-")


def test_redirects_in_a_circle_end(server):
    server.redirects["/a"] = ("/a", {})
    with pytest.raises(ResourceError, match=r"L5.*cannot fetch"):
        fetch(server.url("/a"))


def test_https_is_not_left():
    request = download.urllib.request.Request("https://example.org/a")
    with pytest.raises(download.urllib.error.HTTPError, match="not https"):
        download._Redirects().redirect_request(request, None, 302, "Found", {}, "http://example.org/a")


@pytest.mark.parametrize("status", [404, 403, 401, 410])
def test_what_is_not_there_is_said_at_once(server, url, status):
    server.answers = [status] * 9
    with pytest.raises(ResourceError, match=rf"error\[L5\]: cannot fetch {url}: {status} .*check the address"):
        fetch(url)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_server_in_trouble_is_asked_again(server, url, status):
    server.answers = [status] * 3
    assert fetch(url).read_bytes() == CONTENT
    server.answers = [status] * 99
    with pytest.raises(ResourceError, match=rf"cannot fetch .*other.*: {status} .*check the network"):
        fetch(server.url("/other"))
    assert len(server.requests) == 4 + download.TRIES


def test_tries_are_counted_without_progress(server, url):
    server.cuts = [1000] * (3 * download.TRIES)
    assert fetch(url).read_bytes() == CONTENT


def test_a_server_that_is_not_there(tmp_path, server, url):
    server.shutdown()
    server.server_close()
    with pytest.raises(ResourceError, match=r"error\[L5\]: cannot fetch http://127.0.0.1.*refused.*check the network"):
        fetch(url)


def test_a_silent_server_is_given_up(server, monkeypatch, tmp_path):
    import socket

    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "TRIES", 2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ResourceError, match=r"cannot fetch .*timed out"),
    ):
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/net.pth")


def test_without_a_length_the_end_is_the_end(server, url):
    server.lengths = False
    assert fetch(url).read_bytes() == CONTENT


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://example.org/a", "https://", "net.pth", "data:,a"])
def test_only_the_web_is_fetched_from(server, address):
    with pytest.raises(ConfigError, match="is no https address"):
        fetch(address)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/..%2f..%2fetc%2fpasswd", "_.._etc_passwd"), ("/", "file"), ("/.hidden", "hidden"), ("/a%0ab", "a_b"),
     ("/" + "x" * 300, "x" * 100), ("/model.safetensors?token=1", "model.safetensors")],
)  # fmt: skip
def test_names_from_the_web_stay_in_their_folder(server, tmp_path, path, name):
    server.files[path] = b"content"
    assert fetch(server.url(path)).relative_to(tmp_path / "cache" / "weights").parts[1:] == (name,)


def test_two_at_once_fetch_it_once(server, url):
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(fetch(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert len(server.requests) == 1


def test_a_cache_that_cannot_be_written_is_named(url, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ResourceError, match=r"L5.*cannot write to the cache .*set \$CONVATLAS_CACHE"):
        fetch(url)


def test_a_full_disk_is_said_and_not_tried_again(server, url, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, _):
            raise OSError(28, "No space left on device")

    really = download.Path.open
    monkeypatch.setattr(
        download.Path, "open",
        lambda path, *args, **kw: Full(really(path, *args, **kw)) if path.name == "part" else really(path, *args, **kw),
    )  # fmt: skip
    with pytest.raises(ResourceError, match=r"L5.*cannot write to the cache .*No space left on device"):
        fetch(url)
    assert len(server.requests) == 1


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("CONVATLAS_CACHE", "~/here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("CONVATLAS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(files.sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "convatlas"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "convatlas"
    monkeypatch.setattr(files.sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "convatlas"
    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "convatlas"
    assert os.environ["LOCALAPPDATA"]
