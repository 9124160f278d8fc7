"""Records of ``__consumer_offsets``: Kafka's bytes, versions, and what is not known."""

import pytest

from kbroker.coordinator.group.classic_group import (
    ClassicGroup,
    ClassicGroupMember,
    ClassicGroupState,
)
from kbroker.coordinator.group.group_records import (
    GroupRecordSerde,
    empty_group_metadata_record,
    group_metadata_record,
    group_metadata_tombstone,
    offset_commit_record,
    offset_commit_tombstone,
)
from kbroker.coordinator.group.offset_commit_reader import (
    read_offset_commit_key_fast,
    read_offset_commit_value_fast,
)
from kbroker.coordinator.shard import UnknownRecord
from kbroker.protocol.internal_records.offset_commit_key import (
    OffsetCommitKey,
    read_offset_commit_key,
)
from kbroker.protocol.internal_records.offset_commit_value import (
    OffsetCommitValue,
    read_offset_commit_value,
    write_offset_commit_value,
)
from kbroker.protocol.wire import DecodeError

SERDE = GroupRecordSerde()


def group_with_a_member() -> ClassicGroup:
    group = ClassicGroup(
        "g",
        state=ClassicGroupState.STABLE,
        generation_id=3,
        protocol_name="range",
        current_state_timestamp_ms=1_000,
    )
    group.add(
        ClassicGroupMember(
            member_id="m",
            group_instance_id="i",
            client_id="c",
            client_host="/h",
            rebalance_timeout_ms=2,
            session_timeout_ms=1,
            protocol_type="consumer",
            protocols=(("range", b"sub"),),
            assignment=b"as",
        )
    )
    return group


def test_group_metadata_bytes() -> None:
    key, value = SERDE.serialize(group_metadata_record(group_with_a_member()))
    assert key == b"\0\2\0\1g"
    assert value == b"".join(
        [
            b"\0\3",
            b"\0\x08consumer",
            b"\0\0\0\3",
            b"\0\5range",
            b"\0\1m",
            b"\0\0\0\0\0\0\x03\xe8",
            b"\0\0\0\1",
            b"\0\1m\0\1i\0\1c\0\2/h",
            b"\0\0\0\2\0\0\0\1",
            b"\0\0\0\3sub\0\0\0\2as",
        ]
    )


def test_a_given_assignment_is_written_in_place_of_the_members_own() -> None:
    record = group_metadata_record(group_with_a_member(), {"m": b"other"})
    assert record.value.members[0].assignment == b"other"


def test_empty_group_bytes() -> None:
    group = ClassicGroup("g", current_state_timestamp_ms=5)
    key, value = SERDE.serialize(empty_group_metadata_record(group))
    assert key == b"\0\2\0\1g"
    assert value == b"\0\3\0\0\0\0\0\0\xff\xff\xff\xff" + bytes(7) + b"\5" + bytes(4)


def test_offset_commit_bytes() -> None:
    record = offset_commit_record(
        "g",
        "t",
        7,
        offset=9,
        leader_epoch=2,
        metadata="md",
        commit_timestamp_ms=5,
        expire_timestamp_ms=-1,
        topic_id=b"i" * 16,
    )
    key, value = SERDE.serialize(record)
    assert key == b"\0\1\0\1g\0\1t\0\0\0\7"
    assert value == b"\0\4" + bytes(7) + b"\x09\0\0\0\2\3md" + bytes(7) + (
        b"\5\1\0\x10" + b"i" * 16
    )


def test_tombstones_have_no_value() -> None:
    assert SERDE.serialize(offset_commit_tombstone("g", "t", 0))[1] is None
    assert SERDE.serialize(group_metadata_tombstone("g")) == (b"\0\2\0\1g", None)


def test_what_is_written_is_read_back() -> None:
    for record in (
        group_metadata_record(group_with_a_member()),
        empty_group_metadata_record(ClassicGroup("x")),
        group_metadata_tombstone("ü"),
        offset_commit_tombstone("g", "t", 3),
    ):
        assert SERDE.deserialize(*SERDE.serialize(record)) == (record.key, record.value)


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("metadata", ["", "note", "é" * 100, "x" * 5_000])
@pytest.mark.parametrize("topic_id", [bytes(16), b"t" * 16])
def test_offset_commits_of_all_versions(version: int, metadata: str, topic_id: bytes) -> None:
    value = OffsetCommitValue(
        offset=1 << 40,
        leader_epoch=-1 if version < 3 else 6,
        metadata=metadata,
        commit_timestamp=123,
        expire_timestamp=456 if version == 1 else -1,
        topic_id=topic_id if version == 4 else bytes(16),
    )
    parts: list[bytes] = []
    write_offset_commit_value(parts, value, version)
    key_bytes, _ = SERDE.serialize(offset_commit_tombstone("gröup", "t" * 249, 1 << 30))
    value_bytes = version.to_bytes(2, "big") + b"".join(parts)
    key, read = SERDE.deserialize(key_bytes, value_bytes)
    assert (
        key
        == OffsetCommitKey("gröup", "t" * 249, 1 << 30)
        == read_offset_commit_key(key_bytes, 2, 0)[0]
    )
    assert read == value == read_offset_commit_value(value_bytes, 2, version)[0]


def test_the_short_way_is_taken_for_what_is_written_today() -> None:
    record = offset_commit_record(
        "g",
        "t",
        7,
        offset=9,
        leader_epoch=2,
        metadata="md",
        commit_timestamp_ms=5,
        expire_timestamp_ms=-1,
        topic_id=b"i" * 16,
    )
    key, value = SERDE.serialize(record)
    assert value is not None
    assert read_offset_commit_key_fast(key) == record.key
    assert read_offset_commit_value_fast(value) == record.value


def test_tagged_fields_of_the_future_are_kept() -> None:
    parts: list[bytes] = []
    value = OffsetCommitValue(offset=1, unknown_tagged_fields=((5, b"new"),))
    write_offset_commit_value(parts, value, 4)
    key, _ = SERDE.serialize(offset_commit_tombstone("g", "t", 0))
    assert SERDE.deserialize(key, b"\0\4" + b"".join(parts))[1] == value


def test_types_and_versions_nobody_knows() -> None:
    with pytest.raises(UnknownRecord):
        SERDE.deserialize(b"\0\x63\0\0", b"\0\0")
    with pytest.raises(UnknownRecord):
        SERDE.deserialize(b"\0\2\0\1g", b"\0\x09")


@pytest.mark.parametrize("type_", [1, 2])
def test_damaged_records_are_told_from_unknown_ones(type_: int) -> None:
    record = (
        offset_commit_record(
            "group",
            "topic",
            7,
            offset=9,
            leader_epoch=2,
            metadata="md",
            commit_timestamp_ms=5,
            expire_timestamp_ms=-1,
            topic_id=b"i" * 16,
        )
        if type_ == 1
        else group_metadata_record(group_with_a_member())
    )
    key, value = SERDE.serialize(record)
    assert value is not None
    for cut in range(2, len(value)):
        with pytest.raises(DecodeError):
            SERDE.deserialize(key, value[:cut])
    for cut in range(2, len(key)):
        with pytest.raises(DecodeError):
            SERDE.deserialize(key[:cut], value)
