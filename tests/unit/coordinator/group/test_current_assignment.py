"""One step of a member towards its target, from every state into every other."""

from collections.abc import Mapping
from typing import Any

import pytest

from kbroker.coordinator.group.consumer_member import ConsumerGroupMember, MemberState
from kbroker.coordinator.group.current_assignment import Owned, Reconciliation, owns_only
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

T, U = b"t" * 16, b"u" * 16
STABLE = MemberState.STABLE
UNREVOKED = MemberState.UNREVOKED_PARTITIONS
UNRELEASED = MemberState.UNRELEASED_PARTITIONS

Sets = Mapping[bytes, set[int]]


def member(
    state: MemberState, assigned: Sets, pending: Sets | None = None, epoch: int = 10
) -> ConsumerGroupMember:
    return ConsumerGroupMember(
        member_id="m",
        member_epoch=epoch,
        previous_member_epoch=epoch,
        state=state,
        assigned={t: dict.fromkeys(p, 9) for t, p in assigned.items()},
        pending_revocation={t: dict.fromkeys(p, 9) for t, p in (pending or {}).items()},
    )


def step(
    before: ConsumerGroupMember,
    target: Sets,
    *,
    epoch: int = 11,
    taken: Sets | None = None,
    owned: Sets | None = None,
    subscribed: frozenset[bytes] = frozenset({T, U}),
    changed: bool = False,
) -> ConsumerGroupMember:
    """``taken`` is owned by others; what the member holds is owned by itself."""

    def is_owned(topic_id: bytes, partition: int) -> bool:
        return any(
            partition in held.get(topic_id, ())
            for held in (taken or {}, before.assigned, before.pending_revocation)
        )

    reported: Owned | None = None
    if owned is not None:
        reported = [(topic_id, sorted(partitions)) for topic_id, partitions in owned.items()]
    return Reconciliation(
        before,
        target_epoch=epoch,
        target={t: frozenset(p) for t, p in target.items()},
        subscribed_topic_ids=subscribed,
        has_subscription_changed=changed,
        is_owned=is_owned,
        owned=reported,
    ).next_member()


def content(value: ConsumerGroupMember) -> tuple[Any, ...]:
    """(state, epoch, assigned, pending) without the partitions' epochs."""
    return (
        value.state,
        value.member_epoch,
        {t: set(p) for t, p in value.assigned.items()},
        {t: set(p) for t, p in value.pending_revocation.items()},
    )


HELD = {T: {1, 2, 3}, U: {4}}

