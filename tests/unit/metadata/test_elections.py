"""Leaders, ISR and ELR after brokers came and went."""

from typing import Any

import pytest

from kbroker.metadata.elections import after_admission, after_fencing
from kbroker.metadata.values import PartitionValue, RecoveryState

ALL = frozenset({1, 2, 3})


def partition(**changes: Any) -> PartitionValue:
    base = {"leader": 1, "leader_epoch": 5, "replicas": (1, 2, 3), "isr": (1, 2, 3), "min_isr": 2}
    return PartitionValue(**{**base, **changes})


def test_a_follower_leaves_without_a_new_epoch() -> None:
    assert after_fencing(partition(), 3, ALL - {3}) == partition(isr=(1, 2))


def test_the_leader_is_replaced_by_the_first_replica_in_sync() -> None:
    after = after_fencing(partition(), 1, ALL - {1})
    assert after == partition(leader=2, leader_epoch=6, isr=(2, 3))


def test_below_min_isr_who_leaves_stays_eligible() -> None:
    after = after_fencing(partition(isr=(1, 2)), 2, frozenset({1}))
    assert after == partition(isr=(1,), elr=(2,))


def test_the_last_one_gone_leaves_no_leader_but_can_come_back() -> None:
    before = partition(isr=(1,), elr=(2,))
    gone = after_fencing(before, 1, frozenset())
    assert gone == partition(leader=-1, leader_epoch=6, isr=(), elr=(2, 1))
    back = after_admission(gone, 1, frozenset({1}), clean=True)
    assert back == partition(leader=1, leader_epoch=7, isr=(1,), elr=(2,))


def test_back_after_a_crash_is_neither_in_sync_nor_eligible() -> None:
    before = partition(isr=(1, 2), elr=())
    after = after_admission(before, 2, ALL, clean=False)
    assert after == partition(isr=(1,))
    eligible = partition(leader=-1, isr=(), elr=(1, 2))
    after = after_admission(eligible, 2, ALL, clean=False)
    assert after == partition(leader=1, leader_epoch=6, isr=(1,), elr=())


def test_the_last_replica_after_a_crash_leads_again_in_a_new_epoch() -> None:
    single = partition(replicas=(1,), isr=(1,), min_isr=1)
    after = after_admission(single, 1, frozenset({1}), clean=False)
    assert after == partition(
        replicas=(1,), isr=(1,), min_isr=1, leader_epoch=6, recovery_state=RecoveryState.RECOVERING
    )


def test_a_clean_restart_changes_nothing() -> None:
    single = partition(replicas=(1,), isr=(1,), min_isr=1)
    assert after_admission(single, 1, frozenset({1}), clean=True) is None


@pytest.mark.parametrize("clean", [True, False])
def test_strangers_change_nothing(clean: bool) -> None:
    assert after_admission(partition(), 4, ALL | {4}, clean=clean) is None
    assert after_fencing(partition(), 4, ALL) is None


def test_both_replicas_crashed_the_last_known_leader_alone_may_lead() -> None:
    """With no ISR and no ELR only the last of them is trusted, however the others return."""
    before = partition(replicas=(1, 2), isr=(1, 2), min_isr=2)
    one_down = after_fencing(before, 2, frozenset({1}))
    assert one_down is not None
    assert one_down.elr == (2,)
    both_down = after_fencing(one_down, 1, frozenset())
    assert both_down is not None
    assert set(both_down.elr) == {1, 2}
    first = after_admission(both_down, 2, frozenset({2}), clean=False)
    assert first is not None
    assert (first.leader, first.isr, first.elr) == (-1, (), (1,))
    second = after_admission(first, 1, frozenset({1, 2}), clean=False)
    assert second is not None
    assert (second.leader, second.isr, second.last_known_elr) == (1, (1,), ())
    assert second.recovery_state == RecoveryState.RECOVERING
