"""The broker under test, shared by the whole run, and fresh names for every test."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from tests.compat.broker_under_test import (
    OwnedBroker,
    assert_nothing_went_wrong,
    external_bootstrap,
    make_owned_broker,
)
from tests.peers import client_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

RUNNING = pytest.StashKey[list[OwnedBroker]]()

# The slowest broker under test, Apache Kafka after kill -9, is back after half a minute.
OWNED_BROKER_TEST_TIMEOUT_S = 300


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RUNNING] = []
    client_warnings.tolerate(config)


def pytest_sessionfinish() -> None:
    client_warnings.collect_garbage()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "owned_broker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(OWNED_BROKER_TEST_TIMEOUT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the brokers said."""
    report = yield
    if report.failed:
        for broker in item.config.stash[RUNNING]:
            report.sections.append((f"{broker.name} {broker.bootstrap}", broker.report()))
    return report


@pytest.fixture(scope="session")
def bootstrap(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[str]:
    """``host:port`` of the broker that all tests share."""
    external = external_bootstrap()
    if external:
        yield external
        return
    broker = make_owned_broker(tmp_path_factory.mktemp("broker") / "shared")
    broker.start()
    pytestconfig.stash[RUNNING].append(broker)
    yield broker.bootstrap
    pytestconfig.stash[RUNNING].remove(broker)
    try:
        broker.stop()
    finally:
        broker.kill()
    assert_nothing_went_wrong(broker)


@pytest.fixture
def owned_broker(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[OwnedBroker]:
    """A running broker that belongs to this test alone: it may be stopped and killed."""
    broker = make_owned_broker(tmp_path_factory.mktemp("broker") / "owned")
    broker.start()
    pytestconfig.stash[RUNNING].append(broker)
    yield broker
    pytestconfig.stash[RUNNING].remove(broker)
    broker.kill()
    assert_nothing_went_wrong(broker)


@pytest.fixture
def fresh_name() -> Callable[[str], str]:
    """Names that no other test, and no earlier run against the same broker, has used."""

    def name(prefix: str) -> str:
        return f"{prefix}-{uuid.uuid4().hex[:12]}"

    return name


@pytest.fixture
def topic(fresh_name: Callable[[str], str]) -> str:
    """A topic name of this test's own; the topic does not exist yet."""
    return fresh_name("topic")


@pytest.fixture
def group(fresh_name: Callable[[str], str]) -> str:
    """A consumer group id of this test's own."""
    return fresh_name("group")
