"""Which brokers get the replicas of new partitions.

Leaders go round the live brokers from a random start, racks in turn; followers follow in the same
order, shifted a step more at each round, so that the followers of one leader are spread too. Fenced
brokers get a replica only when there are not enough live ones, and never the leader.
"""

from collections.abc import Iterable, Sequence

from kbroker.common.entropy import Entropy
from kbroker.metadata.image import BrokerImage
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError


def place_replicas(
    brokers: Iterable[BrokerImage],
    *,
    partitions: int,
    replication_factor: int,
    entropy: Entropy,
) -> list[tuple[int, ...]]:
    """For each partition its replicas, the preferred leader first.

    Raises KafkaError(INVALID_REPLICATION_FACTOR) when there are too few brokers.
    """
    known = list(brokers)
    live = _racks_in_turn([broker for broker in known if not broker.fenced])
    fenced = _racks_in_turn([broker for broker in known if broker.fenced])
    if not live:
        raise _unplaceable("All brokers are currently fenced.")
    if replication_factor > len(known):
        raise _unplaceable(
            f"The target replication factor of {replication_factor} cannot be reached because "
            f"only {len(known)} broker(s) are registered or some brokers have all their log "
            "directories cordoned."
        )
    start = entropy.randint(0, len(live) - 1)
    placed = []
    for partition in range(partitions):
        turn = start + partition
        replicas = _replicas_from(live, turn, replication_factor)
        if len(replicas) < replication_factor:
            missing = replication_factor - len(replicas)
            replicas += _replicas_from(fenced, turn, missing)
        placed.append(tuple(replicas))
    return placed


def _replicas_from(brokers: Sequence[BrokerImage], turn: int, wanted: int) -> list[int]:
    """``wanted`` of the brokers (all, if there are fewer), beginning with number ``turn``."""
    count = len(brokers)
    if not count:
        return []
    first = turn % count
    shift = turn // count  # a new one for each round over the leaders
    others = count - 1
    ring = [brokers[(first + 1 + (shift + step) % others) % count] for step in range(others)]
    chosen = [brokers[first]]
    racks = {chosen[0].rack} - {None}
    for must_be_new_rack in (True, False):
        for broker in ring:
            if len(chosen) == min(wanted, count):
                break
            if broker in chosen or (must_be_new_rack and broker.rack in racks):
                continue
            chosen.append(broker)
            if broker.rack is not None:
                racks.add(broker.rack)
    return [broker.node_id for broker in chosen]


def _racks_in_turn(brokers: Sequence[BrokerImage]) -> list[BrokerImage]:
    """One of each rack after the other, so that leaders go from rack to rack."""
    racks: dict[str | None, list[BrokerImage]] = {}
    for broker in sorted(brokers, key=lambda broker: broker.node_id):
        racks.setdefault(broker.rack, []).append(broker)
    queues = [racks[rack] for rack in sorted(racks, key=lambda rack: (rack is None, rack or ""))]
    ordered = []
    for position in range(max(map(len, queues), default=0)):
        ordered += [queue[position] for queue in queues if position < len(queue)]
    return ordered


def _unplaceable(reason: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REPLICATION_FACTOR, reason)
