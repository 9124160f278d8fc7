"""The short way of commits into the store gives what the general one gives."""

import logging
import random
from typing import Any

import anyio
import pytest

from kbroker.coordinator.group.group_records import (
    GroupRecordSerde,
    group_metadata_tombstone,
    offset_commit_record,
    offset_commit_tombstone,
)
from kbroker.coordinator.group.group_shard import GroupCoordinatorShard
from kbroker.coordinator.group.offset_and_metadata import (
    OffsetAndMetadata,
    record_offset_of,
    stored_offset,
    unpacked,
)
from kbroker.coordinator.replayer import Replayer
from kbroker.coordinator.result import CoordinatorRecord
from kbroker.protocol.internal_records.offset_commit_value import OffsetCommitValue
from kbroker.protocol.wire import ZERO_UUID
from kbroker.record.batch import build_batch, build_end_transaction_marker
from kbroker.record.record import Record
from tests.unit.coordinator.group.bench import TOPIC_ID, GroupBench

LOG = logging.getLogger("test")
SERDE = GroupRecordSerde()


def commit(
    group: str = "group", topic: str = "topic", partition: int = 0, offset: int = 5, **changed: Any
) -> CoordinatorRecord:
    fields: dict[str, Any] = {
        "leader_epoch": 3,
        "metadata": "",
        "commit_timestamp_ms": 1_700_000_000_000,
        "expire_timestamp_ms": -1,
        "topic_id": TOPIC_ID,
        **changed,
    }
    version = fields.pop("version", None)
    record = offset_commit_record(group, topic, partition, offset=offset, **fields)
    return record if version is None else record._replace(value_version=version)


def batch(base_offset: int, *records: CoordinatorRecord, **options: Any) -> memoryview:
    encoded = [SERDE.serialize(record) for record in records]
    return memoryview(
        build_batch(
            [Record(key=key, value=value, timestamp=1) for key, value in encoded],
            base_offset=base_offset,
            **options,
        )
    )


def load(batches: list[memoryview], *, short: bool) -> GroupCoordinatorShard:
    shard = GroupBench().shard
    replayer = Replayer(shard, SERDE, LOG, shard.encoded_replay() if short else None)

    async def run() -> None:
        for each in batches:
            await replayer.add(bytes(each))
        await replayer.flush()

    anyio.run(run)
    return shard


def content(shard: GroupCoordinatorShard) -> dict[Any, Any]:
    store = shard.offsets.store.committed
    found: dict[Any, Any] = {("group", name): type(g).__name__ for name, g in shard.groups.items()}
    for group_id, topics in store.by_group.items():
        for topic, partitions in topics.items():
            assert partitions, "an empty level is kept"
            for partition, held in partitions.items():
                offset = unpacked(held)
                found[group_id, topic, partition] = [
                    getattr(offset, name) for name in OffsetAndMetadata.__slots__
                ]
    found["count"] = store.count
    return found


def both(batches: list[memoryview]) -> dict[Any, Any]:
    short = content(load(batches, short=True))
    assert short == content(load(batches, short=False))
    return short


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"topic_id": ZERO_UUID},
        {"metadata": "x"},
        {"metadata": "ä" * 100},
        {"expire_timestamp_ms": 7},
        {"leader_epoch": -1},
        {"leader_epoch": -7},
        {"version": 3, "topic_id": ZERO_UUID},
        {"version": 3, "topic_id": ZERO_UUID, "metadata": "m"},
        {"version": 0, "leader_epoch": -1, "topic_id": ZERO_UUID},
        {"group": "", "topic": ""},
        {"group": "gruppe-ß-\U0001f600", "topic": "t" * 249},
        {"partition": -2, "offset": -1},
        {"partition": 2**31 - 1, "offset": 2**62},
    ],
    ids=str,
)
def test_every_form_of_a_commit(changed: dict[str, Any]) -> None:
    found = both([batch(40, commit(), commit(**changed)), batch(42, commit("other"))])
    assert ("group", changed.get("group", "group")) in found


def test_what_is_taken_away_and_comes_back() -> None:
    batches = [
        batch(0, commit(), commit(partition=1)),
        batch(2, offset_commit_tombstone("group", "topic", 0)),
        batch(3, offset_commit_tombstone("group", "topic", 1)),
        batch(4, group_metadata_tombstone("group")),
        batch(5, commit(offset=6)),
    ]
    for number, each in enumerate(batches):  # each in a window of its own
        both([*batches[:number], each])
    shard = GroupBench().shard
    replayer = Replayer(shard, SERDE, LOG, shard.encoded_replay())

    async def run() -> None:
        for each in batches:
            await replayer.add(bytes(each))
            await replayer.flush()

    anyio.run(run)
    assert content(shard) == both([batches[-1]])


def test_transactions_in_between() -> None:
    marker = build_end_transaction_marker(
        commit=True, producer_id=9, producer_epoch=0, coordinator_epoch=0, timestamp=1
    )
    marker[0:8] = (3).to_bytes(8, "big")
    in_transaction = batch(1, commit(offset=50), producer_id=9, producer_epoch=0)
    transactional = bytearray(in_transaction)
    transactional[21:23] = (0x10).to_bytes(2, "big")
    found = both(
        [
            batch(0, commit(offset=10)),
            memoryview(transactional),
            batch(2, commit(partition=1)),
            memoryview(marker),
            batch(4, commit(partition=2)),
        ]
    )
    assert found["group", "topic", 0][1] == 50


def test_damaged_records_are_skipped(caplog: pytest.LogCaptureFixture) -> None:
    key, value = SERDE.serialize(commit())
    assert value is not None
    damaged = [
        (key[:-5] + b"0", value),
        (key[:3], value),
        (key[:-1] + b"\x07", value[:9]),
        (key[:-1] + b"\x08", value[:14] + b"\x7f" + value[15:]),
        (key[:-1] + b"\x09", b""),
        (b"", value),
        (b"\x00\x02\x00\x01g", value),
    ]
    batches = [
        memoryview(build_batch([Record(key=k, value=v, timestamp=1)], base_offset=number))
        for number, (k, v) in enumerate(damaged)
    ]
    with caplog.at_level(logging.WARNING):
        found = both([*batches, batch(100, commit())])
    assert [name for name in found if name != "count"] == [
        ("group", "group"),
        ("group", "topic", 0),
    ]
    assert len(caplog.records) == 2 * len(damaged)


def test_many_at_random() -> None:
    source = random.Random(4)

    def some() -> CoordinatorRecord:
        group, topic = source.choice("ab"), source.choice("tu")
        partition = source.randrange(4)
        roll = source.random()
        if roll < 0.1:
            return offset_commit_tombstone(group, topic, partition)
        if roll < 0.15:
            return group_metadata_tombstone(group)
        metadata = source.choice(["", "", "", "m"])
        return commit(group, topic, partition, source.randrange(1000), metadata=metadata)

    for _ in range(40):
        both([batch(5 * number, *[some() for _ in range(5)]) for number in range(12)])


def test_a_packed_offset_is_small_and_says_the_same() -> None:
    value = OffsetCommitValue(5, 2, "", 77, -1, TOPIC_ID)
    packed = stored_offset(123, value)
    assert isinstance(packed, bytes)
    assert len(packed) == 44
    assert record_offset_of(packed) == 123
    assert repr(unpacked(packed)) == repr(OffsetAndMetadata.from_record(123, value))
    kept = stored_offset(123, OffsetCommitValue(5, 2, "meta", 77, -1, TOPIC_ID))
    assert isinstance(kept, OffsetAndMetadata)
    assert record_offset_of(kept) == 123
