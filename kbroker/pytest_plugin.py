"""Brokers for pytest: ``kafka_broker``, ``kafka_session_broker``, ``kafka_bootstrap_servers``.

Imports pytest and nothing else of ours until a fixture is used: an installed plugin must cost a run
that does not need it nothing. Under pytest-xdist each worker has brokers of its own.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbroker.embedded import BrokerThread
    from kbroker.testing.external import ExternalCluster


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--kafka-bootstrap``: run against a real cluster instead."""
    group = parser.getgroup("kbroker")
    group.addoption(
        "--kafka-bootstrap",
        metavar="HOST:PORT",
        default=None,
        help="run the kafka fixtures against this cluster instead of brokers of their own",
    )


@pytest.fixture
def kafka_broker(pytestconfig: pytest.Config) -> "Iterator[BrokerThread | ExternalCluster]":
    """A fresh in-memory broker for this test, a ``kbroker.BrokerThread``.

    With --kafka-bootstrap the same verbs on that cluster; topics made by them are deleted after
    the test.
    """
    yield from _broker(pytestconfig)


@pytest.fixture(scope="session")
def kafka_session_broker(
    pytestconfig: pytest.Config,
) -> "Iterator[BrokerThread | ExternalCluster]":
    """One in-memory broker for the whole run (for each worker of pytest-xdist).

    With --kafka-bootstrap the same verbs on that cluster, as ``kafka_broker``.
    """
    yield from _broker(pytestconfig)


@pytest.fixture(scope="session")
def kafka_bootstrap_servers(request: pytest.FixtureRequest) -> str:
    """``host:port`` of the session's broker, or of the cluster named by --kafka-bootstrap."""
    external: str | None = request.config.getoption("--kafka-bootstrap")
    if external is not None:
        return external
    broker: BrokerThread = request.getfixturevalue("kafka_session_broker")
    return broker.bootstrap_servers


def _broker(config: pytest.Config) -> "Iterator[BrokerThread | ExternalCluster]":
    external: str | None = config.getoption("--kafka-bootstrap")
    if external is not None:
        from kbroker.testing.external import ExternalCluster

        with ExternalCluster(external) as cluster:
            yield cluster
        return
    from kbroker.embedded import BrokerThread

    with BrokerThread() as broker:
        yield broker
