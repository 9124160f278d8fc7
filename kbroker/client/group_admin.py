"""Groups from the outside: listed, described, deleted."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from kbroker.client.client import KafkaClient, Node, check
from kbroker.client.connection import Connection
from kbroker.client.consumer_protocol import Assignment, read_assignment
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_describe_request import ConsumerGroupDescribeRequest
from kbroker.protocol.messages.consumer_group_describe_response import (
    DescribedGroup as DescribedConsumerGroup,
)
from kbroker.protocol.messages.delete_groups_request import DeleteGroupsRequest
from kbroker.protocol.messages.describe_groups_request import DescribeGroupsRequest
from kbroker.protocol.messages.describe_groups_response import (
    DescribedGroup as DescribedClassicGroup,
)
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest

CLASSIC: Final = "classic"
CONSUMER: Final = "consumer"
DEAD: Final = "Dead"


class GroupListing(NamedTuple):
    """One line of a list; ``state`` and ``group_type`` are "" where the broker is too old."""

    group_id: str
    protocol_type: str
    state: str
    group_type: str
    coordinator_id: int


class GroupMember(NamedTuple):
    """A member; ``target`` is what it is to own after its rebalance (consumer protocol only)."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    assignment: Assignment
    epoch: int | None = None
    target: Assignment | None = None
    subscribed: list[str] | None = None
    subscribed_regex: str | None = None


class GroupDescription(NamedTuple):
    """``epoch`` and ``target_epoch`` are None in a classic group, whose generation nobody tells."""

    group_id: str
    group_type: str
    state: str
    protocol_type: str
    assignor: str
    coordinator: Node
    members: list[GroupMember]
    epoch: int | None = None
    target_epoch: int | None = None


class GroupAdmin:
    """Verbs over a client; all raise KafkaError."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client

    async def list_groups(
        self, *, states: Sequence[str] = (), types: Sequence[str] = ()
    ) -> list[GroupListing]:
        """The groups of every broker, by id; the broker filters (KIP-518, KIP-848)."""

        async def attempt() -> list[GroupListing]:
            found: list[GroupListing] = []
            for node_id in sorted((await self._client.metadata([])).nodes):
                request = ListGroupsRequest(list(states), list(types))
                response = await self._client.call(node_id, ApiKey.LIST_GROUPS, request)
                check(response.error_code)
                found += [
                    GroupListing(
                        each.group_id,
                        each.protocol_type,
                        each.group_state,
                        each.group_type,
                        node_id,
                    )
                    for each in response.groups
                ]
            return sorted(found)

        return await self._client.retrying(attempt)

    async def describe_group(self, group_id: str) -> GroupDescription:
        """A group of the classic or the consumer protocol; GROUP_ID_NOT_FOUND when it is neither.

        A classic group's members that are no consumers (Kafka Connect) have an empty assignment.
        """

        async def attempt() -> GroupDescription:
            coordinator = await self._client.coordinator(group_id)
            connection = await self._client.group_connection(group_id)
            if connection.knows(ApiKey.CONSUMER_GROUP_DESCRIBE):
                described = await self._describe_consumer(connection, group_id)
                if described is not None:
                    return _consumer_description(described, coordinator)
            request = DescribeGroupsRequest([group_id])
            response = await connection.call(ApiKey.DESCRIBE_GROUPS, request)
            (group,) = response.groups
            check(group.error_code, group.error_message or f"group {group_id}")
            if group.group_state == DEAD:  # before version 6 that is how a missing group is told
                raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"group {group_id}")
            return _classic_description(group, coordinator)

        return await self._client.retrying(attempt)

    async def _describe_consumer(
        self, connection: Connection, group_id: str
    ) -> DescribedConsumerGroup | None:
        """None where the group is not one of the consumer protocol, or there is none."""
        request = ConsumerGroupDescribeRequest([group_id])
        response = await connection.call(ApiKey.CONSUMER_GROUP_DESCRIBE, request)
        group: DescribedConsumerGroup = response.groups[0]
        if group.error_code in (ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.UNSUPPORTED_VERSION):
            return None
        check(group.error_code, group.error_message or f"group {group_id}")
        return group

    async def delete_group(self, group_id: str) -> None:
        """Delete a group without members, its offsets with it; else NON_EMPTY_GROUP."""

        async def attempt() -> None:
            connection = await self._client.group_connection(group_id)
            request = DeleteGroupsRequest([group_id])
            response = await connection.call(ApiKey.DELETE_GROUPS, request)
            (result,) = response.results
            check(result.error_code, f"group {group_id}")

        await self._client.retrying(attempt)


def _consumer_description(group: DescribedConsumerGroup, coordinator: Node) -> GroupDescription:
    members = [
        GroupMember(
            member_id=each.member_id,
            instance_id=each.instance_id,
            client_id=each.client_id,
            client_host=each.client_host,
            assignment=_named(each.assignment),
            epoch=each.member_epoch,
            target=_named(each.target_assignment),
            subscribed=sorted(each.subscribed_topic_names),
            subscribed_regex=each.subscribed_topic_regex or None,
        )
        for each in group.members
    ]
    return GroupDescription(
        group_id=group.group_id,
        group_type=CONSUMER,
        state=group.group_state,
        protocol_type=CONSUMER,
        assignor=group.assignor_name,
        coordinator=coordinator,
        members=sorted(members),
        epoch=group.group_epoch,
        target_epoch=group.assignment_epoch,
    )


def _classic_description(group: DescribedClassicGroup, coordinator: Node) -> GroupDescription:
    are_consumers = group.protocol_type == CONSUMER
    members = [
        GroupMember(
            member_id=each.member_id,
            instance_id=each.group_instance_id,
            client_id=each.client_id,
            client_host=each.client_host,
            assignment=read_assignment(each.member_assignment) if are_consumers else {},
        )
        for each in group.members
    ]
    return GroupDescription(
        group_id=group.group_id,
        group_type=CLASSIC,
        state=group.group_state,
        protocol_type=group.protocol_type,
        assignor=group.protocol_data,
        coordinator=coordinator,
        members=sorted(members, key=lambda each: each.member_id),
    )


def _named(assignment: Any) -> Assignment:
    found: Mapping[str, list[int]] = {
        each.topic_name: sorted(each.partitions) for each in assignment.topic_partitions
    }
    return dict(sorted(found.items()))
