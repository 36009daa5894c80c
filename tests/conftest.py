"""What all tests share."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # of the programs that tests start: their threads would wait for each other's cores

import pytest
import torch

from convatlas import files


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Two workers on two cores; and the order of additions, so the last bit, depends on the number of threads."""
    torch.set_num_threads(1)


@pytest.fixture
def fault(monkeypatch):
    """`fault("EIO@fsync:2+")` provokes it from here on; the waits are shortened to nothing."""
    monkeypatch.setattr(files, "WAITS", (0, 0, 0))

    def provoke(what):
        files._reached.clear()
        monkeypatch.setenv("CONVATLAS_FAULT", what)

    return provoke
