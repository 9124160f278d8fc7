"""The state of a group of KIP-848 as its records add up, in whatever order compaction left them."""

from dataclasses import replace
from typing import Any

import pytest

from kbroker.coordinator.group.consumer_group import ConsumerGroup, ResolvedRegex
from kbroker.coordinator.group.consumer_member import (
    ClassicMetadata,
    ConsumerGroupMember,
    MemberState,
)
from kbroker.coordinator.group.consumer_records import (
    current_record,
    group_epoch_record,
    group_tombstones,
    member_record,
    member_tombstones,
    regex_record,
    regex_tombstone,
    target_epoch_record,
    target_record,
)
from kbroker.coordinator.group.consumer_replay import ConsumerReplay
from kbroker.coordinator.group.group_kinds import Group
from kbroker.coordinator.result import CoordinatorRecord
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

T, U = b"t" * 16, b"u" * 16
G = "g"


def member(member_id: str = "m", **fields: Any) -> ConsumerGroupMember:
    return ConsumerGroupMember(member_id=member_id, **{"member_epoch": 5, **fields})


def group_of(*members: ConsumerGroupMember, epoch: int = 5) -> ConsumerGroup:
    group = ConsumerGroup(G)
    group.group_epoch = group.assignment_epoch = epoch
    for each in members:
        group.put(each)
    return group


class TestOwners:
    """Which partition is whose must follow every order of records."""

    def test_they_follow_a_member(self) -> None:
        group = group_of(member(assigned={T: {1: 5}}, pending_revocation={U: {2: 4}}))
        assert group.is_owned(T, 1)
        assert group.is_owned(U, 2)
        group.put(member(assigned={T: {3: 6}}))
        assert not group.is_owned(T, 1)
        assert not group.is_owned(U, 2)
        assert group.is_owned(T, 3)
        group.remove("m")
        assert not group.is_owned(T, 3)

    def test_the_next_owner_may_be_seen_before_the_last_one_lets_go(self) -> None:
        group = group_of(member("a", assigned={T: {1: 5}}))
        group.put(member("b", assigned={T: {1: 6}}))
        group.put(member("a", assigned={}))
        assert group.is_owned(T, 1)
        group.remove("a")
        assert group.is_owned(T, 1)
        group.remove("b")
        assert not group.is_owned(T, 1)


class TestState:
    @pytest.mark.parametrize(
        ("members", "group_epoch", "assignment_epoch", "expected"),
        [
            ([], 5, 5, "Empty"),
            ([member()], 6, 5, "Assigning"),
            ([member(member_epoch=4)], 5, 5, "Reconciling"),
            ([member(state=MemberState.UNREVOKED_PARTITIONS)], 5, 5, "Reconciling"),
            ([member(state=MemberState.UNRELEASED_PARTITIONS)], 5, 5, "Reconciling"),
            ([member(), member("n", member_epoch=-2)], 5, 5, "Reconciling"),
            ([member(), member("n")], 5, 5, "Stable"),
        ],
    )
    def test_it(
        self,
        members: list[ConsumerGroupMember],
        group_epoch: int,
        assignment_epoch: int,
        expected: str,
    ) -> None:
        group = group_of(*members)
        group.group_epoch, group.assignment_epoch = group_epoch, assignment_epoch
        assert group.state_name == expected

    def test_static_members(self) -> None:
        group = group_of(member("old", instance_id="i"))
        assert group.static_member(None) is None
        assert group.static_member("j") is None
        group.put(member("new", instance_id="i"))
        group.remove("old")
        found = group.static_member("i")
        assert found is not None
        assert found.member_id == "new"
        group.remove("new")
        assert group.static_member("i") is None

    def test_subscriptions_are_counted(self) -> None:
        group = group_of(
            member("a", subscribed_topic_names=frozenset({"t", "u"})),
            member("b", subscribed_topic_names=frozenset({"u"}), subscribed_topic_regex="v.*"),
        )
        group.resolved["v.*"] = ResolvedRegex(frozenset({"v1"}))
        assert all(group.is_subscribed_to(name) for name in ("t", "u", "v1"))
        group.remove("b")
        assert group.is_subscribed_to("u")
        assert not group.is_subscribed_to("v1")
        group.put(member("a", subscribed_topic_names=frozenset({"w"})))
        assert not group.is_subscribed_to("u")
        assert group.is_subscribed_to("w")


