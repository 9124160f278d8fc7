"""The records of ``__consumer_offsets``: what is written when, in Kafka's versions, and the serde.

Kafka 4.3 writes GroupMetadataValue version 3 (the highest that is not flexible) and
OffsetCommitValue version 4 (it carries the topic id, KAFKA-19141), or version 1 for a commit with
a retention time of its own, which only that version can hold.
"""

from collections.abc import Callable
from importlib import import_module
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from kbroker.coordinator.group.classic_group import ClassicGroup
from kbroker.coordinator.group.offset_commit_reader import (
    read_offset_commit_key_fast,
    read_offset_commit_value_fast,
)
from kbroker.coordinator.result import CoordinatorRecord
from kbroker.coordinator.shard import UnknownRecord
from kbroker.protocol.internal_records.group_metadata_key import GroupMetadataKey
from kbroker.protocol.internal_records.group_metadata_value import (
    GroupMetadataValue,
    MemberMetadata,
)
from kbroker.protocol.internal_records.offset_commit_key import OffsetCommitKey
from kbroker.protocol.internal_records.offset_commit_value import OffsetCommitValue
from kbroker.protocol.wire import Buffer, DecodeError

GROUP_METADATA_VALUE_VERSION: Final = 3
OFFSET_COMMIT_VALUE_VERSION: Final = 4
EXPIRING_OFFSET_COMMIT_VALUE_VERSION: Final = 1

_RECORD_TYPES: Final = {
    0: "legacy_offset_commit",
    1: "offset_commit",
    2: "group_metadata",
    3: "consumer_group_metadata",
    4: "consumer_group_partition_metadata",
    5: "consumer_group_member_metadata",
    6: "consumer_group_target_assignment_metadata",
    7: "consumer_group_target_assignment_member",
    8: "consumer_group_current_member_assignment",
    16: "consumer_group_regular_expression",
}
"""Record type (the key's leading int16) -> module names without ``_key`` and ``_value``."""

_OFFSET_COMMIT: Final = 1
_INT16 = Struct(">h")

_Reader = Callable[[Buffer, int, int], tuple[Any, int]]
_Writer = Callable[[list[Any], Any, int], None]


def group_metadata_record(
    group: ClassicGroup, assignments: dict[str, bytes] | None = None
) -> CoordinatorRecord:
    """The group as it is now; ``assignments`` by member id in place of the members' own."""
    protocol_name = group.protocol_name
    members = []
    for member in group.members.values():
        assert protocol_name is not None, "a group with members has selected a protocol"
        members.append(
            MemberMetadata(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout=member.rebalance_timeout_ms,
                session_timeout=member.session_timeout_ms,
                subscription=member.metadata(protocol_name),
                assignment=(
                    member.assignment if assignments is None else assignments[member.member_id]
                ),
            )
        )
    since = group.current_state_timestamp_ms
    return CoordinatorRecord(
        GroupMetadataKey(group=group.group_id),
        GroupMetadataValue(
            protocol_type=group.protocol_type or "",
            generation=group.generation_id,
            protocol=protocol_name,
            leader=group.leader_id,
            current_state_timestamp=-1 if since is None else since,
            members=members,
        ),
        GROUP_METADATA_VALUE_VERSION,
    )


def empty_group_metadata_record(group: ClassicGroup) -> CoordinatorRecord:
    """What is written when a group comes into being, before its first generation."""
    since = group.current_state_timestamp_ms
    return CoordinatorRecord(
        GroupMetadataKey(group=group.group_id),
        GroupMetadataValue(
            protocol_type="",
            generation=0,
            protocol=None,
            leader=None,
            current_state_timestamp=-1 if since is None else since,
            members=[],
        ),
        GROUP_METADATA_VALUE_VERSION,
    )


def group_metadata_tombstone(group_id: str) -> CoordinatorRecord:
    """Deletes a classic group."""
    return CoordinatorRecord(GroupMetadataKey(group=group_id), None)


