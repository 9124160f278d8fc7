"""The state of a classic group on its own: transitions, votes, leaders, who may commit."""

from typing import Any

import pytest

from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.classic_group import (
    ClassicGroup,
    ClassicGroupMember,
    ClassicGroupState,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

EMPTY, PREPARING, COMPLETING, STABLE, DEAD = ClassicGroupState

ALLOWED = {
    (EMPTY, PREPARING),
    (STABLE, PREPARING),
    (COMPLETING, PREPARING),
    (PREPARING, COMPLETING),
    (COMPLETING, STABLE),
    (PREPARING, EMPTY),
    *((state, DEAD) for state in ClassicGroupState),
}
"""Kafka forbids nothing of this but Dead to Dead, which nobody asks for."""


def member(
    member_id: str = "m", *, instance_id: str | None = None, protocols: Any = (("range", b"r"),)
) -> ClassicGroupMember:
    return ClassicGroupMember(
        member_id=member_id,
        group_instance_id=instance_id,
        client_id="c",
        client_host="/h",
        rebalance_timeout_ms=60_000,
        session_timeout_ms=10_000,
        protocol_type="consumer",
        protocols=protocols,
    )


def group_of(*members: ClassicGroupMember, state: ClassicGroupState = EMPTY) -> ClassicGroup:
    group = ClassicGroup("g", state=state)
    for each in members:
        group.add(each)
    return group


@pytest.mark.parametrize("after", ClassicGroupState)
@pytest.mark.parametrize("before", ClassicGroupState)
def test_transitions(before: ClassicGroupState, after: ClassicGroupState) -> None:
    group = ClassicGroup("g", state=before)
    if (before, after) in ALLOWED:
        group.transition_to(after, 7)
        assert (group.previous_state, group.state) == (before, after)
        assert group.current_state_timestamp_ms == 7
    else:
        with pytest.raises(AssertionError):
            group.transition_to(after, 7)
    assert ClassicGroup("g", state=before).can_rebalance() == ((before, PREPARING) in ALLOWED)


@pytest.mark.parametrize(
    ("preferences", "expected"),
    [
        ([["range", "roundrobin"]], "range"),
        ([["range", "roundrobin"], ["roundrobin", "range"], ["roundrobin", "range"]], "roundrobin"),
        ([["range", "roundrobin"], ["blah", "roundrobin"]], "roundrobin"),
        ([["a", "b", "c"], ["c", "b"], ["c", "b"]], "c"),
    ],
)
def test_votes(preferences: list[list[str]], expected: str) -> None:
    members = [
        member(f"m{number}", protocols=tuple((name, b"") for name in names))
        for number, names in enumerate(preferences)
    ]
    group = group_of(*members, state=PREPARING)
    assert group.select_protocol() == expected
    group.init_next_generation(0)
    assert (group.protocol_name, group.generation_id, group.state) == (expected, 1, COMPLETING)


def test_which_protocols_fit() -> None:
    group = ClassicGroup("g")
    assert group.supports_protocols("consumer", ["x"])
    assert not group.supports_protocols("", ["x"])
    assert not group.supports_protocols("consumer", [])
    group = group_of(
        member("a", protocols=(("range", b""), ("sticky", b""))),
        member("b", protocols=(("sticky", b""), ("other", b""))),
        state=PREPARING,
    )
    assert group.supports_protocols("consumer", ["sticky"])
    assert not group.supports_protocols("consumer", ["range", "other"])
    assert not group.supports_protocols("connect", ["sticky"])
    group.remove("b")
    assert group.supports_protocols("consumer", ["range"])
    assert not group.supports_protocols("consumer", ["other"])


def test_an_empty_group_s_generation_has_no_protocol() -> None:
    group = group_of(member(), state=PREPARING)
    group.remove("m")
    group.init_next_generation(0)
    assert (group.state, group.generation_id, group.protocol_name) == (EMPTY, 1, None)
    assert group.leader_id is None


def test_one_who_has_joined_leads() -> None:
    group = ClassicGroup("g", state=PREPARING)
    group.add(member("gone"))
    assert not group.maybe_elect_joined_leader()
    group.add(member("here"), Deferred())
    assert group.maybe_elect_joined_leader()
    assert group.leader_id == "here"
    assert group.maybe_elect_joined_leader()
    group.remove("here")
    assert group.leader_id == "gone"
    assert not group.maybe_elect_joined_leader()


def test_a_static_member_is_replaced_with_what_waits() -> None:
    group = ClassicGroup("g", state=PREPARING)
    answer: Deferred[Any] = Deferred()
    group.add(member("old", instance_id="i"), answer)
    group.replace_static_member("i", "old", "new")
    assert answer.result().error_code == ErrorCode.FENCED_INSTANCE_ID
    assert (list(group.members), group.leader_id) == (["new"], "new")
    assert group.static_members == {"i": "new"}
    assert group.awaiting_join_count == 0
    with pytest.raises(KeyError):
        group.replace_static_member("i", "unknown", "newer")
    with pytest.raises(AssertionError):
        group.add(member("another", instance_id="i"))


def test_pending_members() -> None:
    group = group_of(member("a"), state=PREPARING)
    group.pending_join_members.add("b")
    group.set_awaiting_join(group.members["a"], Deferred())
    assert not group.has_all_members_joined
    group.add(member("b"), Deferred())
    assert group.has_all_members_joined
    assert not group.pending_join_members
    group.pending_sync_members.update({"a", "b"})
    group.remove("b")
    assert group.pending_sync_members == {"a"}
    group.init_next_generation(0)
    assert not group.pending_sync_members


UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
ILLEGAL = ErrorCode.ILLEGAL_GENERATION
FENCED = ErrorCode.FENCED_INSTANCE_ID


@pytest.mark.parametrize("transactional", [False, True])
@pytest.mark.parametrize(
    ("member_id", "instance_id", "generation_id", "expected"),
    [
        ("d", None, 1, None),
        ("s", "i", 1, None),
        ("s", "i", 2, ILLEGAL),
        ("d", None, 0, ILLEGAL),
        ("x", None, 1, UNKNOWN),
        ("x", "i", 1, FENCED),
        ("s", "j", 1, UNKNOWN),
    ],
)
def test_who_may_commit(
    member_id: str,
    instance_id: str | None,
    generation_id: int,
    expected: ErrorCode | None,
    transactional: bool,
) -> None:
    group = group_of(member("d"), member("s", instance_id="i"), state=PREPARING)
    group.init_next_generation(0)
    group.transition_to(STABLE, 0)

    def commit() -> None:
        group.validate_offset_commit(
            member_id, instance_id, generation_id, transactional=transactional
        )

    if expected is None:
        commit()
    else:
        with pytest.raises(KafkaError) as caught:
            commit()
        assert caught.value.error_code is expected


@pytest.mark.parametrize("state", ClassicGroupState)
def test_what_may_be_deleted(state: ClassicGroupState) -> None:
    deletable = {EMPTY: None, DEAD: ErrorCode.GROUP_ID_NOT_FOUND}
    group = ClassicGroup("g", state=state)
    expected = deletable.get(state, ErrorCode.NON_EMPTY_GROUP)
    if expected is None:
        group.validate_delete()
    else:
        with pytest.raises(KafkaError) as caught:
            group.validate_delete()
        assert caught.value.error_code is expected
