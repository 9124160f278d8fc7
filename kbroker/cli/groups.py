"""``kbroker groups``: list, describe, reset and delete consumer groups of any Kafka cluster."""

import argparse
from collections.abc import Mapping
from functools import partial
from typing import Any

from kbroker.cli.cluster import (
    add_verb,
    each_of,
    print_deleted,
    print_json,
    print_table,
    run_verb,
)
from kbroker.cli.group_offsets import (
    add_reset_arguments,
    add_topic_argument,
    delete_group_offsets,
    reset_group_offsets,
)
from kbroker.client.client import KafkaClient
from kbroker.client.group_admin import GroupAdmin, GroupDescription, GroupMember
from kbroker.client.group_offsets import CommittedOffset, TopicPartition, fetch_offsets
from kbroker.client.partitions import end_offsets
from kbroker.protocol.error_codes import ErrorCode

_STATES = ("Stable", "Empty", "PreparingRebalance", "CompletingRebalance", "Assigning")
_MORE_STATES = ("Reconciling", "Dead")
_TYPES = ("classic", "consumer", "share", "streams")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs of ``kbroker groups``."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add = add_verb(verbs, "list", "ids, states, types and coordinators")
    add.add_argument(
        "--state",
        action="append",
        default=[],
        choices=(*_STATES, *_MORE_STATES),
        metavar="STATE",
        help=f"only these; may be repeated: {', '.join((*_STATES, *_MORE_STATES))}",
    )
    add.add_argument(
        "--type",
        action="append",
        default=[],
        dest="types",
        choices=_TYPES,
        metavar="TYPE",
        help=f"only these; may be repeated: {', '.join(_TYPES)}",
    )
    add = add_verb(verbs, "describe", "members, what they read, and how far behind they are")
    add.add_argument("names", nargs="+", metavar="GROUP")
    summary = "show, and with --execute commit, other offsets for a group without members"
    add = add_verb(verbs, "reset", summary)
    add.add_argument("name", metavar="GROUP")
    add_reset_arguments(add)
    add = add_verb(verbs, "delete", "delete groups without members, and their offsets")
    add.add_argument("names", nargs="+", metavar="GROUP")
    add.add_argument("--if-exists", action="store_true", help="succeed when one is not there")
    add = add_verb(verbs, "delete-offsets", "delete what a group has committed for topics")
    add.add_argument("name", metavar="GROUP")
    add_topic_argument(add, required=True)


def run(options: argparse.Namespace) -> int:
    """0, 1 when the cluster refuses or cannot be reached, 2 for options that cannot be meant."""
    verbs = {
        "list": _list,
        "describe": _describe,
        "reset": reset_group_offsets,
        "delete": _delete,
        "delete-offsets": delete_group_offsets,
    }
    return run_verb(options, verbs)


async def _list(client: KafkaClient, options: argparse.Namespace) -> None:
    groups = await GroupAdmin(client).list_groups(states=options.state, types=options.types)
    if options.json:
        print_json(
            [
                {
                    "group": each.group_id,
                    "state": each.state or None,
                    "type": each.group_type or None,
                    "protocol": each.protocol_type,
                    "coordinator": each.coordinator_id,
                }
                for each in groups
            ]
        )
        return
    print_table(
        ("GROUP", "STATE", "TYPE", "PROTOCOL", "COORDINATOR"),
        [
            (
                each.group_id,
                each.state or None,
                each.group_type or None,
                each.protocol_type or None,
                each.coordinator_id,
            )
            for each in groups
        ],
    )


async def _describe(client: KafkaClient, options: argparse.Namespace) -> None:
    described = []
    for name in options.names:
        group = await GroupAdmin(client).describe_group(name)
        committed = await fetch_offsets(client, name)
        owners = {
            TopicPartition(topic, index): member
            for member in group.members
            for topic, indexes in member.assignment.items()
            for index in indexes
        }
        ends = await end_offsets(client, sorted({*committed, *owners}))
        described.append(_as_json(group, committed, owners, ends))
    if options.json:
        print_json(described)
        return
    for number, each in enumerate(described):
        if number:
            print()
        _print_group(each)


def _as_json(
    group: GroupDescription,
    committed: Mapping[TopicPartition, CommittedOffset],
    owners: Mapping[TopicPartition, GroupMember],
    ends: Mapping[TopicPartition, int | None],
) -> dict[str, Any]:
    """``end_offset`` and ``lag`` are null where a partition is not there any more."""
    partitions = []
    for each, end in ends.items():
        offset = committed[each].offset if each in committed else None
        owner = owners.get(each)
        partitions.append(
            {
                "topic": each.topic,
                "partition": each.partition,
                "committed": offset,
                "end_offset": end,
                "lag": None if offset is None or end is None else max(end - offset, 0),
                "member": owner and owner.member_id,
                "metadata": committed[each].metadata if each in committed else None,
            }
        )
    return {
        "group": group.group_id,
        "state": group.state,
        "type": group.group_type,
        "protocol": group.protocol_type,
        "assignor": group.assignor,
        "coordinator": {
            "id": group.coordinator.node_id,
            "host": group.coordinator.host,
            "port": group.coordinator.port,
        },
        "epoch": group.epoch,
        "target_epoch": group.target_epoch,
        "lag": sum(each["lag"] or 0 for each in partitions),
        "partitions": partitions,
        "members": [_member_json(member) for member in group.members],
    }


def _member_json(member: GroupMember) -> dict[str, Any]:
    return {
        "member": member.member_id,
        "instance": member.instance_id,
        "client": member.client_id,
        "host": member.client_host.removeprefix("/"),
        "epoch": member.epoch,
        "assignment": member.assignment,
        "target": member.target,
        "subscribed": member.subscribed,
        "subscribed_regex": member.subscribed_regex,
    }


def _print_group(group: Mapping[str, Any]) -> None:
    at = group["coordinator"]
    print_table(
        ("GROUP", "STATE", "TYPE", "ASSIGNOR", "COORDINATOR", "MEMBERS", "LAG"),
        [
            (
                group["group"],
                group["state"],
                group["type"],
                group["assignor"] or None,
                f"{at['host']}:{at['port']} ({at['id']})",
                len(group["members"]),
                group["lag"],
            )
        ],
    )
    clients = {each["member"]: each for each in group["members"]}
    if group["partitions"]:
        print()
        print_table(
            ("TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER", "CLIENT", "HOST"),
            [
                (
                    *(each["topic"], each["partition"], each["committed"], each["end_offset"]),
                    *(each["lag"], each["member"]),
                    *(clients.get(each["member"], {}).get(name) for name in ("client", "host")),
                )
                for each in group["partitions"]
            ],
        )
    if group["members"]:
        print()
        print_table(
            ("MEMBER", "INSTANCE", "CLIENT", "HOST", "ASSIGNMENT"),
            [
                (
                    *(each["member"], each["instance"], each["client"], each["host"]),
                    _assignment_text(each["assignment"]),
                )
                for each in group["members"]
            ],
        )


def _assignment_text(assignment: Mapping[str, list[int]]) -> str | None:
    """``topic:0,1 other:2``, as --topic takes it; None for nothing."""
    parts = [f"{topic}:{','.join(map(str, indexes))}" for topic, indexes in assignment.items()]
    return " ".join(parts) or None


async def _delete(client: KafkaClient, options: argparse.Namespace) -> None:
    await each_of(
        options.names,
        GroupAdmin(client).delete_group,
        unless=ErrorCode.GROUP_ID_NOT_FOUND if options.if_exists else None,
        done=partial(print_deleted, options.json),
    )
