"""A transaction coordinator on a log in memory, with markers that a test watches and refuses."""

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from kbroker.common.clock import ManualClock
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.timer import Timer
from kbroker.config.broker_config import BrokerConfig, ConfigHolder
from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.coordinator.partitioning import partition_for
from kbroker.coordinator.transaction.marker_writer import TransactionMarker
from kbroker.coordinator.transaction.transaction_coordinator import TransactionCoordinator
from kbroker.coordinator.transaction.transaction_metadata import Identity, TransactionMetadata
from kbroker.coordinator.transaction.transaction_records import TransactionRecordSerde
from kbroker.metadata.delta import difference
from kbroker.metadata.image import EMPTY_IMAGE, MetadataImage, TopicImage, TopicsImage
from kbroker.protocol.internal_records.transaction_log_key import TransactionLogKey
from tests.unit.coordinator.memory_log import MemoryLog
from tests.unit.data_plane import partition_image

if TYPE_CHECKING:
    from kbroker.protocol.errors import KafkaError

NODE = 1
TXN = "tx"
PARTITIONS = 3
INDEX = partition_for(TXN, PARTITIONS)
DATA = ("t", 0)
MORE = ("t", 1)


class Markers:
    """MarkerWriter that remembers; ``failure`` is raised, ``waits`` leaves answers open."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int, TransactionMarker]] = []
        self.failure: KafkaError | None = None
        self.waits = False
        self.open: list[Deferred[None]] = []

    def write(self, topic: str, partition: int, marker: TransactionMarker) -> Answer[None]:
        if self.failure is not None:
            raise self.failure
        self.written.append((topic, partition, marker))
        if not self.waits:
            return None
        self.open.append(Deferred())
        return self.open[-1]


class Coordinated:
    """One coordinator that leads all partitions of its topic."""

    def __init__(
        self,
        log: MemoryLog | None = None,
        *,
        lead: bool = True,
        markers: Markers | None = None,
        faults: Faults = NO_FAULTS,
    ) -> None:
        self.clock = ManualClock(monotonic=1000.0, time_ms=1_700_000_000_000)
        self.timer = Timer(self.clock)
        self.log = log or MemoryLog()
        self.markers = markers or Markers()
        self.next_id = 1000
        self.slow_ids = False
        self.coordinator = TransactionCoordinator(
            node_id=NODE,
            config=ConfigHolder(BrokerConfig.from_properties({})),
            clock=self.clock,
            timer=self.timer,
            writer=self.log,
            loader=self.log,
            markers=self.markers,
            generate_producer_id=self._generate,
            log=logging.getLogger("test"),
            faults=faults,
        )
        if lead:
            self.lead()

    def lead(self) -> None:
        """The metadata says that this broker leads ``__transaction_state``."""
        topic = TopicImage(
            "__transaction_state",
            b"\x01" * 16,
            [partition_image(NODE, (NODE,), None, 0, 1) for _ in range(PARTITIONS)],
            is_internal=True,
        )
        image = MetadataImage(
            cluster_id="test",
            revision=1,
            brokers={},
            topics=TopicsImage({topic.name: topic}, {topic.topic_id: topic}),
            configs={},
        )
        self.coordinator.apply(difference(EMPTY_IMAGE, image), image)

    def _generate(self) -> int | Coroutine[Any, Any, int]:
        self.next_id += 1
        return self._later(self.next_id - 1) if self.slow_ids else self.next_id - 1

    @staticmethod
    async def _later(producer_id: int) -> int:
        return producer_id

    def advance(self, seconds: float) -> None:
        """Let time pass and everything that is due happen."""
        self.clock.advance(seconds)
        while self.timer.run_due():
            pass

    # Requests that are answered at once

    def init(self, expected: tuple[int, int] | None = None, timeout_ms: int = 60_000) -> Identity:
        answer = self.coordinator.init_producer_id(TXN, timeout_ms, expected)
        assert isinstance(answer, Identity)
        return answer

    def add(self, producer: tuple[int, int], *partitions: tuple[str, int], version: int = 0) -> int:
        asked = partitions or (DATA,)
        answer = self.coordinator.add_partitions(TXN, *producer, asked, version)
        assert isinstance(answer, int)
        return answer

    def end(self, producer: tuple[int, int], *, commit: bool = True, version: int = 0) -> Identity:
        answer = self.coordinator.end_transaction(
            TXN, *producer, commit=commit, client_version=version
        )
        assert isinstance(answer, Identity)
        return answer

    def producer(self) -> tuple[int, int]:
        """A fresh producer id and epoch."""
        answer = self.init()
        return answer.producer_id, answer.producer_epoch

    # What there is

    def metadata(self) -> TransactionMetadata:
        found = self.coordinator.describe(TXN)
        assert isinstance(found, TransactionMetadata)
        return found

    @property
    def state(self) -> str:
        return self.metadata().state.title

    def written_states(self) -> list[str]:
        """The states in the log, in order; "-" is a tombstone."""
        serde = TransactionRecordSerde()
        found = []
        for record in self.log.records(INDEX):
            assert record.key is not None
            _, value = serde.deserialize(record.key, record.value)
            found.append("-" if value is None else value.state.title)
        return found

    def set_epoch(self, epoch: int) -> tuple[int, int]:
        """A new producer that has come this far."""
        answer = self.init()
        key = TransactionLogKey(TXN)
        advanced = self.metadata()._replace(producer_epoch=epoch)
        self.coordinator.shard(TXN).replay(0, -1, key, advanced)
        return answer.producer_id, epoch


async def restarted(old: Coordinated) -> Coordinated:
    """A new broker on the same log, loaded."""
    new = Coordinated(old.log, lead=False)
    new.clock.advance(old.clock.monotonic() - new.clock.monotonic())
    old.log.listeners.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(new.coordinator.run)
        new.lead()
        while any(new.coordinator.is_loading(index) for index in range(PARTITIONS)):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    while new.timer.run_due():
        pass
    return new
