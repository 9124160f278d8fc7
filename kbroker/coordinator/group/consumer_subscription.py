"""Reads the topics out of a consumer's JoinGroup metadata (ConsumerProtocolSubscription).

Only the part that all versions share is read: version, topics, user data. So no version of the
protocol that a client may come with is foreign to the coordinator.
"""

from struct import Struct

_INT16 = Struct(">h")
_INT32 = Struct(">i")


class UnreadableSubscription(Exception):
    """The bytes are too short to be a subscription; such a member may still join."""


class AbsurdSubscription(Exception):
    """The bytes claim what cannot be: negative or oversized lengths. No member with such may join.

    Apache Kafka fails inside its rebalance here and leaves every member without an answer.
    """


def subscribed_topics(metadata: bytes) -> list[str]:
    """The topics of one member. UnreadableSubscription, AbsurdSubscription."""
    size = len(metadata)
    if size < 6:
        raise UnreadableSubscription("no header and topic count")
    (count,) = _INT32.unpack_from(metadata, 2)
    position = 6
    if count < 0 or count > size - position:
        raise AbsurdSubscription(f"{count} topics in {size - position} bytes")
    topics: list[str] = []
    for _ in range(count):
        if position + 2 > size:
            raise UnreadableSubscription("the topics are cut off")
        (length,) = _INT16.unpack_from(metadata, position)
        position += 2
        end = position + length
        if length < 0 or end > size:
            raise AbsurdSubscription(f"a topic of {length} bytes, {size - position} are left")
        topics.append(metadata[position:end].decode("utf-8", "replace"))
        position = end
    if position + 4 > size:
        raise UnreadableSubscription("the user data is cut off")
    (length,) = _INT32.unpack_from(metadata, position)
    if length > size - position - 4:
        raise AbsurdSubscription(f"{length} bytes of user data, {size - position - 4} are left")
    return topics
