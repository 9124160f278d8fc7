"""The bytes that consumers put into the classic protocol: subscriptions and assignments."""

from collections.abc import Mapping
from struct import Struct
from struct import error as StructError

from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.protocol.internal_records.consumer_protocol_assignment import (
    ConsumerProtocolAssignment,
    TopicPartition,
    read_consumer_protocol_assignment,
    write_consumer_protocol_assignment,
)
from kbroker.protocol.internal_records.consumer_protocol_subscription import (
    ConsumerProtocolSubscription,
    read_consumer_protocol_subscription,
)
from kbroker.protocol.wire import DecodeError

_INT16 = Struct(">h")
_LATEST = 3


class CutShortError(DecodeError):
    """The bytes end before a number of fixed size, or begin with no version."""


class UserDataError(DecodeError):
    """The assignment holds something that only the assignor of its group understands."""


def read_subscription(metadata: bytes) -> ConsumerProtocolSubscription:
    """A member's subscription; DecodeError."""
    try:
        version = _version(metadata)
        subscription, _ = read_consumer_protocol_subscription(metadata, 2, version)
    except (StructError, IndexError, ValueError) as error:
        raise DecodeError(f"an unreadable subscription: {error}") from error
    return subscription


def read_assignment(assignment: bytes, topics: TopicsView) -> dict[bytes, set[int]]:
    """Partitions by topic id, topics that do not exist left out.

    DecodeError; CutShortError where Kafka tells that from other damage; UserDataError.
    """
    if not assignment:
        return {}
    try:
        message, _ = read_consumer_protocol_assignment(assignment, 2, _version(assignment))
    except StructError as error:
        raise CutShortError(f"an assignment that is cut short: {error}") from error
    except (IndexError, ValueError) as error:
        raise DecodeError(f"an unreadable assignment: {error}") from error
    if message.user_data:
        raise UserDataError("an assignment with user data")
    found: dict[bytes, set[int]] = {}
    for entry in message.assigned_partitions:
        topic_id = topics.topic_id(entry.topic)
        if topic_id is not None:
            found.setdefault(topic_id, set()).update(entry.partitions)
    return found


def write_assignment(
    partitions: Mapping[bytes, object], metadata: bytes, topics: TopicsView
) -> bytes:
    """An assignment in the version that the member's subscription has."""
    version = _version(metadata)
    message = ConsumerProtocolAssignment()
    for topic_id in sorted(partitions):
        name = topics.name(topic_id)
        indexes = partitions[topic_id]
        assert isinstance(indexes, (frozenset, set, dict))
        if name is not None:
            message.assigned_partitions.append(TopicPartition(name, sorted(indexes)))
    parts: list[bytes] = [_INT16.pack(version)]
    write_consumer_protocol_assignment(parts, message, version)
    return b"".join(parts)


def _version(content: bytes) -> int:
    """The version in front; later ones begin like the latest known."""
    version: int = _INT16.unpack_from(content)[0]
    if version < 0:
        raise CutShortError(f"version {version} of the consumer protocol")
    return min(version, _LATEST)
