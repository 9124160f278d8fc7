"""Ranges: of every topic each subscriber gets a run of neighbouring partitions.

Members are taken in the order of their instance ids, then of their member ids, for every topic
alike; so topics with the same subscribers and partition counts are co-partitioned.
"""

from kbroker.coordinator.group.assignor.assignor import GroupSpec, MemberSpec, Partitions


class RangeAssignor:
    """``Assignor`` by ranges."""

    name = "range"

    def assign(self, spec: GroupSpec) -> dict[str, Partitions]:
        """See the module."""
        order = sorted(
            spec.members, key=lambda member_id: _rank(spec.members[member_id], member_id)
        )
        assigned: dict[str, dict[bytes, frozenset[int]]] = {member_id: {} for member_id in order}
        for topic_id in sorted({t for member in spec.members.values() for t in member.topic_ids}):
            subscribers = [m for m in order if topic_id in spec.members[m].topic_ids]
            size, extra = divmod(spec.partition_counts[topic_id], len(subscribers))
            start = 0
            for number, member_id in enumerate(subscribers):
                end = start + size + (1 if number < extra else 0)
                if start < end:
                    assigned[member_id][topic_id] = frozenset(range(start, end))
                start = end
        return dict(assigned)


def _rank(member: MemberSpec, member_id: str) -> tuple[bool, str]:
    """Static members come first, in the order of their instance ids."""
    if member.instance_id is not None:
        return (False, member.instance_id)
    return (True, member_id)
