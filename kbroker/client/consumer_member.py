"""A member of a group of the consumer protocol: heartbeats are all it sends (KIP-848)."""

from collections.abc import Sequence
from typing import Any, Final

from kbroker.client.client import KafkaClient, check
from kbroker.client.consumer_protocol import Assignment
from kbroker.client.group_offsets import MemberIdentity
from kbroker.common.entropy import Entropy, SystemEntropy
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
    TopicPartitions,
)

REBALANCE_TIMEOUT_MS: Final = 60_000
_FIRST_INTERVAL_S: Final = 5.0
_LONGEST_WITHOUT_PARTITIONS_S: Final = 1.0
_JOIN_EPOCH: Final = 0
_LEAVE_EPOCH: Final = -1
_LEAVE_FOR_NOW_EPOCH: Final = -2
_BEGIN_ANEW: Final = frozenset({ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_MEMBER_EPOCH})


class ConsumerMember:
    """One member; its calls must not overlap. The broker assigns and says how often to beat."""

    def __init__(
        self,
        client: KafkaClient,
        group_id: str,
        topics: Sequence[str],
        *,
        instance_id: str | None = None,
        rebalance_timeout_ms: int = REBALANCE_TIMEOUT_MS,
        heartbeat_interval_s: float | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        """``heartbeat_interval_s``: by default as long as the broker says."""
        self._own_interval_s = heartbeat_interval_s
        self._told_interval_s = _FIRST_INTERVAL_S
        self.member_epoch = _JOIN_EPOCH
        self.member_id = (entropy or SystemEntropy()).uuid_text()
        self._client = client
        self._group_id = group_id
        self._topics = sorted(topics)
        self._instance_id = instance_id
        self._rebalance_timeout_ms = rebalance_timeout_ms
        self._owned: dict[bytes, list[int]] = {}
        self._assigned: dict[bytes, list[int]] = {}
        self._names: dict[bytes, str] = {}

    @property
    def heartbeat_interval_s(self) -> float:
        """How long to wait until the next; while nothing is owned not for long.

        A broker that gathers changes for a while before it assigns answers a join with nothing.
        """
        interval_s = self._own_interval_s or self._told_interval_s
        return interval_s if self._owned else min(interval_s, _LONGEST_WITHOUT_PARTITIONS_S)

    @property
    def identity(self) -> MemberIdentity:
        """Who commits."""
        return MemberIdentity(self.member_id, self.member_epoch, self._instance_id)

    async def join(self) -> Assignment:
        """Join, or take over what the last heartbeat assigned; what is owned then.

        What is no longer assigned counts as given up by this call: stop reading it before.
        """
        if self.member_epoch == _JOIN_EPOCH:
            await self._beat(full=True)
        while self._owned != self._assigned:
            self._owned = self._assigned
            await self._beat(full=True)
        return await self._named(self._owned)

    async def heartbeat(self) -> bool:
        """Whether the assignment still stands; if not, ``join`` again."""
        await self._beat(full=False)
        return self.member_epoch != _JOIN_EPOCH and self._owned == self._assigned

    async def leave(self) -> None:
        """Let the others have the partitions at once; a static member says it will come back."""
        if self.member_epoch != _JOIN_EPOCH:
            static = self._instance_id is not None
            self.member_epoch = _LEAVE_FOR_NOW_EPOCH if static else _LEAVE_EPOCH
            await self._send(self._request(full=False))
            self.member_epoch = _JOIN_EPOCH

    async def _beat(self, *, full: bool) -> None:
        """Send one and take over its answer; after losing the membership the epoch is 0."""

        async def attempt() -> None:
            response = await self._send(self._request(full=full))
            error = ErrorCode.for_code(response.error_code)
            if error in _BEGIN_ANEW:
                self.member_epoch = _JOIN_EPOCH
                self._owned = self._assigned = {}
                if full:  # whoever joins wants in
                    response = await self._send(self._request(full=True))
                    error = ErrorCode.for_code(response.error_code)
                else:
                    return
            check(error, response.error_message or f"group {self._group_id}")
            self.member_epoch = response.member_epoch
            self._told_interval_s = response.heartbeat_interval_ms / 1000
            if response.assignment is not None:
                self._assigned = {
                    each.topic_id: sorted(each.partitions)
                    for each in response.assignment.topic_partitions
                    if each.partitions
                }

        await self._client.retrying(attempt)

    def _request(self, *, full: bool) -> ConsumerGroupHeartbeatRequest:
        request = ConsumerGroupHeartbeatRequest(
            self._group_id, self.member_id, self.member_epoch, self._instance_id
        )
        if full:
            request.rebalance_timeout_ms = self._rebalance_timeout_ms
            request.subscribed_topic_names = self._topics
            request.topic_partitions = [
                TopicPartitions(topic_id, partitions)
                for topic_id, partitions in self._owned.items()
            ]
        return request

    async def _send(self, request: ConsumerGroupHeartbeatRequest) -> Any:
        connection = await self._client.group_connection(self._group_id)
        return await connection.call(ApiKey.CONSUMER_GROUP_HEARTBEAT, request)

    async def _named(self, owned: dict[bytes, list[int]]) -> Assignment:
        if not owned.keys() <= self._names.keys():
            found = (await self._client.metadata(self._topics)).topics
            self._names = {topic.topic_id: topic.name or "" for topic in found}
        return {
            self._names[topic_id]: partitions
            for topic_id, partitions in owned.items()
            if topic_id in self._names
        }
