"""The state of one group of the classic protocol: members, generation, votes.

Nothing here writes records, starts timers or knows requests; ``classic_groups`` does.
"""

from collections.abc import Iterable, Mapping
from enum import Enum

from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.hash_order import java_hash_order
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.join_group_response import JoinGroupResponse
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse

CONSUMER_PROTOCOL_TYPE = "consumer"

Protocols = tuple[tuple[str, bytes], ...]
"""(name, metadata) in the member's order of preference."""


class ClassicGroupState(Enum):
    """States under the names that ListGroups and DescribeGroups show."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


_VALID_PREVIOUS: Mapping[ClassicGroupState, frozenset[ClassicGroupState]] = {
    ClassicGroupState.EMPTY: frozenset({ClassicGroupState.PREPARING_REBALANCE}),
    ClassicGroupState.PREPARING_REBALANCE: frozenset(
        {
            ClassicGroupState.STABLE,
            ClassicGroupState.COMPLETING_REBALANCE,
            ClassicGroupState.EMPTY,
        }
    ),
    ClassicGroupState.COMPLETING_REBALANCE: frozenset({ClassicGroupState.PREPARING_REBALANCE}),
    ClassicGroupState.STABLE: frozenset({ClassicGroupState.COMPLETING_REBALANCE}),
    ClassicGroupState.DEAD: frozenset(ClassicGroupState),
}


class ClassicGroupMember:
    """One member. Timeouts in milliseconds; an assignment of no bytes is none."""

    __slots__ = (
        "assignment",
        "awaiting_join",
        "awaiting_sync",
        "client_host",
        "client_id",
        "group_instance_id",
        "is_new",
        "member_id",
        "protocol_type",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
    )

    def __init__(
        self,
        *,
        member_id: str,
        group_instance_id: str | None,
        client_id: str,
        client_host: str,
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
        protocol_type: str,
        protocols: Protocols,
        assignment: bytes = b"",
    ) -> None:
        self.member_id = member_id
        self.group_instance_id = group_instance_id
        self.client_id = client_id
        self.client_host = client_host
        self.rebalance_timeout_ms = rebalance_timeout_ms
        self.session_timeout_ms = session_timeout_ms
        self.protocol_type = protocol_type
        self.protocols = protocols
        self.assignment = assignment
        self.awaiting_join: Deferred[JoinGroupResponse] | None = None
        self.awaiting_sync: Deferred[SyncGroupResponse] | None = None
        self.is_new = False

    @property
    def is_static(self) -> bool:
        """KIP-345: the member has a group instance id."""
        return self.group_instance_id is not None

    @property
    def has_satisfied_heartbeat(self) -> bool:
        """Whether a passed session timeout is forgiven because a request of the member waits.

        A new member's is not: it may have gone without ever knowing its member id.
        """
        if self.is_new:
            return False
        return self.awaiting_join is not None or self.awaiting_sync is not None

    def protocol_names(self) -> frozenset[str]:
        """The protocols the member can do."""
        return frozenset(name for name, _ in self.protocols)

    def metadata(self, protocol_name: str) -> bytes:
        """What the member sent for a protocol it supports."""
        for name, metadata in self.protocols:
            if name == protocol_name:
                return metadata
        raise KeyError(f"member {self.member_id} does not support protocol {protocol_name}")

    def vote(self, candidates: frozenset[str]) -> str:
        """The first of its protocols that everybody can do."""
        for name, _ in self.protocols:
            if name in candidates:
                return name
        raise ValueError(f"member {self.member_id} supports none of {sorted(candidates)}")


class ClassicGroup:
    """Members by id in the order they came; a leader among them; one generation after another."""

    __slots__ = (
        "_awaiting_join_count",
        "_supporters",
        "current_state_timestamp_ms",
        "generation_id",
        "group_id",
        "leader_id",
        "members",
        "new_member_added",
        "pending_join_members",
        "pending_sync_members",
        "previous_state",
        "protocol_name",
        "protocol_type",
        "state",
        "static_members",
        "subscribed_topics",
    )

    def __init__(
        self,
        group_id: str,
        *,
        state: ClassicGroupState = ClassicGroupState.EMPTY,
        generation_id: int = 0,
        protocol_type: str | None = None,
        protocol_name: str | None = None,
        leader_id: str | None = None,
        current_state_timestamp_ms: int | None = None,
    ) -> None:
        self.group_id = group_id
        self.state = state
        self.previous_state = ClassicGroupState.DEAD
        self.generation_id = generation_id
        self.protocol_type = protocol_type
        self.protocol_name = protocol_name
        self.leader_id = leader_id
        self.current_state_timestamp_ms = current_state_timestamp_ms
        self.members: dict[str, ClassicGroupMember] = {}
        self.static_members: dict[str, str] = {}
        self.pending_join_members: set[str] = set()
        self.pending_sync_members: set[str] = set()
        self.new_member_added = False
        self.subscribed_topics: frozenset[str] | None = None
        """Topics of all members; None when the group is none of consumers or cannot be read."""
        self._supporters: dict[str, int] = {}
        self._awaiting_join_count = 0

    # -- what it is

    def is_in(self, *states: ClassicGroupState) -> bool:
        """Whether the group is in one of the states."""
        return self.state in states

    @property
    def is_empty(self) -> bool:
        """Nobody is in the group and nobody is joining."""
        return self.state is ClassicGroupState.EMPTY

    @property
    def is_simple(self) -> bool:
        """The group only stores offsets; nobody ever joined it."""
        return self.protocol_type is None and self.is_empty and not self.pending_join_members

    @property
    def uses_consumer_protocol(self) -> bool:
        """Members are consumers, whose metadata the coordinator can read."""
        return self.protocol_type == CONSUMER_PROTOCOL_TYPE

    def is_subscribed_to(self, topic: str) -> bool:
        """Whether a consumer of the group may depend on the topic's offsets."""
        if self.subscribed_topics is not None:
            return topic in self.subscribed_topics
        return self.uses_consumer_protocol

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest of the members'."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    @property
    def awaiting_join_count(self) -> int:
        """Members whose JoinGroup waits for an answer."""
        return self._awaiting_join_count

    @property
    def has_all_members_joined(self) -> bool:
        """Everybody known has asked to join, and nobody was told to come back with an id."""
        return len(self.members) == self._awaiting_join_count and not self.pending_join_members

    def can_rebalance(self) -> bool:
        """Whether a rebalance may begin now."""
        return self.state in _VALID_PREVIOUS[ClassicGroupState.PREPARING_REBALANCE]

    def transition_to(self, state: ClassicGroupState, now_ms: int) -> None:
        """Change the state; an impossible change is a bug."""
        valid = _VALID_PREVIOUS[state]
        assert self.state in valid, f"group {self.group_id}: {self.state} -> {state}"
        self.previous_state = self.state
        self.state = state
        self.current_state_timestamp_ms = now_ms

    # -- members

    def add(
        self, member: ClassicGroupMember, awaiting_join: Deferred[JoinGroupResponse] | None = None
    ) -> None:
        """Add a member that has joined; the first becomes leader and sets the protocol type."""
        if member.group_instance_id is not None:
            assert member.group_instance_id not in self.static_members
            self.static_members[member.group_instance_id] = member.member_id
        if not self.members:
            self.protocol_type = member.protocol_type
        assert self.protocol_type == member.protocol_type
        if self.leader_id is None:
            self.leader_id = member.member_id
        self.members[member.member_id] = member
        self._count(member, 1)
        self.set_awaiting_join(member, awaiting_join)
        self.pending_join_members.discard(member.member_id)

    def remove(self, member_id: str) -> None:
        """Forget a member or a pending one; somebody else leads then."""
        member = self.members.pop(member_id, None)
        if member is not None:
            self._count(member, -1)
            if member.awaiting_join is not None:
                self._awaiting_join_count -= 1
            if member.group_instance_id is not None:
                self.static_members.pop(member.group_instance_id, None)
        if self.leader_id == member_id:
            self.leader_id = next(iter(self.members), None)
        self.pending_join_members.discard(member_id)
        self.pending_sync_members.discard(member_id)

    def replace_static_member(
        self, group_instance_id: str, old_member_id: str, new_member_id: str
    ) -> ClassicGroupMember:
        """Give a static member a new member id; whoever still uses the old one is fenced."""
        old = self.members.pop(old_member_id)
        self.complete_join(old, join_error(ErrorCode.FENCED_INSTANCE_ID, old_member_id))
        self.complete_sync(old, SyncGroupResponse(error_code=ErrorCode.FENCED_INSTANCE_ID))
        new = ClassicGroupMember(
            member_id=new_member_id,
            group_instance_id=old.group_instance_id,
            client_id=old.client_id,
            client_host=old.client_host,
            rebalance_timeout_ms=old.rebalance_timeout_ms,
            session_timeout_ms=old.session_timeout_ms,
            protocol_type=old.protocol_type,
            protocols=old.protocols,
            assignment=old.assignment,
        )
        self.members[new_member_id] = new
        if self.leader_id == old_member_id:
            self.leader_id = new_member_id
        self.static_members[group_instance_id] = new_member_id
        return new

    def update_member(
        self,
        member: ClassicGroupMember,
        protocols: Protocols,
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
        awaiting_join: Deferred[JoinGroupResponse] | None,
    ) -> None:
        """What a member says when it joins again."""
        self._count(member, -1)
        member.protocols = protocols
        self._count(member, 1)
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms
        self.set_awaiting_join(member, awaiting_join)

    def validate_member(self, member_id: str, group_instance_id: str | None) -> None:
        """KafkaError: FENCED_INSTANCE_ID for a replaced static member, UNKNOWN_MEMBER_ID."""
        if group_instance_id is not None:
            known = self.static_members.get(group_instance_id)
            if known is None:
                raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
            if known != member_id:
                raise KafkaError(ErrorCode.FENCED_INSTANCE_ID)
        if member_id not in self.members:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)

    def not_yet_rejoined(self) -> list[ClassicGroupMember]:
        """Members that have not asked to join the next generation."""
        return [member for member in self.members.values() if member.awaiting_join is None]

    def maybe_elect_joined_leader(self) -> bool:
        """Make sure the leader is one who has joined; False when nobody has."""
        if self.leader_id is None:
            return False
        if self.members[self.leader_id].awaiting_join is not None:
            return True
        for member in self.members.values():
            if member.awaiting_join is not None:
                self.leader_id = member.member_id
                return True
        return False

    # -- protocols

    def _count(self, member: ClassicGroupMember, change: int) -> None:
        for name in member.protocol_names():
            count = self._supporters.get(name, 0) + change
            if count:
                self._supporters[name] = count
            else:
                self._supporters.pop(name, None)

    def supports_protocols(self, protocol_type: str, names: Iterable[str]) -> bool:
        """Whether a member that can do ``names`` fits to the others."""
        if self.is_empty:
            return bool(protocol_type) and any(True for _ in names)
        size = len(self.members)
        return self.protocol_type == protocol_type and any(
            self._supporters.get(name, 0) == size for name in names
        )

    def select_protocol(self) -> str:
        """The protocol everybody can do that gets most votes.

        Of several with as many votes it is the one that comes first in Kafka's hash table.
        """
        size = len(self.members)
        assert size, "an empty group selects no protocol"
        candidates = frozenset(name for name, count in self._supporters.items() if count == size)
        votes: dict[str, int] = {}
        for member in self.members.values():
            name = member.vote(candidates)
            votes[name] = votes.get(name, 0) + 1
        most = max(votes.values())
        return next(name for name in java_hash_order(votes) if votes[name] == most)

    # -- generations

    def init_next_generation(self, now_ms: int) -> None:
        """Begin the next generation with the members that there are."""
        self.generation_id += 1
        self.pending_sync_members.clear()
        if self.members:
            self.protocol_name = self.select_protocol()
            self.transition_to(ClassicGroupState.COMPLETING_REBALANCE, now_ms)
        else:
            self.protocol_name = None
            self.subscribed_topics = frozenset() if self.uses_consumer_protocol else None
            self.transition_to(ClassicGroupState.EMPTY, now_ms)

    # -- waiting requests

    def set_awaiting_join(
        self, member: ClassicGroupMember, deferred: Deferred[JoinGroupResponse] | None
    ) -> None:
        """Let a JoinGroup wait, in place of an earlier one, which is told to try again."""
        earlier = member.awaiting_join
        if earlier is None and deferred is not None:
            self._awaiting_join_count += 1
        elif earlier is not None and deferred is None:
            self._awaiting_join_count -= 1
        member.awaiting_join = deferred
        if earlier is not None and earlier is not deferred:
            earlier.complete(join_error(ErrorCode.REBALANCE_IN_PROGRESS, member.member_id))

    def set_awaiting_sync(
        self, member: ClassicGroupMember, deferred: Deferred[SyncGroupResponse]
    ) -> None:
        """Let a SyncGroup wait, in place of an earlier one, which is told to try again."""
        earlier, member.awaiting_sync = member.awaiting_sync, deferred
        if earlier is not None and earlier is not deferred:
            earlier.complete(SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS))

    def complete_join(self, member: ClassicGroupMember, response: JoinGroupResponse) -> bool:
        """Answer the JoinGroup that waits; False when none does."""
        deferred = member.awaiting_join
        if deferred is None:
            return False
        member.awaiting_join = None
        self._awaiting_join_count -= 1
        deferred.complete(response)
        return True

    def complete_sync(self, member: ClassicGroupMember, response: SyncGroupResponse) -> bool:
        """Answer the SyncGroup that waits; False when none does."""
        deferred = member.awaiting_sync
        if deferred is None:
            return False
        member.awaiting_sync = None
        deferred.complete(response)
        return True

    # -- checks of other requests

    def validate_offset_commit(
        self,
        member_id: str,
        group_instance_id: str | None,
        generation_id: int,
        *,
        transactional: bool,
    ) -> None:
        """KafkaError as OffsetCommit (or TxnOffsetCommit) answers it for every partition."""
        if self.state is ClassicGroupState.DEAD:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        if generation_id < 0 and self.is_empty:
            return  # an admin client or a consumer that assigns its partitions itself
        if generation_id >= 0 or member_id or group_instance_id is not None:
            self.validate_member(member_id, group_instance_id)
            if generation_id != self.generation_id:
                raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
        elif not transactional and not self.is_empty:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        if not transactional and self.state is ClassicGroupState.COMPLETING_REBALANCE:
            raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS)

    def validate_offset_delete(self) -> None:
        """KafkaError: NON_EMPTY_GROUP while members of another type than consumer are there."""
        if self.state is ClassicGroupState.DEAD:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND)
        if not self.is_empty and not self.uses_consumer_protocol:
            raise KafkaError(ErrorCode.NON_EMPTY_GROUP)

    def validate_delete(self) -> None:
        """KafkaError: NON_EMPTY_GROUP while members are there."""
        if self.state is ClassicGroupState.DEAD:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND)
        if not self.is_empty:
            raise KafkaError(ErrorCode.NON_EMPTY_GROUP)

    def expiry_base_ms(self, commit_timestamp_ms: int) -> int | None:
        """When the retention of an offset began, or None while offsets do not expire."""
        if self.protocol_type is None:
            return commit_timestamp_ms  # a simple group: since the commit
        if self.is_empty:
            since = self.current_state_timestamp_ms
            return since if since is not None else commit_timestamp_ms
        if (
            self.uses_consumer_protocol
            and self.subscribed_topics is not None
            and self.state is ClassicGroupState.STABLE
        ):
            return commit_timestamp_ms
        return None


def join_error(error: ErrorCode, member_id: str) -> JoinGroupResponse:
    """A refused JoinGroup: no generation, no leader, no protocol."""
    return JoinGroupResponse(
        error_code=error,
        generation_id=-1,
        protocol_type=None,
        protocol_name=None,
        leader="",
        member_id=member_id,
        members=[],
    )
