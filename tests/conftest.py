"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Two workers on two cores; and the order of additions, so the last bit, depends on the number of threads."""
    torch.set_num_threads(1)
