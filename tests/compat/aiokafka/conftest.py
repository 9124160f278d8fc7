"""aiokafka runs on asyncio; anyio's pytest plugin runs the tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