STALE, ILLEGAL = ErrorCode.STALE_MEMBER_EPOCH, ErrorCode.ILLEGAL_GENERATION
UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
CLASSIC = member("c", classic=ClassicMetadata(10_000, ()))


@pytest.mark.parametrize(
    ("member_id", "epoch", "version", "expected"),
    [
        ("m", 5, 9, None),
        ("m", 6, 9, STALE),
        ("m", 5, 8, ErrorCode.UNSUPPORTED_VERSION),
        ("x", 5, 9, UNKNOWN),
        ("", -1, 9, UNKNOWN),
        ("c", 5, 8, None),
        ("c", 6, 8, ILLEGAL),
        ("c", 6, 9, ILLEGAL),
    ],
)
def test_who_may_commit(
    member_id: str, epoch: int, version: int, expected: ErrorCode | None
) -> None:
    group = group_of(member(), CLASSIC)
    if expected is None:
        assert group.check_offset_commit(member_id, epoch, version) is None
    else:
        with pytest.raises(KafkaError) as caught:
            group.check_offset_commit(member_id, epoch, version)
        assert caught.value.error_code is expected


@pytest.mark.parametrize(
    ("topic_id", "partition", "epoch", "expected"),
    [
        (T, 1, 4, ErrorCode.NONE),
        (T, 1, 3, ErrorCode.NONE),
        (T, 1, 2, STALE),
        (T, 2, 4, STALE),
        (T, 3, 4, ErrorCode.NONE),
        (T, 3, 3, STALE),
        (T, 4, 4, STALE),
        (U, 1, 4, STALE),
    ],
)
def test_an_older_epoch_commits_what_was_assigned_by_then_and_is_not_given_up(
    topic_id: bytes, partition: int, epoch: int, expected: ErrorCode
) -> None:
    held = member(assigned={T: {1: 3, 2: 5}}, pending_revocation={T: {3: 4}})
    classic = replace(held, member_id="c", classic=CLASSIC.classic)
    for each, refused in ((held, STALE), (classic, ILLEGAL)):
        group = group_of(each)
        wanted = expected if expected is ErrorCode.NONE else refused
        check = group.check_offset_commit(each.member_id, epoch, 9)
        assert check is not None
        assert check(topic_id, partition) is wanted
        in_transaction = group.check_transactional_commit(each.member_id, None, epoch)
        assert in_transaction is not None
        ours = ErrorCode.NONE if expected is ErrorCode.NONE else ILLEGAL
        assert in_transaction(topic_id, partition) is ours


@pytest.mark.parametrize(
    ("member_id", "instance_id", "epoch", "expected"),
    [
        ("", None, -1, None),
        ("", "i", -1, UNKNOWN),
        ("", None, -2, UNKNOWN),
        ("x", None, -1, UNKNOWN),
        ("m", None, 5, None),
        ("m", None, 6, ILLEGAL),
        ("c", None, 6, ILLEGAL),
    ],
)
def test_who_may_commit_in_a_transaction(
    member_id: str, instance_id: str | None, epoch: int, expected: ErrorCode | None
) -> None:
    group = group_of(member(), CLASSIC)
    if expected is None:
        assert group.check_transactional_commit(member_id, instance_id, epoch) is None
    else:
        with pytest.raises(KafkaError) as caught:
            group.check_transactional_commit(member_id, instance_id, epoch)
        assert caught.value.error_code is expected
    assert group_of().check_transactional_commit(member_id, instance_id, -1) is None


