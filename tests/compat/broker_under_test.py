"""Which broker the compat tests talk to.

* nothing set: a kbroker process that the run starts and owns;
* ``KBROKER_COMPAT_BROKER=apache-kafka``: an Apache Kafka process that the run starts and owns;
* ``KBROKER_COMPAT_BOOTSTRAP=host:port``: whatever listens there. Tests that stop, kill or
  configure the broker are skipped.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.peers.apache_kafka import ApacheKafka
from tests.peers.kbroker_process import KbrokerProcess
from tests.peers.require import PeerUnavailable, skip_or_fail

if TYPE_CHECKING:
    from pathlib import Path

BROKER_VARIABLE = "KBROKER_COMPAT_BROKER"
BOOTSTRAP_VARIABLE = "KBROKER_COMPAT_BOOTSTRAP"

# Members of the consumer protocol hear of a rebalance at a heartbeat: by default every 5 s.
SETTINGS = {
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
}


class OwnedBroker(Protocol):
    """A broker process that a test may stop, kill and start again on the same address."""

    @property
    def name(self) -> str: ...

    @property
    def error_log(self) -> Path: ...

    @property
    def bootstrap(self) -> str: ...

    @property
    def data_dir(self) -> Path: ...

    @property
    def is_running(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def report(self) -> str: ...


def external_bootstrap() -> str | None:
    """The address of a broker that somebody else runs, when the environment names one."""
    return os.environ.get(BOOTSTRAP_VARIABLE) or None


def make_owned_broker(folder: Path) -> OwnedBroker:
    """A broker of the kind under test in ``folder``, not yet started; skips if there is none."""
    if external_bootstrap():
        pytest.skip(f"{BOOTSTRAP_VARIABLE} is set: this test needs a broker of its own")
    kind = os.environ.get(BROKER_VARIABLE, "kbroker")
    if kind == "kbroker":
        return KbrokerProcess(folder, settings=SETTINGS)
    if kind == "apache-kafka":
        try:
            return ApacheKafka(folder, settings=SETTINGS)
        except PeerUnavailable as error:
            skip_or_fail(error)
    raise ValueError(f"{BROKER_VARIABLE} is {kind!r}; it must be 'kbroker' or 'apache-kafka'")


def assert_nothing_went_wrong(broker: OwnedBroker) -> None:
    """An error in kbroker's log is a bug even where every client got over it."""
    if broker.name != "kbroker":
        return
    lines = broker.error_log.read_text().splitlines()
    signs = (" ERROR ", " CRITICAL ", "Traceback (most recent call last)", "Task exception")
    bad = [line for line in lines if any(sign in line for sign in signs)]
    assert not bad, "\n".join([*bad[:10], broker.report()])
