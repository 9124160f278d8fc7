"""Who leads a partition after a broker came or went (KIP-966: eligible leader replicas).

Pure functions: a partition and the set of live brokers in, the changed partition out, or None when
nothing changes. A leader comes from the ISR, else from the ELR (they hold every committed record),
else it is the last known leader alone, once it is live, which may have lost records: RECOVERING.
"""

from collections.abc import Set as AbstractSet

from kbroker.common.named_tuple import NamedTuple
from kbroker.metadata.values import PartitionValue, RecoveryState

NO_LEADER = -1


def after_fencing(
    partition: PartitionValue, node_id: int, live: AbstractSet[int]
) -> PartitionValue | None:
    """``node_id`` is gone (and not in ``live``): out of the ISR, into the ELR if it is needed."""
    if node_id not in partition.isr and partition.leader != node_id:
        return None
    return _elect(partition, _without(partition, node_id, keep_eligible=True), live)


def after_admission(
    partition: PartitionValue, node_id: int, live: AbstractSet[int], *, clean: bool
) -> PartitionValue | None:
    """``node_id`` is back (and in ``live``).

    After a clean shutdown its log is whole. After any other it may lack records of its page cache:
    it leaves ISR and ELR, and the last one of all is remembered, not forgotten.
    """
    if node_id not in partition.replicas:
        return None
    if clean:
        if partition.leader in live:
            return None
        state = _Members(partition.leader, partition.isr, partition.elr, partition.last_known_elr)
        return _elect(partition, state, live)
    if node_id not in (*partition.isr, *partition.elr, *partition.last_known_elr):
        return None
    return _elect(partition, _without(partition, node_id, keep_eligible=False), live)


class _Members(NamedTuple):
    """Who may lead a partition; ``leader`` is NO_LEADER when one is to be elected."""

    leader: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    last_known_elr: tuple[int, ...]


def _without(partition: PartitionValue, node_id: int, *, keep_eligible: bool) -> _Members:
    """The partition's members with the broker out of the ISR; a leader resigns."""
    isr = tuple(node for node in partition.isr if node != node_id)
    elr = tuple(node for node in partition.elr if node != node_id)
    if len(isr) >= min(partition.min_isr, len(partition.replicas)):
        elr = ()
    elif keep_eligible and node_id in partition.isr:
        elr = (*elr, node_id)
    last_known = partition.last_known_elr
    if not isr and not elr:
        last_known = last_known or (node_id,)
    elif isr:
        last_known = ()
    leader = NO_LEADER if partition.leader == node_id else partition.leader
    return _Members(leader, isr, elr, last_known)


def _elect(
    partition: PartitionValue, members: _Members, live: AbstractSet[int]
) -> PartitionValue | None:
    """Give it a leader if it has none and can; one more epoch when the leader resigned."""
    leader, isr, elr, last_known = members
    recovery = partition.recovery_state
    # A leader that restarted may have lost what was not on disk: its epoch must be another one.
    stayed = leader == partition.leader and (leader in live or leader == NO_LEADER)
    if leader not in live:
        leader = NO_LEADER
        in_sync = [node for node in partition.replicas if node in isr and node in live]
        eligible = [node for node in partition.replicas if node in elr and node in live]
        if in_sync:
            leader = in_sync[0]
        elif eligible:
            leader = eligible[0]
            isr, elr = (leader,), tuple(node for node in elr if node != leader)
        elif not isr and not elr and last_known and last_known[0] in live:
            leader = last_known[0]
            isr, last_known, recovery = (leader,), (), RecoveryState.RECOVERING
        stayed = stayed and leader == partition.leader
    changed = PartitionValue(
        leader=leader,
        leader_epoch=partition.leader_epoch + (not stayed),
        replicas=partition.replicas,
        isr=isr,
        adding=partition.adding,
        removing=partition.removing,
        elr=elr,
        last_known_elr=last_known,
        recovery_state=recovery,
        min_isr=partition.min_isr,
        change_id=partition.change_id,
        tail=partition.tail,
        partition_epoch=partition.partition_epoch,
        mod_revision=partition.mod_revision,
    )
    return None if stayed and changed == partition else changed
