"""Warnings that come from inside the client libraries, in runs where warnings are errors."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

CLIENTS_OWN_WARNINGS = (
    "ignore:(read|open)_text is deprecated:DeprecationWarning",
    # kafka-python leaves the socket of a refused connection to the garbage collector.
    "ignore:unclosed <socket:ResourceWarning",
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning",
)


def tolerate(config: pytest.Config) -> None:
    """Lets these warnings pass in the tests of this run; for a conftest's pytest_configure."""
    for warning in CLIENTS_OWN_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


def collect_garbage() -> None:
    """For a conftest's pytest_sessionfinish: after it these filters are no longer in force, and
    pytest itself collects what clients have left."""
    gc.collect()
