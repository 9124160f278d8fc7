"""The brokers that are compared, each as a process of its own."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Protocol

from tests.peers import probe
from tests.peers.apache_kafka import ApacheKafka
from tests.peers.kbroker_process import KbrokerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMPILED = "kbroker-compiled"
GATHERING = "kbroker-gathering"


class MeasuredBroker(Protocol):
    """What a benchmark needs of a broker process."""

    @property
    def name(self) -> str: ...

    @property
    def bootstrap(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class BrokerFactory:
    """Makes brokers of one kind, each in a new folder."""

    def __init__(self, name: str, make: Callable[[Path], MeasuredBroker], folder: Path) -> None:
        self.name = name
        self._make = make
        self.folder = folder
        self._numbers = itertools.count()

    def make(self) -> MeasuredBroker:
        """A broker on an empty data directory, not started."""
        return self._make(self.folder / f"{self.name}-{next(self._numbers)}")


def compiled_kbroker(tree: Path) -> Callable[[Path], MeasuredBroker]:
    """Makes brokers of a tree whose hot modules were compiled."""

    class Compiled(KbrokerProcess):
        name = COMPILED

    # Safe path: the folder where the benchmarks run has the same modules, not compiled.
    environment = {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    return lambda folder: Compiled(folder, environment=environment)


def gathering_kbroker(folder: Path) -> MeasuredBroker:
    """A broker that reads what it sends, as one must that encrypts."""

    class Gathering(KbrokerProcess):
        name = GATHERING

    return Gathering(folder, settings={"kbroker.fetch.sendfile": "false"})


def seconds_to_first_answer(factory: BrokerFactory) -> float:
    """From the spawn of a process on an empty data directory to its first ApiVersions answer."""
    broker = factory.make()
    if isinstance(broker, ApacheKafka):
        broker.prepare()  # formatting is a step of its own, with a JVM of its own
    started = time.monotonic()
    try:
        broker.start()
        probe.ask_api_versions(broker.bootstrap, timeout_s=10)
        return time.monotonic() - started
    finally:
        broker.kill()
