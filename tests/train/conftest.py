"""What the tests share that start real processes."""

import pytest

from commands import serving


@pytest.fixture(scope="module")
def server():
    """Starts commands of convatlas."""
    with serving() as server:
        yield server
