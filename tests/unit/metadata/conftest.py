"""Async tests of the metadata package run on asyncio; the store's contract also on trio."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
