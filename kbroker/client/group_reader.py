"""Records of one topic that a group shares out: joined, read, committed, handed over."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

import anyio

from kbroker.client.client import KafkaClient
from kbroker.client.connection import ConnectionLostError
from kbroker.client.consumer_protocol import Assignment
from kbroker.client.group_offsets import (
    CommittedOffset,
    MemberIdentity,
    TopicPartition,
    commit_offsets,
    fetch_offsets,
)
from kbroker.client.reader import EARLIEST, LATEST, FetchedRecord, Reader, list_offsets
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

_LOST: Final = frozenset(
    {
        ErrorCode.REBALANCE_IN_PROGRESS,
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.STALE_MEMBER_EPOCH,
        ErrorCode.FENCED_MEMBER_EPOCH,
    }
)
"""A commit that came too late: the partitions may be somebody else's by now."""

_LEAVE_TIMEOUT_S: Final = 5.0


class Membership(Protocol):
    """``ClassicMember`` or ``ConsumerMember``."""

    @property
    def heartbeat_interval_s(self) -> float: ...

    @property
    def identity(self) -> MemberIdentity: ...

    async def join(self) -> Assignment: ...

    async def heartbeat(self) -> bool: ...

    async def leave(self) -> None: ...


class GroupReader:
    """``async with GroupReader(...) as reader``: ``poll``, work, ``commit``, and again.

    A member that leaves the block leaves the group. Rebalances happen inside ``poll``: what was
    read and not committed before it may be read again by somebody else.
    """

    def __init__(
        self,
        client: KafkaClient,
        group_id: str,
        topic: str,
        member: Membership,
        *,
        start: int = EARLIEST,
    ) -> None:
        """``start``: where a partition without a committed offset begins, EARLIEST or LATEST."""
        self._client = client
        self._group_id = group_id
        self._topic = topic
        self._member = member
        self._start = start
        self._reader = Reader(client, topic, {})
        self._stands = False
        self._problem: Exception | None = None
        self._using_member = anyio.Lock()
        self._tasks: TaskGroup | None = None

    @property
    def positions(self) -> Mapping[int, int]:
        """The next offset of each partition that this member owns."""
        return self._reader.positions

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._send_heartbeats)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._tasks is not None:
                self._tasks.cancel_scope.cancel()
                await self._tasks.__aexit__(None, None, None)  # raises when we are cancelled
        finally:
            with anyio.move_on_after(_LEAVE_TIMEOUT_S, shield=True):
                await self._leave()

    async def _leave(self) -> None:
        try:
            await self._member.leave()
        except (KafkaError, ConnectionLostError):
            return  # the session timeout will end the membership: nobody waits for this

    async def poll(self, *, max_wait_ms: int = 500) -> list[FetchedRecord]:
        """The next records of the partitions that this member owns; empty when none came in time.

        Raises KafkaError, for instance FENCED_INSTANCE_ID.
        """
        if self._problem is not None:
            raise self._problem
        if not self._stands:
            await self._rebalance()
        if not self._reader.positions:
            await anyio.sleep(max_wait_ms / 1000)
            return []
        try:
            return await self._reader.poll(max_wait_ms=max_wait_ms)
        except KafkaError as error:
            if error.error_code != ErrorCode.OFFSET_OUT_OF_RANGE:
                raise
            await self._return_into_range()
            return []

    async def commit(self, offsets: Mapping[int, int] | None = None) -> bool:
        """Partition -> offset, default all positions. False: a rebalance was faster."""
        committed = self.positions if offsets is None else offsets
        try:
            await commit_offsets(
                self._client,
                self._group_id,
                {
                    TopicPartition(self._topic, index): CommittedOffset(offset)
                    for index, offset in committed.items()
                },
                member=self._member.identity,
            )
        except KafkaError as error:
            if error.error_code not in _LOST:
                raise
            self._stands = False
            return False
        return True

    async def _rebalance(self) -> None:
        async with self._using_member:
            assignment = await self._member.join()
            self._stands = True
        owned = [TopicPartition(self._topic, each) for each in assignment.get(self._topic, ())]
        committed = await fetch_offsets(
            self._client,
            self._group_id,
            owned,
            member=self._member.identity,
            require_stable=True,
        )
        positions = {each.partition: found.offset for each, found in committed.items()}
        new = [each.partition for each in owned if each.partition not in positions]
        if new:
            positions |= await list_offsets(
                self._client, self._topic, dict.fromkeys(new, self._start)
            )
        self._reader = Reader(self._client, self._topic, positions)

    async def _return_into_range(self) -> None:
        """Positions whose records are gone, or were never there, go where ``start`` says."""
        positions = self._reader.positions
        first = await list_offsets(self._client, self._topic, dict.fromkeys(positions, EARLIEST))
        end = await list_offsets(self._client, self._topic, dict.fromkeys(positions, LATEST))
        to = first if self._start == EARLIEST else end
        for index, position in positions.items():
            if not first[index] <= position <= end[index]:
                positions[index] = to[index]

    async def _send_heartbeats(self) -> None:
        while self._problem is None:
            await anyio.sleep(self._member.heartbeat_interval_s)
            if not self._stands:
                continue
            async with self._using_member:
                try:
                    self._stands = await self._member.heartbeat() and self._stands
                except (KafkaError, ConnectionLostError) as problem:
                    self._problem = problem
