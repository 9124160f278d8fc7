"""Who reads what, as the leader of a classic group decides it: Kafka's range and roundrobin."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kbroker.client.consumer_protocol import Assignment

Subscriptions = Mapping[str, Sequence[str]]
"""Member -> topics. Members are taken in the order of their names."""

PartitionCounts = Mapping[str, int]
"""Topic -> how many partitions it has; a topic that is missing has none."""


def assign_range(members: Subscriptions, counts: PartitionCounts) -> dict[str, Assignment]:
    """Of every topic a run of neighbours for each subscriber, the first ones one more."""
    assigned: dict[str, Assignment] = {member: {} for member in members}
    for topic in sorted({topic for topics in members.values() for topic in topics}):
        subscribers = sorted(member for member, topics in members.items() if topic in topics)
        share, more = divmod(counts.get(topic, 0), len(subscribers))
        begin = 0
        for index, member in enumerate(subscribers):
            end = begin + share + (index < more)
            if end > begin:
                assigned[member][topic] = list(range(begin, end))
            begin = end
    return assigned


def assign_roundrobin(members: Subscriptions, counts: PartitionCounts) -> dict[str, Assignment]:
    """All partitions of all topics in turn, members that have not subscribed to one passed over."""
    assigned: dict[str, Assignment] = {member: {} for member in members}
    order = sorted(members)
    turn = 0
    for topic in sorted({topic for topics in members.values() for topic in topics}):
        for partition in range(counts.get(topic, 0)):
            while topic not in members[order[turn % len(order)]]:
                turn += 1
            assigned[order[turn % len(order)]].setdefault(topic, []).append(partition)
            turn += 1
    return assigned


ASSIGNORS: Final[
    Mapping[str, Callable[[Subscriptions, PartitionCounts], dict[str, Assignment]]]
] = {"range": assign_range, "roundrobin": assign_roundrobin}
"""By the names that members vote on; the first is preferred, as by Kafka's consumers."""