@pytest.mark.parametrize(
    ("member_id", "epoch", "expected"),
    [
        (None, -1, None),
        (None, 5, ErrorCode.UNKNOWN_SERVER_ERROR),
        ("m", 5, None),
        ("m", 4, STALE),
        ("m", 6, STALE),
        ("c", 4, ILLEGAL),
        ("x", 5, UNKNOWN),
        ("", -1, UNKNOWN),
    ],
)
def test_who_may_fetch(member_id: str | None, epoch: int, expected: ErrorCode | None) -> None:
    group = group_of(member(), CLASSIC)
    if expected is None:
        group.validate_offset_fetch(member_id, epoch)
    else:
        with pytest.raises(KafkaError) as caught:
            group.validate_offset_fetch(member_id, epoch)
        assert caught.value.error_code is expected


class TestReplay:
    def replayed(self, *records: CoordinatorRecord) -> tuple[dict[str, Group], list[str]]:
        groups: dict[str, Group] = {}
        gone: list[str] = []
        replay = ConsumerReplay(groups, lambda _, member_id: gone.append(member_id)).by_key()
        for record in records:
            replay[type(record.key)](record.key, record.value)
        return groups, gone

    RECORDS = (
        group_epoch_record(G, 7, 99),
        member_record(G, member(instance_id="i", subscribed_topic_names=frozenset({"t"}))),
        target_record(G, "m", {T: frozenset({1, 2})}),
        target_epoch_record(G, 7, 1_000),
        current_record(G, member(member_epoch=7, assigned={T: {1: 7}})),
        regex_record(G, "t.*", ResolvedRegex(frozenset({"t"}), 3, 4)),
    )

    @pytest.mark.parametrize("first", range(len(RECORDS)))
    def test_any_record_may_come_first(self, first: int) -> None:
        order = (*self.RECORDS[first:], *self.RECORDS[:first])
        groups, _ = self.replayed(*order)
        expected, _ = self.replayed(*self.RECORDS)
        mine, theirs = groups[G], expected[G]
        assert isinstance(mine, ConsumerGroup)
        assert isinstance(theirs, ConsumerGroup)
        for name in ("members", "target", "resolved", "group_epoch", "assignment_epoch"):
            assert getattr(mine, name) == getattr(theirs, name), name
        assert mine.static_members == {"i": "m"}
        assert mine.is_owned(T, 1)

    TOMBSTONES = (
        *member_tombstones(G, "m"),
        regex_tombstone(G, "t.*"),
        *group_tombstones(group_of(member())),
    )

    @pytest.mark.parametrize("number", range(len(TOMBSTONES)))
    def test_a_tombstone_of_what_is_not_there_does_nothing(self, number: int) -> None:
        groups, _ = self.replayed(self.TOMBSTONES[number])
        assert groups == {}

    def test_tombstones_take_everything_away(self) -> None:
        groups, gone = self.replayed(*self.RECORDS, *self.TOMBSTONES)
        assert groups == {}
        assert "m" in gone

    def test_a_member_s_tombstones_leave_the_group(self) -> None:
        groups, gone = self.replayed(*self.RECORDS, *member_tombstones(G, "m"))
        group = groups[G]
        assert isinstance(group, ConsumerGroup)
        assert (group.members, group.target, gone) == ({}, {}, ["m"])
        assert not group.is_owned(T, 1)

    def test_a_tombstone_of_the_assignment_keeps_the_member(self) -> None:
        tombstone = current_record(G, member())._replace(value=None)
        groups, _ = self.replayed(*self.RECORDS, tombstone)
        group = groups[G]
        assert isinstance(group, ConsumerGroup)
        assert group.members["m"].assigned == {}
        assert group.members["m"].member_epoch == -1
        assert not group.is_owned(T, 1)
