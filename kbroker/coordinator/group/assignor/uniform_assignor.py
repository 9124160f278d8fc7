"""Even numbers of partitions for everybody, and as few moves as possible.

When all members subscribe to the same topics, no two of them differ by more than one partition and
only what exceeds a member's share moves. Otherwise partitions move, from the one who has most to
the one who has least among a topic's subscribers, as long as that makes it more even.
"""

from kbroker.coordinator.group.assignor.assignor import GroupSpec, Partitions

_TopicPartition = tuple[bytes, int]


class UniformAssignor:
    """``Assignor`` that is even and sticky."""

    name = "uniform"

    def assign(self, spec: GroupSpec) -> dict[str, Partitions]:
        """See the module."""
        if not spec.members:
            return {}
        owned = _still_valid(spec)
        if spec.is_homogeneous:
            _share_out(spec, owned)
        else:
            _spread(spec, owned)
            _even_out(spec, owned)
        return {member_id: _by_topic(partitions) for member_id, partitions in owned.items()}


def _still_valid(spec: GroupSpec) -> dict[str, list[_TopicPartition]]:
    """What members keep: existing partitions of topics they subscribe to, each with one owner."""
    taken: set[_TopicPartition] = set()
    owned: dict[str, list[_TopicPartition]] = {}
    for member_id in sorted(spec.members):
        member = spec.members[member_id]
        kept: list[_TopicPartition] = []
        for topic_id, partitions in sorted(member.current.items()):
            if topic_id not in member.topic_ids:
                continue
            count = spec.partition_counts[topic_id]
            for partition in sorted(partitions):
                key = (topic_id, partition)
                if partition < count and key not in taken:
                    taken.add(key)
                    kept.append(key)
        owned[member_id] = kept
    return owned


def _unowned(spec: GroupSpec, owned: dict[str, list[_TopicPartition]]) -> list[_TopicPartition]:
    """Partitions without an owner, topic by topic, as Kafka hands them out."""
    taken = {key for kept in owned.values() for key in kept}
    topic_ids = {topic_id for member in spec.members.values() for topic_id in member.topic_ids}
    return [
        (topic_id, partition)
        for topic_id in sorted(topic_ids)
        for partition in range(spec.partition_counts[topic_id])
        if (topic_id, partition) not in taken
    ]


def _share_out(spec: GroupSpec, owned: dict[str, list[_TopicPartition]]) -> None:
    """Everybody to the same number, the larger shares to those who own most already."""
    topic_ids = next(iter(spec.members.values())).topic_ids
    total = sum(spec.partition_counts[topic_id] for topic_id in topic_ids)
    share, extra = divmod(total, len(owned))
    quotas: dict[str, int] = {}
    for number, member_id in enumerate(sorted(owned, key=lambda m: (-len(owned[m]), m))):
        quotas[member_id] = share + (1 if number < extra else 0)
    for member_id, kept in owned.items():
        del kept[quotas[member_id] :]
    free = iter(_unowned(spec, owned))
    for member_id, kept in owned.items():
        for _ in range(quotas[member_id] - len(kept)):
            kept.append(next(free))


def _spread(spec: GroupSpec, owned: dict[str, list[_TopicPartition]]) -> None:
    """Give what is free to the subscriber who has least, scarce topics first."""
    subscribers = _subscribers(spec)
    free = _unowned(spec, owned)
    free.sort(key=lambda key: (len(subscribers[key[0]]), key[1], key[0]))
    for key in free:
        least = min(subscribers[key[0]], key=lambda member_id: (len(owned[member_id]), member_id))
        owned[least].append(key)


def _even_out(spec: GroupSpec, owned: dict[str, list[_TopicPartition]]) -> None:
    """Move single partitions while two subscribers of their topic differ by more than one.

    Each move makes the sum of squares smaller, so it ends.
    """
    subscribers = _subscribers(spec)
    moved = True
    while moved:
        moved = False
        for topic_id, members in subscribers.items():
            while True:
                owners = [m for m in members if any(t == topic_id for t, _ in owned[m])]
                if not owners:
                    break
                most = max(owners, key=lambda member_id: (len(owned[member_id]), member_id))
                least = min(members, key=lambda member_id: (len(owned[member_id]), member_id))
                if len(owned[most]) - len(owned[least]) <= 1:
                    break
                key = next(key for key in reversed(owned[most]) if key[0] == topic_id)
                owned[most].remove(key)
                owned[least].append(key)
                moved = True


def _subscribers(spec: GroupSpec) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for member_id in sorted(spec.members):
        for topic_id in sorted(spec.members[member_id].topic_ids):
            found.setdefault(topic_id, []).append(member_id)
    return found


def _by_topic(partitions: list[_TopicPartition]) -> Partitions:
    topics: dict[bytes, set[int]] = {}
    for topic_id, partition in partitions:
        topics.setdefault(topic_id, set()).add(partition)
    return {topic_id: frozenset(found) for topic_id, found in topics.items()}
