"""Topics, produce and consume on a broker of this process, without sockets or a client library.

Takes the same steps as requests do: records are validated, appended and read back by the broker's
own services. Meant for tests that set the scene for a program, or look at what it left behind.
"""

from collections.abc import Coroutine, Mapping, Sequence
from typing import NamedTuple, Self

import anyio

from kbroker.broker.broker_server import BrokerServer
from kbroker.metadata.topic_control import NewTopic
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader, build_batch
from kbroker.record.partitioner import partition_for_key
from kbroker.record.record import Record, iter_records
from kbroker.replication.partition import Partition
from kbroker.storage.unified_log import UnifiedLog

Headers = Sequence[tuple[str, bytes | None]]
"""Pairs of name and value."""

ACKS_ALL = -1
_LOOK_AGAIN_S = 0.1


class ConsumedRecord(NamedTuple):
    """A record as it lies in its log; ``timestamp`` in ms since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class LocalClient:
    """Verbs over one broker, on the broker's own loop."""

    def __init__(self, server: BrokerServer) -> None:
        self._server = server
        self._next_partition = 0

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        """Create a topic. Raises KafkaError, for instance TOPIC_ALREADY_EXISTS."""
        configs = [(key, _config_text(value)) for key, value in (config or {}).items()]
        topic = NewTopic(name=name, num_partitions=partitions, configs=configs)
        (created,) = await self._server.controller.create_topics([topic])
        if created.error is not None:
            raise created.error

    async def produce(
        self,
        topic: str,
        value: bytes | str | None,
        *,
        key: bytes | str | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> tuple[int, int]:
        """Append one record; returns (partition, offset). The topic is created when it is missing.

        Without a partition the key decides as in Java's and other clients (murmur2), without a key
        the partitions take turns. Raises KafkaError.
        """
        count = await self._partition_count(topic)
        encoded_key = _encoded(key)
        if partition is None:
            partition = self._choose_partition(encoded_key, count)
        record = Record(
            key=encoded_key,
            value=_encoded(value),
            headers=tuple(headers),
            timestamp=self._server.clock.time_ms() if timestamp is None else timestamp,
        )
        hosted = self._server.replica_manager.get_leader_partition(topic, partition)
        appended = self._server.replica_manager.leader_append.append_records(
            hosted, build_batch([record]), ACKS_ALL
        )
        info = await appended if isinstance(appended, Coroutine) else appended
        await self._committed(hosted, info.first_offset + 1)
        return partition, info.first_offset

    async def consume(
        self,
        topic: str,
        *,
        count: int | None = None,
        partition: int | None = None,
        timeout_s: float = 5.0,
    ) -> list[ConsumedRecord]:
        """The topic's records from its beginning, partition by partition.

        With ``count`` waits until there are so many and returns the first ones; TimeoutError when
        they do not come. Without it returns what is there.
        """
        if count is None:
            return self._read(topic, partition, None)
        records = self._read(topic, partition, count)
        if len(records) < count:
            with anyio.move_on_after(timeout_s):
                while len(records := self._read(topic, partition, count)) < count:
                    # the topic itself may come only now, and partitions with it
                    with anyio.move_on_after(_LOOK_AGAIN_S), self._listening(topic) as arrivals:
                        await arrivals.wait()
        if len(records) < count:
            raise TimeoutError(
                f"{topic} holds {len(records)} records after {timeout_s} s, {count} were expected"
            )
        return records

    async def _partition_count(self, topic: str) -> int:
        image = self._server.publisher.image.topics.get(topic)
        if image is None:
            errors = await self._server.controller.ensure_topics([topic])
            if topic in errors:
                raise errors[topic]
            image = self._server.publisher.image.topics.get(topic)
        if image is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return len(image.partitions)

    def _choose_partition(self, key: bytes | None, count: int) -> int:
        if key is not None:
            return partition_for_key(key, count)
        self._next_partition += 1
        return (self._next_partition - 1) % count

    def _listening(self, topic: str) -> "_Arrivals":
        partitions = self._server.replica_manager.partitions()
        return _Arrivals([each for each in partitions if each.topic == topic])

    async def _committed(self, partition: Partition, offset: int) -> None:
        with _Arrivals([partition]) as arrivals:
            while partition.log.high_watermark < offset:
                await arrivals.wait()
                partition.leader_log()  # raises when this broker leads it no more

    def _read(self, topic: str, partition: int | None, most: int | None) -> list[ConsumedRecord]:
        image = self._server.publisher.image.topics.get(topic)
        if image is None:
            return []
        indexes = range(len(image.partitions)) if partition is None else (partition,)
        records: list[ConsumedRecord] = []
        for index in indexes:
            log = self._server.replica_manager.get_leader_partition(topic, index).log
            aborted = _aborted(log)
            for batch in log.read_batches(log.log_start_offset, log.last_stable_offset):
                if most is not None and len(records) >= most:
                    return records[:most]
                if aborted and _is_aborted(RecordBatchHeader(batch), aborted):
                    continue
                records.extend(_consumed(topic, index, batch, log.log_start_offset))
        return records if most is None else records[:most]


class _Arrivals:
    """Listens to partitions while it is entered; ``wait`` returns when one has moved."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self._partitions = partitions
        self._moved = anyio.Event()

    def __enter__(self) -> Self:
        for partition in self._partitions:
            partition.add_listener(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for partition in self._partitions:
            partition.remove_listener(self)

    async def wait(self) -> None:
        await self._moved.wait()
        self._moved = anyio.Event()

    def on_high_watermark_updated(self, offset: int) -> None:
        self._moved.set()

    def on_failed(self) -> None:
        self._moved.set()

    def on_deleted(self) -> None:
        self._moved.set()


def _aborted(log: UnifiedLog) -> dict[int, list[tuple[int, int]]]:
    """Producer id to first and last offsets of its aborted transactions, up to the LSO."""
    found: dict[int, list[tuple[int, int]]] = {}
    for segment in log.segments:
        for each in segment.transaction_index:
            if each.last_offset >= log.log_start_offset:
                found.setdefault(each.producer_id, []).append((each.first_offset, each.last_offset))
    return found


def _is_aborted(batch: RecordBatchHeader, aborted: dict[int, list[tuple[int, int]]]) -> bool:
    return batch.is_transactional and any(
        first <= batch.base_offset <= last for first, last in aborted.get(batch.producer_id, ())
    )


def _consumed(
    topic: str, index: int, batch: memoryview, log_start_offset: int
) -> list[ConsumedRecord]:
    header = RecordBatchHeader(batch)
    if header.is_control:
        return []
    return [
        ConsumedRecord(
            topic,
            index,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            list(record.headers),
        )
        for record in iter_records(batch, header)
        if record.offset >= log_start_offset
    ]


def _encoded(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _config_text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
