"""Real image files, made on the spot."""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def make_png(seed: int = 0, side: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """`png(seed)`: a small image of noise, another for each seed."""
    return make_png


@pytest.fixture(scope="session")
def fill() -> Callable[[Path, Mapping[str, int]], Path]:
    """`fill(folder, {"cat": 3})` writes three images into `folder/cat`."""

    def write(folder: Path, counts: Mapping[str, int]) -> Path:
        for number, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                (folder / name / f"{index}.png").write_bytes(make_png(1000 * number + index))
        return folder

    return write


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data kept beside the project, where there is any."""
    folder = Path(__file__).parents[3] / "shared/data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the project")
    return folder


@pytest.fixture
def public() -> Iterator[Path]:
    """A temporary folder that everyone may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def become_nobody() -> Iterator[None]:
    if os.geteuid() != 0:  # modes already bind whoever is not root
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def nobody() -> Callable[[], contextlib.AbstractContextManager]:
    """`with nobody():` the modes of files bind, also where the tests run as root."""
    return become_nobody