def offset_commit_record(
    group_id: str,
    topic: str,
    partition: int,
    *,
    offset: int,
    leader_epoch: int,
    metadata: str,
    commit_timestamp_ms: int,
    expire_timestamp_ms: int,
    topic_id: bytes,
) -> CoordinatorRecord:
    """A committed offset; ``expire_timestamp_ms`` is -1 but for requests with a retention time."""
    return CoordinatorRecord(
        OffsetCommitKey(group_id, topic, partition),
        OffsetCommitValue(
            offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms, topic_id
        ),
        OFFSET_COMMIT_VALUE_VERSION
        if expire_timestamp_ms < 0
        else EXPIRING_OFFSET_COMMIT_VALUE_VERSION,
    )


def offset_commit_tombstone(group_id: str, topic: str, partition: int) -> CoordinatorRecord:
    """Deletes a committed offset."""
    return CoordinatorRecord(OffsetCommitKey(group_id, topic, partition), None)


def _read_offset_commit(
    key: bytes, value: Buffer | None
) -> tuple[OffsetCommitKey, OffsetCommitValue | None] | None:
    """The short way, None when the general one must be taken."""
    key_message = read_offset_commit_key_fast(key)
    if key_message is None:
        return None
    if value is None:
        return key_message, None
    if value.__class__ is not bytes:
        return None
    value_message = read_offset_commit_value_fast(value)
    return None if value_message is None else (key_message, value_message)


class GroupRecordSerde:
    """Records of ``__consumer_offsets`` to bytes and back.

    A key is its record type as int16 and the message's version 0; a value its version as int16 and
    the message in that version.
    """

    def __init__(self) -> None:
        self._readers: dict[int, tuple[_Reader, _Reader, int]] = {}
        self._writers: dict[type, tuple[int, _Writer]] = {}

    def serialize(self, record: CoordinatorRecord) -> tuple[bytes, bytes | None]:
        """Key and value bytes."""
        parts: list[Any] = []
        record_type, write = self._writer(type(record.key))
        write(parts, record.key, 0)
        key = _INT16.pack(record_type) + b"".join(parts)
        if record.value is None:
            return key, None
        parts = []
        _, write = self._writer(type(record.value))
        write(parts, record.value, record.value_version)
        return key, _INT16.pack(record.value_version) + b"".join(parts)

    def _writer(self, message_class: type) -> tuple[int, _Writer]:
        entry = self._writers.get(message_class)
        if entry is None:
            module = import_module(message_class.__module__)
            name = message_class.__module__.rpartition(".")[2]
            entry = (module.API_KEY, getattr(module, f"write_{name}"))
            self._writers[message_class] = entry
        return entry

    def deserialize(self, key: Buffer, value: Buffer | None) -> tuple[Any, Any | None]:
        """Key and value messages. UnknownRecord; DecodeError for damaged bytes."""
        try:
            (record_type,) = _INT16.unpack_from(key)
            if record_type == _OFFSET_COMMIT and key.__class__ is bytes:
                found = _read_offset_commit(key, value)
                if found is not None:
                    return found
            readers = self._readers.get(record_type) or self._load(record_type)
            read_key, read_value, max_version = readers
            key_message, _ = read_key(key, 2, 0)
            if value is None:
                return key_message, None
            (version,) = _INT16.unpack_from(value)
            if not 0 <= version <= max_version:
                raise UnknownRecord(f"version {version} of record type {record_type}")
            value_message, _ = read_value(value, 2, version)
        except (StructError, IndexError, ValueError) as error:
            raise DecodeError(f"a damaged record: {error}") from error
        return key_message, value_message

    def _load(self, record_type: int) -> tuple[_Reader, _Reader, int]:
        name = _RECORD_TYPES.get(record_type)
        if name is None:
            raise UnknownRecord(f"record type {record_type}")
        package = "kbroker.protocol.internal_records"
        key_module = import_module(f"{package}.{name}_key")
        value_module = import_module(f"{package}.{name}_value")
        readers = (
            getattr(key_module, f"read_{name}_key"),
            getattr(value_module, f"read_{name}_value"),
            value_module.MAX_VERSION,
        )
        self._readers[record_type] = readers
        return readers
