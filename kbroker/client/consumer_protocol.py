"""The bytes that consumers put into the classic group protocol: subscriptions and assignments."""

from collections.abc import Mapping, Sequence
from struct import Struct
from struct import error as StructError

from kbroker.protocol.internal_records.consumer_protocol_assignment import (
    ConsumerProtocolAssignment,
    TopicPartition,
    read_consumer_protocol_assignment,
    write_consumer_protocol_assignment,
)
from kbroker.protocol.internal_records.consumer_protocol_subscription import (
    ConsumerProtocolSubscription,
    read_consumer_protocol_subscription,
    write_consumer_protocol_subscription,
)
from kbroker.protocol.wire import DecodeError

Assignment = dict[str, list[int]]
"""Topic -> partitions, in order."""

_VERSION = Struct(">h")
_LATEST = 3


def write_subscription(topics: Sequence[str]) -> bytes:
    """What a member that owns nothing yet subscribes to, in version 0: every assignor reads it."""
    parts: list[bytes] = [_VERSION.pack(0)]
    write_consumer_protocol_subscription(parts, ConsumerProtocolSubscription(list(topics)), 0)
    return b"".join(parts)


def read_subscribed_topics(content: bytes) -> list[str]:
    """The topics of a subscription of any version; DecodeError."""
    try:
        subscription, _ = read_consumer_protocol_subscription(content, 2, _version(content))
    except (StructError, IndexError, ValueError) as error:
        raise DecodeError(f"an unreadable subscription: {error}") from error
    return list(subscription.topics)


def write_assignment(assignment: Mapping[str, Sequence[int]]) -> bytes:
    """In version 0, which every consumer reads."""
    message = ConsumerProtocolAssignment(
        [TopicPartition(topic, sorted(indexes)) for topic, indexes in sorted(assignment.items())]
    )
    parts: list[bytes] = [_VERSION.pack(0)]
    write_consumer_protocol_assignment(parts, message, 0)
    return b"".join(parts)


def read_assignment(content: bytes) -> Assignment:
    """An assignment of any version; nothing is nothing. DecodeError."""
    if not content:
        return {}
    try:
        message, _ = read_consumer_protocol_assignment(content, 2, _version(content))
    except (StructError, IndexError, ValueError) as error:
        raise DecodeError(f"an unreadable assignment: {error}") from error
    found = {each.topic: sorted(each.partitions) for each in message.assigned_partitions}
    return dict(sorted(found.items()))


def _version(content: bytes) -> int:
    """The version in front; later ones begin like the latest known."""
    version: int = _VERSION.unpack_from(content)[0]
    if version < 0:
        raise DecodeError(f"version {version} of the consumer protocol")
    return min(version, _LATEST)
