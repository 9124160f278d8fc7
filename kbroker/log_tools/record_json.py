"""Kafka's internal records as JSON, with the names and forms that Apache Kafka's tools print.

Field names are those of the schemas in camel case, bytes are base64, uuids Kafka's 22 characters.
A field that a version does not have is left out, and so is a tagged one at its default.
"""

import binascii
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from kbroker.protocol.wire import ZERO_UUID
from kbroker.storage.checkpoints import encode_uuid

_SKIPPED: Final = "unknown_tagged_fields"

JSON_NAMES: Final = {
    ("KRaftVersionRecord", "kraft_version"): "kRaftVersion",
    ("Voter", "kraft_version_feature"): "kRaftVersionFeature",
}
"""(class, attribute) -> name, where it is not the attribute in camel case."""

UUID_LISTS: Final = frozenset({"directories", "log_dirs", "cordoned_log_dirs"})
"""Attributes that are lists of uuids; no record has lists of other bytes."""

LIMITED_FIELDS: Final = {
    ("AbortTransactionRecord", "reason"): (0, None, True),
    ("BeginTransactionRecord", "name"): (0, None, True),
    ("BrokerRegistrationChangeRecord", "fenced"): (0, None, True),
    ("BrokerRegistrationChangeRecord", "in_controlled_shutdown"): (1, None, True),
    ("BrokerRegistrationChangeRecord", "log_dirs"): (2, None, True),
    ("BrokerRegistrationChangeRecord", "cordoned_log_dirs"): (3, None, True),
    ("ConsumerGroupMetadataValue", "metadata_hash"): (0, None, True),
    ("ConsumerGroupTargetAssignmentMetadataValue", "assignment_timestamp"): (0, None, True),
    ("ConsumerProtocolSubscription", "owned_partitions"): (1, None, False),
    ("ConsumerProtocolSubscription", "generation_id"): (2, None, False),
    ("ConsumerProtocolSubscription", "rack_id"): (3, None, False),
    ("GroupMetadataValue", "current_state_timestamp"): (2, None, False),
    ("MemberMetadata", "group_instance_id"): (3, None, False),
    ("MemberMetadata", "rebalance_timeout"): (1, None, False),
    ("OffsetCommitValue", "expire_timestamp"): (1, 1, False),
    ("OffsetCommitValue", "leader_epoch"): (3, None, False),
    ("OffsetCommitValue", "topic_id"): (4, None, True),
    ("PartitionChangeRecord", "adding_replicas"): (0, None, True),
    ("PartitionChangeRecord", "directories"): (1, None, True),
    ("PartitionChangeRecord", "eligible_leader_replicas"): (2, None, True),
    ("PartitionChangeRecord", "isr"): (0, None, True),
    ("PartitionChangeRecord", "last_known_elr"): (2, None, True),
    ("PartitionChangeRecord", "leader"): (0, None, True),
    ("PartitionChangeRecord", "leader_recovery_state"): (0, None, True),
    ("PartitionChangeRecord", "removing_replicas"): (0, None, True),
    ("PartitionChangeRecord", "replicas"): (0, None, True),
    ("PartitionRecord", "directories"): (1, None, False),
    ("PartitionRecord", "eligible_leader_replicas"): (2, None, True),
    ("PartitionRecord", "last_known_elr"): (2, None, True),
    ("PartitionRecord", "leader_recovery_state"): (0, None, True),
    ("RegisterBrokerRecord", "in_controlled_shutdown"): (1, None, False),
    ("RegisterBrokerRecord", "is_migrating_zk_broker"): (2, None, False),
    ("RegisterBrokerRecord", "log_dirs"): (3, None, True),
    ("RegisterBrokerRecord", "cordoned_log_dirs"): (4, None, True),
    ("ShareGroupTargetAssignmentMetadataValue", "assignment_timestamp"): (0, None, True),
    ("ShareSnapshotValue", "delivery_complete_count"): (0, None, True),
    ("ShareUpdateValue", "delivery_complete_count"): (0, None, True),
    ("StreamsGroupMetadataValue", "last_assignment_configs"): (0, None, True),
    ("StreamsGroupMetadataValue", "validated_topology_epoch"): (0, None, True),
    ("StreamsGroupTargetAssignmentMetadataValue", "assignment_timestamp"): (0, None, True),
    ("TaskIds", "assignment_epochs"): (0, None, True),
    ("TopicPartitions", "assignment_epochs"): (0, None, True),
    ("TransactionLogValue", "client_transaction_version"): (1, None, True),
    ("TransactionLogValue", "next_producer_epoch"): (1, None, True),
    ("TransactionLogValue", "next_producer_id"): (1, None, True),
    ("TransactionLogValue", "previous_producer_id"): (1, None, True),
    ("leader_change_message.Voter", "voter_directory_id"): (1, None, False),
}
"""(class, attribute) -> (first version, last version, left out at its default).

A test compares these tables with the schemas. One field is not in them: ClassicMemberMetadata is
tagged, but Apache Kafka prints its null. Where structs of one name differ the module is named.
"""


def record_json(message: Any, version: int) -> dict[str, Any]:
    """The record as Kafka's generated JSON converters give it, ready for ``json.dumps``."""
    kind: Any = type(message)
    limited = _limits(kind)
    fields = {}
    for name in message.FIELDS:
        if name == _SKIPPED:
            continue
        value = getattr(message, name)
        if name in limited:
            first, last, is_tagged = limited[name]
            if version < first or (last is not None and version > last):
                continue
            if is_tagged and value == getattr(_defaults(kind), name):
                continue
        fields[json_name(kind.__name__, name)] = _value_json(message, name, value, version)
    return fields


@cache
def _limits(kind: Any) -> Mapping[str, tuple[int, int | None, bool]]:
    names = (kind.__name__, f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}")
    return {field: limits for (name, field), limits in LIMITED_FIELDS.items() if name in names}


def json_name(kind: str, attribute: str) -> str:
    """``topic_id`` -> ``topicId``."""
    special = JSON_NAMES.get((kind, attribute))
    if special is not None:
        return special
    first, *others = attribute.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in others)


@cache
def _defaults(kind: Any) -> Any:
    return kind()


@cache
def _is_uuid(kind: Any, attribute: str) -> bool:
    """A field of 16 bytes; its default tells, which is the only one that is not empty."""
    parameter = inspect.signature(kind).parameters[attribute]
    return bool(parameter.default == ZERO_UUID)


def _value_json(message: Any, name: str, value: Any, version: int) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        kind: Any = type(message)
        if _is_uuid(kind, name):
            return encode_uuid(bytes(value))
        return binascii.b2a_base64(value, newline=False).decode()
    if isinstance(value, list):
        if name in UUID_LISTS:
            return [encode_uuid(each) for each in value]
        return [_value_json(message, name, each, version) for each in value]
    if hasattr(value, "FIELDS"):
        return record_json(value, version)
    return value