STEPS: dict[str, tuple[ConsumerGroupMember, dict[str, Any], tuple[Any, ...]]] = {
    "stable, the same target": (
        member(STABLE, HELD),
        {"target": HELD},
        (STABLE, 11, HELD, {}),
    ),
    "stable, more that is free": (
        member(STABLE, HELD),
        {"target": {T: {1, 2, 3, 4}, U: {4, 7}}},
        (STABLE, 11, {T: {1, 2, 3, 4}, U: {4, 7}}, {}),
    ),
    "stable, something is to be revoked": (
        member(STABLE, HELD),
        {"target": {T: {2, 3, 4}, U: {4}}},
        (UNREVOKED, 10, {T: {2, 3}, U: {4}}, {T: {1}}),
    ),
    "stable, more that is taken": (
        member(STABLE, HELD),
        {"target": {T: {1, 2, 3, 4}, U: {4, 7}}, "taken": {T: {4}}},
        (UNRELEASED, 11, {T: {1, 2, 3}, U: {4, 7}}, {}),
    ),
    "stable, what is to be revoked is not reported any more": (
        member(STABLE, HELD),
        {"target": {T: {2, 3, 5}, U: {4}}, "taken": {T: {5}}, "owned": {T: {2, 3}, U: {4}}},
        (UNRELEASED, 11, {T: {2, 3}, U: {4}}, {}),
    ),
    "unrevoked, it has been revoked": (
        member(UNREVOKED, {T: {2, 3}}, {T: {1}}),
        {"target": {T: {2, 3}}, "owned": {T: {2, 3}}},
        (STABLE, 11, {T: {2, 3}}, {}),
    ),
    "unrevoked, it is still reported": (
        member(UNREVOKED, {T: {2, 3}}, {T: {1}}),
        {"target": {T: {2, 3}}, "owned": {T: {1, 2, 3}}},
        (UNREVOKED, 10, {T: {2, 3}}, {T: {1}}),
    ),
    "unrevoked, nothing is reported at all": (
        member(UNREVOKED, {T: {2, 3}}, {T: {1}}),
        {"target": {T: {2, 3}}},
        (UNREVOKED, 10, {T: {2, 3}}, {T: {1}}),
    ),
    "unrevoked, and the newest target wants more back": (
        member(UNREVOKED, {T: {2, 3}}, {T: {1}}),
        {"target": {T: {3}}, "epoch": 12, "owned": {T: {2, 3}}},
        (UNREVOKED, 10, {T: {3}}, {T: {2}}),
    ),
    "unrevoked, then something is taken": (
        member(UNREVOKED, {T: {2, 3}}, {T: {1}}),
        {"target": {T: {2, 3, 4}}, "taken": {T: {4}}, "owned": {T: {2, 3}}},
        (UNRELEASED, 11, {T: {2, 3}}, {}),
    ),
    "unrevoked, the newest target gives it back": (
        member(UNREVOKED, {T: {2, 3}}, {T: {1}}),
        {"target": {T: {1, 2, 3}}, "epoch": 12, "owned": {T: {2, 3}}},
        (STABLE, 12, {T: {1, 2, 3}}, {}),
    ),
    "unreleased, now it is free": (
        member(UNRELEASED, {T: {2, 3}}, epoch=11),
        {"target": {T: {2, 3, 4}}},
        (STABLE, 11, {T: {2, 3, 4}}, {}),
    ),
    "unreleased, the newest target is all there": (
        member(UNRELEASED, {T: {2, 3}}, epoch=11),
        {"target": {T: {2, 3, 5}}, "epoch": 12},
        (STABLE, 12, {T: {2, 3, 5}}, {}),
    ),
    "unreleased, still": (
        member(UNRELEASED, {T: {2, 3}}, epoch=11),
        {"target": {T: {2, 3, 4}}, "taken": {T: {4}}},
        (UNRELEASED, 11, {T: {2, 3}}, {}),
    ),
    "unreleased, one of two is free": (
        member(UNRELEASED, {T: {2}}, epoch=11),
        {"target": {T: {2, 4, 5}}, "taken": {T: {4}}},
        (UNRELEASED, 11, {T: {2, 5}}, {}),
    ),
    "unreleased, the newest target wants something back": (
        member(UNRELEASED, {T: {2, 3}}, epoch=11),
        {"target": {T: {2}}, "epoch": 12},
        (UNREVOKED, 11, {T: {2}}, {T: {3}}),
    ),
    "stable, a topic is not subscribed to any more": (
        member(STABLE, HELD),
        {"target": HELD, "epoch": 10, "subscribed": frozenset({T}), "changed": True},
        (UNREVOKED, 10, {T: {1, 2, 3}}, {U: {4}}),
    ),
    "stable, such a topic is not reported": (
        member(STABLE, HELD),
        {
            "target": HELD,
            "epoch": 10,
            "subscribed": frozenset({T}),
            "changed": True,
            "owned": {T: {1, 2, 3}},
        },
        (STABLE, 10, {T: {1, 2, 3}}, {}),
    ),
    "stable, such a topic is in the newest target": (
        member(STABLE, {T: {1}}),
        {"target": {T: {1}, U: {4}}, "subscribed": frozenset({T}), "changed": True},
        (STABLE, 11, {T: {1}}, {}),
    ),
    "unrevoked, such a topic comes on top": (
        member(UNREVOKED, {T: {2, 3}, U: {4}}, {T: {1}}),
        {"target": {T: {2, 3}, U: {4}}, "subscribed": frozenset({T}), "changed": True},
        (UNREVOKED, 10, {T: {2, 3}}, {T: {1}, U: {4}}),
    ),
    "of a later release, with nothing": (
        member(MemberState.UNKNOWN, {T: {2}}),
        {"target": {T: {2, 3}}, "owned": {}},
        (STABLE, 11, {T: {2, 3}}, {}),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_step(name: str) -> None:
    before, inputs, after = STEPS[name]
    assert content(step(before, **inputs)) == after


@pytest.mark.parametrize("owned", [None, {T: {2}}])
def test_who_is_in_a_state_of_a_later_release_must_begin_anew(owned: Sets | None) -> None:
    with pytest.raises(KafkaError) as caught:
        step(member(MemberState.UNKNOWN, {T: {2}}), {T: {2}}, owned=owned)
    assert caught.value.error_code is ErrorCode.FENCED_MEMBER_EPOCH


def test_partitions_remember_the_epoch_at_which_they_came() -> None:
    after = step(member(STABLE, {T: {1}}), {T: {1, 2}})
    assert after.assigned == {T: {1: 9, 2: 11}}
    assert after.previous_member_epoch == 10


@pytest.mark.parametrize(
    ("owned", "expected"),
    [
        (None, False),
        ([], True),
        ([(T, [1])], True),
        ([(T, [1, 2])], False),
        ([(U, [1])], False),
        ([(U, [])], True),
    ],
)
def test_owns_only(owned: Owned | None, expected: bool) -> None:
    assert owns_only(owned, {T: {1: 5}}) is expected
