"""Brokers for pytest: ``kafka_broker``, ``kafka_session_broker``, ``kafka_bootstrap_servers``.

Imports pytest and nothing else of ours until a fixture is used: an installed plugin must cost a run
that does not need it nothing. Under pytest-xdist each worker has brokers of its own.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbroker.embedded import BrokerThread


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--kafka-bootstrap``: run against a real cluster instead."""
    group = parser.getgroup("kbroker")
    group.addoption(
        "--kafka-bootstrap",
        metavar="HOST:PORT",
        default=None,
        help="kafka_bootstrap_servers gives this address instead of a broker of its own",
    )


@pytest.fixture
def kafka_broker(request: pytest.FixtureRequest) -> "Iterator[BrokerThread]":
    """A fresh in-memory broker for this test, a ``kbroker.BrokerThread``."""
    _needs_own_broker(request)
    from kbroker.embedded import BrokerThread

    with BrokerThread() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_session_broker(request: pytest.FixtureRequest) -> "Iterator[BrokerThread]":
    """One in-memory broker for the whole run (for each worker of pytest-xdist)."""
    _needs_own_broker(request)
    from kbroker.embedded import BrokerThread

    with BrokerThread() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_bootstrap_servers(request: pytest.FixtureRequest) -> str:
    """``host:port`` of the session's broker, or of the cluster named by --kafka-bootstrap."""
    external: str | None = request.config.getoption("--kafka-bootstrap")
    if external is not None:
        return external
    broker: BrokerThread = request.getfixturevalue("kafka_session_broker")
    return broker.bootstrap_servers


def _needs_own_broker(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--kafka-bootstrap") is not None:
        pytest.skip("needs a broker of its own, and --kafka-bootstrap names another")
