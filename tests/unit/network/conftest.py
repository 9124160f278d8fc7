"""Every test of a shell runs on all of them."""

import pytest

from tests.unit.network.peers import KINDS, backend_of


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which shell on which event loop."""
    return str(request.param)


@pytest.fixture
def anyio_backend(kind: str):
    """The event loop that goes with the shell."""
    return backend_of(kind)
