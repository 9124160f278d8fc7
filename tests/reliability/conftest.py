"""Clients' own warnings are no failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.peers import client_warnings

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    client_warnings.tolerate(config)


def pytest_sessionfinish() -> None:
    client_warnings.collect_garbage()
