"""The standard data sets; those that are fetched are fetched for real, from a server of tiny ones on this machine."""

import gzip
import hashlib
import http.server
import socket
import struct
import threading
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data.named import data_root, read_named
from convatlas.data.open import open_data
from convatlas.errors import ResourceError

datasets = pytest.importorskip("torchvision.datasets")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVATLAS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_root(monkeypatch, tmp_path):
    assert data_root() == tmp_path / "data"
    monkeypatch.delenv("CONVATLAS_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root() == tmp_path / ".cache/convatlas/data"


def test_digits():
    splits = open_data("digits")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (1079, 359, 359)
    assert splits.how == "val is 20% and test 20% of each class, cut by seed 0; train is the rest"
    assert splits.classes == tuple("0123456789")
    image, label = splits.train[0]
    assert image.shape == (3, 8, 8)
    assert image.dtype == torch.uint8
    assert splits.train.names[0] == "digits/0"
    assert label == 0
    assert torch.equal(image[0], image[2])
    assert max(int(splits.train[index][0].max()) for index in range(9)) == 255
    assert sorted(splits.train.names + splits.val.names + splits.test.names) == sorted(
        f"digits/{index}" for index in range(1797)
    )


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files, gzipped [yann.lecun.com/exdb/mnist]."""
    return gzip.compress(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A server of a small MNIST of 200 train and 50 test images.  Its folder and its pixels."""
    served = tmp_path / "served"
    served.mkdir()
    rng = np.random.default_rng(0)
    pixels, resources = {}, []
    for part, count in (("train", 200), ("t10k", 50)):
        pixels[part] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for kind, array in (("images", pixels[part]), ("labels", np.arange(count, dtype=np.uint8) % 10)):
            content = idx(array)
            name = f"{part}-{kind}-idx{array.ndim}-ubyte.gz"
            (served / name).write_bytes(content)
            resources.append((name, hashlib.md5(content).hexdigest()))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    yield served, pixels
    server.shutdown()
    thread.join()
    server.server_close()


def test_mnist_is_fetched_once_and_cut(mnist, root):
    served, pixels = mnist
    with pytest.raises(ResourceError, match=rf"error\[L5\]: mnist is not in {root}.*\(12 MB\) with --download"):
        open_data("mnist")
    splits = open_data("mnist", download=True)
    assert splits.how == "test is the given test part; val is 10% of each class of train, cut by seed 0"
    assert (len(splits.train), len(splits.val), len(splits.test)) == (180, 20, 50)
    assert splits.val.labels.bincount().tolist() == [2] * 10
    for images, part in ((splits.train, "train"), (splits.test, "t10k")):
        for index, name in enumerate(images.names):
            expected = torch.from_numpy(pixels[part][int(name.split("/")[1])]).expand(3, 28, 28)
            assert torch.equal(images[index][0], expected)
    for file in served.iterdir():
        file.unlink()
    assert open_data("mnist").test.names == splits.test.names


def test_a_changed_download_is_refused(mnist):
    served, _ = mnist
    name = "t10k-images-idx3-ubyte.gz"
    (served / name).write_bytes(idx(np.zeros((50, 28, 28), np.uint8)))
    with pytest.raises(ResourceError, match=r"cannot fetch mnist \(12 MB\).*corrupted"):
        open_data("mnist", download=True)


def test_a_torn_file_is_refused(mnist, root):
    open_data("mnist", download=True)
    torn = root / "MNIST/raw/train-images-idx3-ubyte"
    torn.write_bytes(torn.read_bytes()[:1000])
    with pytest.raises(ResourceError, match=r"mnist is not in .*, or not whole"):
        open_data("mnist")


def test_no_network(mnist, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])
    with pytest.raises(ResourceError, match=r"cannot fetch mnist .*refused.*Remedy: check network") as caught:
        open_data("mnist", download=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist", "imagenet"])
def test_absent_data_says_what_to_do(name, root):
    with pytest.raises(ResourceError, match=rf"error\[L5\]: {name} is not .*{root}.*Remedy: .*(MB|GB)"):
        read_named(name)


def test_imagenet_unpacked(root, png):
    """The layout that torchvision leaves, with three classes."""
    words = {"n01": ("tench", "Tinca tinca"), "n02": ("crane",), "n03": ("crane",)}
    for wnid in words:
        for split, count in (("train", 10), ("val", 2)):
            folder = root / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{wnid}_{index}.JPEG").write_bytes(png(index))
    torch.save((words, []), root / "imagenet/meta.bin")
    splits = open_data("imagenet", on_bad_file="lazy")
    assert splits.classes == ("n01 tench", "n02 crane", "n03 crane")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (27, 3, 6)
    assert splits.test.names[0] == "val/n01/n01_0.JPEG"
    assert splits.test[5][0].shape == (3, 8, 8)
    assert splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    Image.open(root / "imagenet" / splits.test.names[0]).close()
