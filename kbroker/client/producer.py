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

    async def send(
        self, records: Sequence[Record], *, partition: int | None = None
    ) -> dict[int, int]:
        """Append one batch per partition; partition -> offset of its first record (-1: acks=0).

        Without ``partition`` the key decides (murmur2), records without a key share the next
        partition in turn. The topic is created where the broker does that. Raises KafkaError.
        """
        leaders = await self._client.leaders(self._topic, create=True)
        by_partition = self._place(records, partition, len(leaders))
        producer_id, epoch = await self._producer_id()
        batches = {
            index: build_batch(
                placed,
                compression=self._compression,
                producer_id=producer_id,
                producer_epoch=epoch,
                base_sequence=self._sequences.get(index, 0) if producer_id >= 0 else -1,
            )
            for index, placed in by_partition.items()
        }
        offsets: dict[int, int] = {}

        async def attempt() -> None:
            waiting = [index for index in batches if index not in offsets]
            for node_id, indexes in (await self._client.by_leader(self._topic, waiting)).items():
                await self._send(node_id, {index: batches[index] for index in indexes}, offsets)

        await self._client.retrying(attempt)
        for index, placed in by_partition.items():
            self._sequences[index] = increment_sequence(self._sequences.get(index, 0), len(placed))
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
        self, node_id: int, batches: Mapping[int, bytearray], offsets: dict[int, int]
    ) -> None:
        """One request to one leader; what was appended is entered in ``offsets``."""
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
            offsets.update(dict.fromkeys(batches, -1))
            return
        problem: KafkaError | None = None
        for topic in response.responses:
            for result in topic.partition_responses:
                if not result.error_code:
                    offsets[result.index] = result.base_offset
                    continue
                error = KafkaError(
                    ErrorCode.for_code(result.error_code),
                    result.error_message or f"topic {self._topic}, partition {result.index}",
                )
                if problem is None or not error.error_code.retriable:
                    problem = error
        if problem is not None:
            raise problem
