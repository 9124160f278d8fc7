"""Batches of records for one topic, each appended once however often it had to be sent."""

from collections.abc import Mapping, Sequence
from typing import Final

from kbroker.client.client import KafkaClient, check
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.init_producer_id_request import InitProducerIdRequest
from kbroker.protocol.messages.produce_request import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.record.batch import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, build_batch, increment_sequence
from kbroker.record.compression import NONE
from kbroker.record.partitioner import partition_for_key
from kbroker.record.record import Record

ACKS_NONE: Final = 0
ACKS_LEADER: Final = 1
ACKS_ALL: Final = -1
BATCH_BYTES: Final = 512 * 1024
"""How much is put into one batch at most, about: half of what a topic takes by default."""

_TOO_LARGE: Final = frozenset({ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE})
_RECORD_OVERHEAD_BYTES: Final = 20
_HEADER_OVERHEAD_BYTES: Final = 4


class Producer:
    """Writes to one topic. With acks=all it is idempotent where the broker can (KIP-98)."""

    def __init__(
        self,
        client: KafkaClient,
        topic: str,
        *,
        acks: int = ACKS_ALL,
        compression: int = NONE,
    ) -> None:
        self._client = client
        self._topic = topic
        self._acks = acks
        self._compression = compression
        self._producer: tuple[int, int] | None = None
        self._sequences: dict[int, int] = {}
        self._next_partition = 0
        self._batch_bytes = BATCH_BYTES

    async def send(
        self, records: Sequence[Record], *, partition: int | None = None
    ) -> dict[int, int]:
        """Append them in batches; partition -> offset of its first record (-1: acks=0).

        Without ``partition`` the key decides (murmur2), records without a key share the next
        partition in turn. The topic is created where the broker does that. Raises KafkaError.
        """
        of = None if partition is None else (partition,)
        leaders = await self._client.leaders(self._topic, of=of, create=True)
        by_partition = self._place(records, partition, len(leaders))
        waiting = {index: self._cut(placed) for index, placed in by_partition.items()}
        first: dict[int, int] = {}
        while waiting:
            turn = {index: chunks.pop() for index, chunks in waiting.items()}
            offsets = await self._append(turn)
            for index, chunk in turn.items():
                if index in offsets:
                    first.setdefault(index, offsets[index])
                else:  # too large for one batch (KIP-126)
                    self._batch_bytes = min(self._batch_bytes, sum(map(_size, chunk)) // 2)
                    half = len(chunk) // 2
                    waiting[index] += [chunk[half:], chunk[:half]]
            waiting = {index: chunks for index, chunks in waiting.items() if chunks}
        return first

    def _cut(self, records: Sequence[Record]) -> list[list[Record]]:
        """Pieces of about ``_batch_bytes`` at most, the first one last."""
        pieces: list[list[Record]] = [[]]
        left = self._batch_bytes
        for record in records:
            size = _size(record)
            if size > left and pieces[-1]:
                pieces.append([])
                left = self._batch_bytes
            pieces[-1].append(record)
            left -= size
        return pieces[::-1]

    async def _append(self, turn: Mapping[int, list[Record]]) -> dict[int, int]:
        """A batch per partition; partition -> offset, without those that are to be split."""
        producer_id, epoch = await self._producer_id()
        batches = {
            index: build_batch(
                chunk,
                compression=self._compression,
                producer_id=producer_id,
                producer_epoch=epoch,
                base_sequence=self._sequences.get(index, 0) if producer_id >= 0 else -1,
            )
            for index, chunk in turn.items()
        }
        offsets: dict[int, int] = {}
        waiting = set(turn)

        async def attempt() -> None:
            grouped = await self._client.by_leader(self._topic, sorted(waiting))
            problem: KafkaError | None = None
            for node_id, indexes in grouped.items():
                results = await self._send(node_id, {each: batches[each] for each in indexes})
                for index, result in results.items():
                    if isinstance(result, int):
                        offsets[index] = result
                    elif result.error_code not in _TOO_LARGE or len(turn[index]) == 1:
                        if problem is None or not result.error_code.retriable:
                            problem = result
                        continue
                    waiting.discard(index)
            if problem is not None:
                raise problem

        await self._client.retrying(attempt)
        for index in offsets:
            before = self._sequences.get(index, 0)
            self._sequences[index] = increment_sequence(before, len(turn[index]))
        return offsets

    def _place(
        self, records: Sequence[Record], partition: int | None, count: int
    ) -> dict[int, list[Record]]:
        placed: dict[int, list[Record]] = {}
        for record in records:
            if partition is not None:
                index = partition
            elif record.key is not None:
                index = partition_for_key(record.key, count)
            else:
                index = self._next_partition % count
            placed.setdefault(index, []).append(record)
        self._next_partition += 1
        return placed

    async def _producer_id(self) -> tuple[int, int]:
        if self._producer is None:
            self._producer = (NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
            connection = await self._client.connection()
            if self._acks == ACKS_ALL and connection.knows(ApiKey.INIT_PRODUCER_ID):
                self._producer = await self._client.retrying(self._ask_producer_id)
        return self._producer

    async def _ask_producer_id(self) -> tuple[int, int]:
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
        response = await self._client.call(None, ApiKey.INIT_PRODUCER_ID, request)
        check(response.error_code)
        return response.producer_id, response.producer_epoch

    async def _send(
        self, node_id: int, batches: Mapping[int, bytearray]
    ) -> dict[int, int | KafkaError]:
        """One request to one leader; partition -> the offset of its first record, or the error."""
        data = [PartitionProduceData(index, batch) for index, batch in batches.items()]
        request = ProduceRequest(
            acks=self._acks,
            timeout_ms=int(self._client.timeout_s * 1000),
            topic_data=[TopicProduceData(self._topic, partition_data=data)],
        )
        response = await self._client.call(
            node_id, ApiKey.PRODUCE, request, answered=self._acks != ACKS_NONE
        )
        if response is None:
            return dict.fromkeys(batches, -1)
        return {
            result.index: KafkaError(
                ErrorCode.for_code(result.error_code),
                result.error_message or f"topic {self._topic}, partition {result.index}",
            )
            if result.error_code
            else result.base_offset
            for topic in response.responses
            for result in topic.partition_responses
        }


def _size(record: Record) -> int:
    """About how many bytes of a batch it takes, uncompressed."""
    size = _RECORD_OVERHEAD_BYTES + len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += _HEADER_OVERHEAD_BYTES + len(name) + len(value or b"")
    return size
