"""A member of a group of the classic protocol: it joins, sends heartbeats and leaves."""

from collections.abc import Sequence
from typing import Any, Final

import anyio

from kbroker.client.assignors import ASSIGNORS
from kbroker.client.client import KafkaClient, check
from kbroker.client.consumer_protocol import (
    Assignment,
    read_assignment,
    read_subscribed_topics,
    write_assignment,
    write_subscription,
)
from kbroker.client.group_offsets import MemberIdentity
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.join_group_request import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
)
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest
from kbroker.protocol.messages.leave_group_request import (
    MemberIdentity as LeavingMember,
)
from kbroker.protocol.messages.sync_group_request import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)

SESSION_TIMEOUT_MS: Final = 45_000
REBALANCE_TIMEOUT_MS: Final = 60_000
HEARTBEAT_INTERVAL_S: Final = 3.0
METADATA_MAX_AGE_S: Final = 300.0
_PROTOCOL_TYPE: Final = "consumer"
_FIRST_LEAVE_OF_MANY: Final = 3
_JOIN_AGAIN: Final = frozenset({ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION})
_BEGIN_ANEW: Final = frozenset({ErrorCode.UNKNOWN_MEMBER_ID})


class ClassicMember:
    """One member; its calls must not overlap. It votes for range, then roundrobin."""

    def __init__(
        self,
        client: KafkaClient,
        group_id: str,
        topics: Sequence[str],
        *,
        instance_id: str | None = None,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        rebalance_timeout_ms: int = REBALANCE_TIMEOUT_MS,
        heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S,
    ) -> None:
        self.heartbeat_interval_s = heartbeat_interval_s
        self.generation_id = -1
        self.member_id = ""
        self._client = client
        self._group_id = group_id
        self._topics = list(topics)
        self._instance_id = instance_id
        self._session_timeout_ms = session_timeout_ms
        self._rebalance_timeout_ms = rebalance_timeout_ms
        self._assigned_by: dict[str, int] | None = None  # partitions of each topic, when it leads
        self._look_again_at = 0.0

    @property
    def identity(self) -> MemberIdentity:
        """Who commits."""
        return MemberIdentity(self.member_id, self.generation_id, self._instance_id)

    async def join(self) -> Assignment:
        """Take part in a rebalance, however often it begins again; what is owned then.

        Raises KafkaError, for instance FENCED_INSTANCE_ID, INCONSISTENT_GROUP_PROTOCOL.
        """
        return await self._client.retrying(
            self._join, timeout_s=self._client.timeout_s + self._rebalance_timeout_ms / 1000
        )

    async def _join(self) -> Assignment:
        while True:
            joined = await self._call(ApiKey.JOIN_GROUP, self._join_request())
            error = ErrorCode.for_code(joined.error_code)
            if error == ErrorCode.MEMBER_ID_REQUIRED:  # KIP-394
                self.member_id = joined.member_id
                continue
            if error in _BEGIN_ANEW:
                self.member_id = ""
                continue
            check(error, f"group {self._group_id}")
            self.member_id, self.generation_id = joined.member_id, joined.generation_id
            synced = await self._call(ApiKey.SYNC_GROUP, await self._sync_request(joined))
            error = ErrorCode.for_code(synced.error_code)
            if error in _JOIN_AGAIN:
                continue
            if error in _BEGIN_ANEW:
                self.member_id = ""
                continue
            check(error, f"group {self._group_id}")
            return read_assignment(synced.assignment)

    def _join_request(self) -> JoinGroupRequest:
        subscription = write_subscription(self._topics)
        return JoinGroupRequest(
            self._group_id,
            session_timeout_ms=self._session_timeout_ms,
            rebalance_timeout_ms=self._rebalance_timeout_ms,
            member_id=self.member_id,
            group_instance_id=self._instance_id,
            protocol_type=_PROTOCOL_TYPE,
            protocols=[JoinGroupRequestProtocol(name, subscription) for name in ASSIGNORS],
        )

    async def _sync_request(self, joined: Any) -> SyncGroupRequest:
        """With everybody's assignments when this member leads and they may change (KIP-814)."""
        request = SyncGroupRequest(
            self._group_id,
            self.generation_id,
            self.member_id,
            self._instance_id,
            protocol_type=_PROTOCOL_TYPE,
            protocol_name=joined.protocol_name,
        )
        self._assigned_by = None
        if joined.leader != self.member_id or joined.skip_assignment:
            return request
        members = {each.member_id: read_subscribed_topics(each.metadata) for each in joined.members}
        topics = sorted({topic for subscribed in members.values() for topic in subscribed})
        counts = self._assigned_by = await self._count_partitions(topics)
        assigned = ASSIGNORS[joined.protocol_name](members, counts)
        request.assignments = [
            SyncGroupRequestAssignment(member, write_assignment(assignment))
            for member, assignment in assigned.items()
        ]
        return request

    async def _count_partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """Topic -> partitions, 0 of a topic that the broker does not know, or not yet."""
        found = (await self._client.metadata(topics)).topics
        counts = dict.fromkeys(topics, 0)
        counts.update((topic.name or "", len(topic.partitions)) for topic in found)
        age = METADATA_MAX_AGE_S if all(counts.values()) else self.heartbeat_interval_s
        self._look_again_at = anyio.current_time() + age
        return counts

    async def _must_assign_anew(self) -> bool:
        """Whether this member leads and there are other partitions than it has assigned.

        Nobody else would ever notice. It looks soon where a topic was missing: a broker hears of
        a new one a moment after the controller has made it.
        """
        assigned_by = self._assigned_by
        if assigned_by is None or anyio.current_time() < self._look_again_at:
            return False
        return await self._count_partitions(list(assigned_by)) != assigned_by

    async def heartbeat(self) -> bool:
        """Whether the assignment still stands; if not, ``join`` again."""

        async def attempt() -> bool:
            request = HeartbeatRequest(
                self._group_id, self.generation_id, self.member_id, self._instance_id
            )
            response = await self._call(ApiKey.HEARTBEAT, request)
            error = ErrorCode.for_code(response.error_code)
            if error in _BEGIN_ANEW:
                self.member_id = ""
            if error in _BEGIN_ANEW or error in _JOIN_AGAIN:
                return False
            check(error, f"group {self._group_id}")
            return True

        stands = await self._client.retrying(attempt, timeout_s=self._session_timeout_ms / 1000)
        return stands and not await self._must_assign_anew()

    async def leave(self) -> None:
        """Let the others have the partitions at once. A static member just falls silent."""
        if not self.member_id or self._instance_id is not None:
            return
        connection = await self._client.group_connection(self._group_id)
        if connection.version(ApiKey.LEAVE_GROUP) >= _FIRST_LEAVE_OF_MANY:
            leaving = LeavingMember(self.member_id, reason="the consumer was closed")
            request = LeaveGroupRequest(self._group_id, members=[leaving])
        else:
            request = LeaveGroupRequest(self._group_id, self.member_id)
        self.member_id = ""
        check((await connection.call(ApiKey.LEAVE_GROUP, request)).error_code)

    async def _call(self, api_key: ApiKey, request: Any) -> Any:
        connection = await self._client.group_connection(self._group_id)
        response = await connection.call(api_key, request)
        error = ErrorCode.for_code(response.error_code)
        if error.retriable:  # another coordinator, or one that is still loading
            check(error, f"group {self._group_id}")
        return response
