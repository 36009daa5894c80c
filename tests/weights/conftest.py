"""Networks that are not freshly initialised, and files to attack."""

import hashlib
import http.server
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from convatlas.data import Preprocess
from convatlas.weights import Bundle, download
from convatlas.zoo import spec

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # for `parity`


EFFECTS = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename", "os.chmod", "os.mkdir",
           "subprocess.Popen", "socket.", "ctypes.dlopen", "shutil.")  # fmt: skip
watched: list[str] | None = None


def watch(event, args):
    if watched is None:
        return
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if event.startswith(EFFECTS) or writes:
        watched.append(f"{event}{args}")


@pytest.fixture(scope="session")
def audit():
    sys.addaudithook(watch)  # for good: a hook cannot be taken out again


@pytest.fixture
def effects(audit):
    """What the process did to the world outside during the test."""
    global watched
    watched = []
    yield watched
    watched = None


@pytest.fixture
def seed() -> int:
    """A fresh seed for `random`, printed if the test fails."""
    seed = random.randrange(2**32)
    random.seed(seed)
    print(f"seed {seed}")
    return seed


def randomise_norms(net: nn.Module) -> nn.Module:
    """Statistics and affine parameters that are not the trivial ones; in eval mode."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean, std=0.2)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.2)
    return net.eval()


@pytest.fixture(scope="session")
def randomised() -> Callable[[nn.Module], nn.Module]:
    return randomise_norms


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    """`make_bundle("resnet20", classes=3)`: a bundle of a network with random weights."""

    def make(name: str, **overrides) -> Bundle:
        torch.manual_seed(0)
        arch = spec(name, **overrides)
        return Bundle(
            spec=arch,
            weights=randomise_norms(arch.build()).state_dict(),
            classes=tuple(f"class {i}" for i in range(arch.classes)),
            preprocess=Preprocess(size=arch.size, resize=arch.size + 4),
            metrics={"val": {"top1": 0.5}, "epochs": [1, 2]},
            recipe={"lr": 0.1, "name": "naïve"},
            source="tests",
            licence="CC0",
        )

    return make


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data and weights kept beside the project, where there are any."""
    folder = Path(__file__).parents[3] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside the project")
    return folder


class Server(http.server.ThreadingHTTPServer):
    """A web server on this machine that serves `files` (path -> bytes) and misbehaves as told.

    `cuts` are the numbers of bytes after which the next answers break off; `answers` are statuses for the next
    requests instead of a file.  `ranges`, `etags` and `lengths` say whether it supports them.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, tuple[str, dict[str, str]]] = {}
        self.cuts: list[int] = []
        self.answers: list[int] = []
        self.ranges = self.etags = self.lengths = True
        self.requests: list[tuple[str, str | None]] = []  # path and Range

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        if self.server.answers:
            return self.send_error(self.server.answers.pop(0))
        if self.path in self.server.redirects:
            target, headers = self.server.redirects[self.path]
            return self.answer(302, {"Location": target, "Content-Length": "0", **headers})
        if self.path not in self.server.files:
            return self.send_error(404)
        content = self.server.files[self.path]
        etag, start, headers = f'"{hashlib.md5(content).hexdigest()}"', 0, {}
        if self.server.etags:
            headers["ETag"] = etag
        if self.server.ranges and wanted and self.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.server.lengths:
            headers["Content-Length"] = str(len(content) - start)
        self.answer(206 if start else 200, headers)
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start:end])
        return None

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    """A running one, and an empty cache."""
    monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(download, "TIMEOUT", 2.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
