"""Records of one topic from chosen offsets on, without a group."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import anyio

from kbroker.client.client import KafkaClient, check
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.fetch_request import FetchPartition, FetchRequest, FetchTopic
from kbroker.protocol.messages.fetch_response import FetchResponse, PartitionData
from kbroker.protocol.messages.list_offsets_request import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from kbroker.record.batch import (
    CONTROL_ABORT,
    RecordBatchHeader,
    iter_batches,
    read_control_type,
    verify_crc,
)
from kbroker.record.record import Record, iter_records

EARLIEST: Final = -2
LATEST: Final = -1
FETCH_BYTES: Final = 8 * 1024 * 1024
PARTITION_BYTES: Final = 1024 * 1024
READ_UNCOMMITTED: Final = 0
READ_COMMITTED: Final = 1


class FetchedRecord(NamedTuple):
    """A record and where it lies."""

    partition: int
    record: Record


async def list_offsets(
    client: KafkaClient,
    topic: str,
    timestamps: Mapping[int, int],
    *,
    isolation_level: int = READ_COMMITTED,
) -> dict[int, int]:
    """Partition -> offset of the first record at or after a time, -1 when there is none.

    ``timestamps``: partition -> ms since 1970, ``EARLIEST`` or ``LATEST`` (the end of what is
    committed; with READ_UNCOMMITTED of open transactions as well). Raises KafkaError.
    """
    offsets: dict[int, int] = {}

    async def attempt() -> None:
        missing = [partition for partition in timestamps if partition not in offsets]
        for node_id, partitions in (await client.by_leader(topic, missing)).items():
            asked = [ListOffsetsPartition(each, timestamp=timestamps[each]) for each in partitions]
            request = ListOffsetsRequest(
                replica_id=-1,
                isolation_level=isolation_level,
                topics=[ListOffsetsTopic(topic, asked)],
            )
            response = await client.call(node_id, ApiKey.LIST_OFFSETS, request)
            for result in response.topics[0].partitions:
                check(result.error_code, f"topic {topic}, partition {result.partition_index}")
                offsets[result.partition_index] = result.offset

    await client.retrying(attempt)
    return offsets


class Reader:
    """Reads committed records; ``positions`` holds the next offset of each partition."""

    def __init__(self, client: KafkaClient, topic: str, positions: Mapping[int, int]) -> None:
        self.positions = dict(positions)
        self._client = client
        self._topic = topic

    async def poll(self, *, max_wait_ms: int = 500) -> list[FetchedRecord]:
        """The next records, of all brokers at once; empty when none came in time.

        Raises KafkaError, for instance OFFSET_OUT_OF_RANGE for a position that is gone.
        """
        return await self._client.retrying(lambda: self._poll(max_wait_ms))

    async def _poll(self, max_wait_ms: int) -> list[FetchedRecord]:
        grouped = await self._client.by_leader(self._topic, list(self.positions))
        fetched: list[FetchedRecord] = []
        problems: list[Exception] = []

        async def ask(node_id: int, partitions: Sequence[int]) -> None:
            try:
                fetched.extend(await self._fetch(node_id, partitions, max_wait_ms))
            except Exception as problem:  # raised below: inside a group nobody could catch it
                problems.append(problem)

        async with anyio.create_task_group() as tasks:
            for node_id, partitions in grouped.items():
                tasks.start_soon(ask, node_id, partitions)
        if problems and not fetched:
            raise problems[0]
        return fetched

    async def _fetch(
        self, node_id: int, partitions: Sequence[int], max_wait_ms: int
    ) -> list[FetchedRecord]:
        asked = [
            FetchPartition(
                each, fetch_offset=self.positions[each], partition_max_bytes=PARTITION_BYTES
            )
            for each in partitions
        ]
        request = FetchRequest(
            max_wait_ms=max_wait_ms,
            min_bytes=1,
            max_bytes=FETCH_BYTES,
            isolation_level=READ_COMMITTED,
            topics=[FetchTopic(self._topic, partitions=asked)],
        )
        response: FetchResponse = await self._client.call(node_id, ApiKey.FETCH, request)
        check(response.error_code)
        fetched: list[FetchedRecord] = []
        problem: KafkaError | None = None
        for topic in response.responses:
            for data in topic.partitions:
                try:
                    fetched.extend(self._take(data))
                except KafkaError as error:
                    problem = error
        if problem is not None and not fetched:
            raise problem
        return fetched

    def _take(self, data: PartitionData) -> list[FetchedRecord]:
        """The records of one partition's answer; moves the position behind them."""
        partition = data.partition_index
        position = self.positions[partition]
        where = f"topic {self._topic}, partition {partition}, offset {position}"
        check(data.error_code, where)
        view = memoryview(data.records or b"")
        aborted = _Aborted(data)
        taken: list[FetchedRecord] = []
        for header in iter_batches(view):
            if not verify_crc(view, header.position, header.size):
                raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{where}: a wrong checksum")
            taken += [
                FetchedRecord(partition, record)
                for record in aborted.visible(view, header)
                if record.offset >= position
            ]
            self.positions[partition] = max(header.next_offset, position)
        return taken


class _Aborted:
    """Leaves out control records, and the records of transactions that were aborted (KIP-98)."""

    def __init__(self, data: PartitionData) -> None:
        listed = data.aborted_transactions
        pairs = [(each.first_offset, each.producer_id) for each in listed] if listed else []
        self._to_come = sorted(pairs, reverse=True)
        self._open: set[int] = set()

    def visible(self, view: memoryview, header: RecordBatchHeader) -> Iterator[Record]:
        while self._to_come and self._to_come[-1][0] <= header.last_offset:
            self._open.add(self._to_come.pop()[1])
        if header.is_control:
            for marker in iter_records(view, header):
                if read_control_type(marker.key or b"") == CONTROL_ABORT:
                    self._open.discard(header.producer_id)
        elif not (header.is_transactional and header.producer_id in self._open):
            yield from iter_records(view, header)
