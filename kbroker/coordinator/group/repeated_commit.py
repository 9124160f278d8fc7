"""Commits of one member for the same partitions again and again, as most are.

Their records differ in nothing but the offsets, the leader epochs and the time, all of fixed size
and at fixed places. So the batch is built once and filled in for each commit, and what is held of
the offsets is made from the numbers: no messages in between. The checks are those of every commit.
"""

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Final

from kbroker.coordinator.group.group_records import (
    OFFSET_COMMIT_VALUE_VERSION,
    GroupRecordSerde,
    offset_commit_record,
)
from kbroker.coordinator.group.offset_and_metadata import packed_offset
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.offset_commit_request import OffsetCommitRequest
from kbroker.protocol.messages.offset_commit_response import OffsetCommitResponse
from kbroker.record.batch import BASE_TIMESTAMP_POSITION, HEADER_SIZE, build_batch, write_crc
from kbroker.record.encoding import encode_record
from kbroker.record.record import Record

if TYPE_CHECKING:
    from kbroker.coordinator.group.group_shard import GroupCoordinatorShard

_TIMES: Final = Struct(">qq")  # base and max timestamp, side by side in a batch's header
_NUMBERS: Final = Struct(">hqiBq")  # version, offset, leader epoch, length of metadata, time
_NO_METADATA: Final = 1  # a compact string's length plus one


class CommitTemplate:
    """What repeated commits have in common; ``partitions`` of it are (topic, index, topic id)."""

    __slots__ = ("_batch", "_places", "partitions", "request", "response", "version")

    def __init__(
        self, request: OffsetCommitRequest, version: int, response: OffsetCommitResponse
    ) -> None:
        """``request`` with names and ids of its topics, without metadata and without a retention
        time of its own; ``response`` is what it is answered when all goes well."""
        self.request = request
        self.version = version
        self.response = response
        self.partitions = [
            (topic.name, partition.partition_index, topic.topic_id)
            for topic in request.topics
            for partition in topic.partitions
        ]
        serialize = GroupRecordSerde().serialize
        records: list[Record] = []
        self._places: list[int] = []  # of the values in the batch
        position = HEADER_SIZE
        for delta, (topic, index, topic_id) in enumerate(self.partitions):
            key, value = serialize(
                offset_commit_record(
                    request.group_id,
                    topic,
                    index,
                    offset=0,
                    leader_epoch=-1,
                    metadata="",
                    commit_timestamp_ms=0,
                    expire_timestamp_ms=-1,
                    topic_id=topic_id,
                )
            )
            assert value is not None
            records.append(Record(key=key, value=value, timestamp=0))
            position += len(
                encode_record(timestamp_delta=0, offset_delta=delta, key=key, value=value)
            )
            self._places.append(position - 1 - len(value))  # no headers: one byte
        self._batch = bytes(build_batch(records))

    def batch(self, now_ms: int, offsets: Sequence[int], epochs: Sequence[int]) -> bytearray:
        """The records of one commit; an offset and an epoch, -1 for none, for each partition."""
        batch = bytearray(self._batch)
        _TIMES.pack_into(batch, BASE_TIMESTAMP_POSITION, now_ms, now_ms)
        fill = _NUMBERS.pack_into
        for place, offset, epoch in zip(self._places, offsets, epochs, strict=True):
            fill(
                batch,
                place,
                OFFSET_COMMIT_VALUE_VERSION,
                offset,
                epoch if epoch >= 0 else -1,
                _NO_METADATA,
                now_ms,
            )
        write_crc(batch, 0, len(batch))
        return batch


class RepeatedCommit:
    """An ``EncodedStep``: one commit of the kind that ``template`` describes."""

    __slots__ = ("_epochs", "_now_ms", "_offsets", "_template", "record_count", "response")

    def __init__(
        self, template: CommitTemplate, offsets: Sequence[int], epochs: Sequence[int]
    ) -> None:
        self._template = template
        self._offsets = offsets
        self._epochs = epochs
        self._now_ms = 0
        self.record_count = len(offsets)
        self.response = template.response

    def encode(self, shard: "GroupCoordinatorShard") -> bytearray:
        """Raises KafkaError for the whole request."""
        template = self._template
        check = shard.check_offset_commit(template.request, template.version)
        if check is not None:
            for _, index, topic_id in template.partitions:
                refused = check(topic_id, index)
                if refused is not ErrorCode.NONE:
                    raise KafkaError(refused)
        self._now_ms = now_ms = shard.time_ms()
        return template.batch(now_ms, self._offsets, self._epochs)

    def replay(self, shard: "GroupCoordinatorShard", first_offset: int) -> None:
        """The records are in the log from ``first_offset`` on."""
        template = self._template
        group_id = template.request.group_id
        if group_id not in shard.groups:
            shard.make_simple_group(group_id)
        put = shard.offsets.store.committed.put
        now_ms = self._now_ms
        record_offset = first_offset
        for (topic, index, topic_id), offset, epoch in zip(
            template.partitions, self._offsets, self._epochs, strict=True
        ):
            packed = packed_offset(record_offset, offset, epoch, now_ms, topic_id)
            put(group_id, topic, index, packed)
            record_offset += 1
