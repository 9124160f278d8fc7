"""Offsets that a group has committed: fetched, committed, deleted."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from kbroker.client.client import KafkaClient, check
from kbroker.client.connection import Connection
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kbroker.protocol.messages.offset_delete_request import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from kbroker.protocol.messages.offset_fetch_request import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)

V = TypeVar("V")

_FIRST_FETCH_OF_MANY = 8
_FIRST_REQUIRE_STABLE = 7


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class CommittedOffset(NamedTuple):
    """The offset of the next record to read, and what was committed beside it."""

    offset: int
    leader_epoch: int = -1
    metadata: str = ""


class MemberIdentity(NamedTuple):
    """In whose name a group's offsets are touched; by default nobody's: the group has no members.

    ``generation_id`` is the member epoch in a group of the consumer protocol.
    """

    member_id: str = ""
    generation_id: int = -1
    instance_id: str | None = None


NOBODY = MemberIdentity()


async def fetch_offsets(
    client: KafkaClient,
    group_id: str,
    partitions: Iterable[TopicPartition] | None = None,
    *,
    member: MemberIdentity = NOBODY,
    require_stable: bool = False,
) -> dict[TopicPartition, CommittedOffset]:
    """What is committed, of the partitions or (None) of all; one without an offset is missing.

    ``require_stable`` waits for open transactions that commit offsets (KIP-447).
    """
    asked = None if partitions is None else by_topic(dict.fromkeys(partitions))
    if asked == {}:
        return {}

    async def attempt() -> dict[TopicPartition, CommittedOffset]:
        connection = await client.group_connection(group_id)
        found: dict[TopicPartition, CommittedOffset] = {}
        for topic in await _fetch(connection, group_id, asked, member, require_stable):
            for each in topic.partitions:
                check(each.error_code, f"group {group_id}, {topic.name}-{each.partition_index}")
                if each.committed_offset >= 0:
                    found[TopicPartition(topic.name, each.partition_index)] = CommittedOffset(
                        each.committed_offset, each.committed_leader_epoch, each.metadata or ""
                    )
        return dict(sorted(found.items()))

    return await client.retrying(attempt)


async def _fetch(
    connection: Connection,
    group_id: str,
    asked: Mapping[str, Mapping[int, object]] | None,
    member: MemberIdentity,
    require_stable: bool,
) -> Any:
    """The topics of the answer, in whichever form this version has them."""
    version = connection.version(ApiKey.OFFSET_FETCH)
    stable = require_stable and version >= _FIRST_REQUIRE_STABLE
    if version < _FIRST_FETCH_OF_MANY:
        topics = (
            None
            if asked is None
            else [OffsetFetchRequestTopic(name, list(indexes)) for name, indexes in asked.items()]
        )
        request = OffsetFetchRequest(group_id, topics, require_stable=stable)
        response = await connection.call(ApiKey.OFFSET_FETCH, request)
        check(response.error_code, f"group {group_id}")
        return response.topics
    of_group = OffsetFetchRequestGroup(
        group_id,
        topics=None
        if asked is None
        else [
            OffsetFetchRequestTopics(name, partition_indexes=list(indexes))
            for name, indexes in asked.items()
        ],
    )
    if version > _FIRST_FETCH_OF_MANY and member.member_id:
        of_group.member_id, of_group.member_epoch = member.member_id, member.generation_id
    request = OffsetFetchRequest(groups=[of_group], require_stable=stable)
    response = await connection.call(ApiKey.OFFSET_FETCH, request)
    (group,) = response.groups
    check(group.error_code, f"group {group_id}")
    return group.topics


async def commit_offsets(
    client: KafkaClient,
    group_id: str,
    offsets: Mapping[TopicPartition, CommittedOffset],
    *,
    member: MemberIdentity = NOBODY,
) -> None:
    """Commit all; the first error of any partition is raised, for instance REBALANCE_IN_PROGRESS.

    In nobody's name a group that has members refuses with UNKNOWN_MEMBER_ID.
    """

    async def attempt() -> None:
        connection = await client.group_connection(group_id)
        request = OffsetCommitRequest(
            group_id,
            generation_id_or_member_epoch=member.generation_id,
            member_id=member.member_id,
            group_instance_id=member.instance_id,
            topics=[
                OffsetCommitRequestTopic(
                    topic,
                    partitions=[
                        OffsetCommitRequestPartition(
                            index, each.offset, each.leader_epoch, each.metadata
                        )
                        for index, each in partitions.items()
                    ],
                )
                for topic, partitions in by_topic(offsets).items()
            ],
        )
        response = await connection.call(ApiKey.OFFSET_COMMIT, request)
        for topic in response.topics:
            for result in topic.partitions:
                check(result.error_code, f"group {group_id}, {topic.name}-{result.partition_index}")

    await client.retrying(attempt, final=frozenset({ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}))


async def delete_offsets(
    client: KafkaClient, group_id: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, KafkaError | None]:
    """What became of each: None when it is gone. A group's error is raised (KIP-496)."""
    request = OffsetDeleteRequest(
        group_id,
        [
            OffsetDeleteRequestTopic(
                topic, [OffsetDeleteRequestPartition(index) for index in indexes]
            )
            for topic, indexes in by_topic(dict.fromkeys(partitions)).items()
        ],
    )

    async def attempt() -> dict[TopicPartition, KafkaError | None]:
        connection = await client.group_connection(group_id)
        response = await connection.call(ApiKey.OFFSET_DELETE, request)
        check(response.error_code, f"group {group_id}")
        return {
            TopicPartition(topic.name, each.partition_index): (
                KafkaError(ErrorCode.for_code(each.error_code)) if each.error_code else None
            )
            for topic in response.topics
            for each in topic.partitions
        }

    return await client.retrying(attempt)


def by_topic(values: Mapping[TopicPartition, V]) -> dict[str, dict[int, V]]:
    """Topic -> partition -> value, in order."""
    found: dict[str, dict[int, V]] = {}
    for (topic, partition), value in sorted(values.items(), key=lambda each: each[0]):
        found.setdefault(topic, {})[partition] = value
    return found
