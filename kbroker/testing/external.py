"""The verbs of an embedded broker on a cluster that runs somewhere else, Apache Kafka included.

What ``--kafka-bootstrap`` puts in the place of the pytest plugin's brokers: a suite that creates
topics and looks at records by way of its fixtures runs unchanged against a real cluster. The
project's own client, in a thread with a loop of its own, so that tests may block.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kbroker.broker.local_client import ConsumedRecord, Headers
from kbroker.client.admin import Admin
from kbroker.client.client import BootstrapError, KafkaClient, check
from kbroker.client.connection import ConnectionLostError
from kbroker.client.producer import Producer
from kbroker.client.reader import EARLIEST, LATEST, FetchedRecord, Reader, list_offsets
from kbroker.common.clock import SystemClock
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.record import Record

T = TypeVar("T")

REQUEST_TIMEOUT_S: Final = 30.0
FETCH_WAIT_MS: Final = 200
PAUSE_S: Final = 0.02


class ExternalCluster:
    """``with ExternalCluster("host:9092") as cluster``: topics it made are deleted at the end."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._clock = SystemClock()
        self._client = KafkaClient(
            bootstrap_servers, client_id="kbroker-testing", timeout_s=REQUEST_TIMEOUT_S
        )
        self._producers: dict[str, Producer] = {}
        self._made: dict[str, None] = {}
        self._portal: BlockingPortal | None = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        self._portal = self._exits.enter_context(start_blocking_portal("asyncio"))
        self._exits.enter_context(self._portal.wrap_async_context_manager(self._client))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._exits:
            if self._made:
                self._run(self._delete_topics)

    # Verbs

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        """Create a topic. Raises KafkaError; one that is being deleted is waited for."""
        texts = {
            key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in (config or {}).items()
        }
        self._run(partial(self._create_topic, name, partitions, texts))

    def produce(
        self,
        topic: str,
        value: bytes | str | None,
        *,
        key: bytes | str | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> tuple[int, int]:
        """Append one record with acks=all; (partition, offset). Raises KafkaError."""
        record = Record(
            key=key.encode() if isinstance(key, str) else key,
            value=value.encode() if isinstance(value, str) else value,
            headers=tuple(headers),
            timestamp=self._clock.time_ms() if timestamp is None else timestamp,
        )
        return self._run(partial(self._produce, topic, record, partition))

    def consume(
        self,
        topic: str,
        *,
        count: int | None = None,
        partition: int | None = None,
        timeout_s: float = 5.0,
    ) -> list[ConsumedRecord]:
        """The topic's records from its beginning; with ``count`` waits for so many (TimeoutError).

        A topic that is not there has no records; those of aborted transactions are left out.
        """
        found = self._run(partial(self._consume, topic, count, partition, timeout_s))
        if count is not None and len(found) < count:
            raise TimeoutError(
                f"{topic} holds {len(found)} records after {timeout_s} s, {count} were expected"
            )
        return found[:count]

    # In the loop

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Let the loop do it. Raises ConnectionError where no broker answers."""
        if self._portal is None:
            raise RuntimeError("use it as: with ExternalCluster(...) as cluster")
        try:
            return self._portal.call(work)
        except (BootstrapError, ConnectionLostError) as error:
            raise ConnectionError(f"{self.bootstrap_servers} does not answer: {error}") from error

    async def _create_topic(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        admin = Admin(self._client)
        listed = [topic.name for topic in await admin.list_topics()]
        being_deleted = name not in self._made and name not in listed
        deadline = anyio.current_time() + REQUEST_TIMEOUT_S
        while True:
            try:
                await admin.create_topic(name, partitions=partitions, config=config)
                break
            except KafkaError as error:
                passes = being_deleted and error.error_code == ErrorCode.TOPIC_ALREADY_EXISTS
                if not passes or anyio.current_time() >= deadline:
                    raise
            await anyio.sleep(PAUSE_S)
        self._made[name] = None

    async def _produce(self, topic: str, record: Record, partition: int | None) -> tuple[int, int]:
        if await self._partitions(topic) is None:
            self._made[topic] = None  # by the broker, because it is written to
        elif partition is not None and partition not in await self._client.leaders(topic):
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        producer = self._producers.get(topic)
        if producer is None:
            producer = self._producers[topic] = Producer(self._client, topic)
        ((index, offset),) = (await producer.send([record], partition=partition)).items()
        return index, offset

    async def _consume(
        self, topic: str, count: int | None, partition: int | None, timeout_s: float
    ) -> list[ConsumedRecord]:
        """Everything there is, and with ``count`` what comes until there is enough."""
        deadline = anyio.current_time() + timeout_s
        found: dict[int, list[ConsumedRecord]] = {}
        reader = Reader(self._client, topic, {})
        while True:
            await self._follow(topic, partition, reader)
            for each in await self._read_to_the_end(topic, reader, wait=count is not None):
                found.setdefault(each.partition, []).append(_consumed(topic, each))
            everything = [record for index in sorted(found) for record in found[index]]
            enough = count is None or len(everything) >= count
            if enough or anyio.current_time() >= deadline:
                return everything
            if not reader.positions:
                await anyio.sleep(PAUSE_S)

    async def _follow(self, topic: str, partition: int | None, reader: Reader) -> None:
        """Let the reader begin with partitions that are new to it."""
        there = await self._partitions(topic) or []
        new = [each for each in there if each not in reader.positions and partition in (None, each)]
        if new:
            firsts = await list_offsets(self._client, topic, dict.fromkeys(new, EARLIEST))
            reader.positions.update(firsts)

    async def _read_to_the_end(
        self, topic: str, reader: Reader, *, wait: bool
    ) -> list[FetchedRecord]:
        """What lies before the end as it is now; ``wait`` a moment where that is nothing."""
        if not reader.positions:
            return []
        ends = await list_offsets(self._client, topic, dict.fromkeys(reader.positions, LATEST))
        fetched: list[FetchedRecord] = []
        while any(reader.positions[each] < end for each, end in ends.items()):
            fetched += await reader.poll(max_wait_ms=FETCH_WAIT_MS)
        if wait and not fetched:
            fetched += await reader.poll(max_wait_ms=FETCH_WAIT_MS)
        return fetched

    async def _partitions(self, topic: str) -> list[int] | None:
        """What there is now, whatever was known; None for a topic that is not there."""
        self._client.forget(topic)

        async def attempt() -> list[int] | None:
            (found,) = (await self._client.metadata([topic])).topics
            if found.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                return None
            check(found.error_code)
            return sorted(each.partition_index for each in found.partitions)

        return await self._client.retrying(attempt)

    async def _delete_topics(self) -> None:
        made, self._made = list(self._made), {}
        for name in made:
            try:
                await Admin(self._client).delete_topic(name)
            except KafkaError as error:
                if error.error_code != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                    raise


def _consumed(topic: str, fetched: FetchedRecord) -> ConsumedRecord:
    record = fetched.record
    return ConsumedRecord(
        topic,
        fetched.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        list(record.headers),
    )
