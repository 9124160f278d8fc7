"""``kbroker topics``: list, create, describe, alter and delete topics of any Kafka cluster."""

import argparse
from functools import partial
from typing import Any

from kbroker.cli.cluster import (
    UsageError,
    add_verb,
    each_of,
    parse_assignments,
    parse_changes,
    print_deleted,
    print_json,
    print_table,
    run_verb,
)
from kbroker.client.admin import TOPIC, Admin, Resource
from kbroker.client.client import KafkaClient
from kbroker.client.reader import EARLIEST, LATEST, list_offsets
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs of ``kbroker topics``."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add = add_verb(verbs, "list", "names, partitions and replication")
    add.add_argument("--internal", action="store_true", help="Kafka's internal topics as well")
    add = add_verb(verbs, "create", "create a topic")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--partitions", type=int, default=-1, help="default: the broker's setting")
    add.add_argument(
        "--replication-factor", type=int, default=-1, help="default: the broker's setting"
    )
    add.add_argument(
        "--config", action="append", default=[], metavar="NAME=VALUE", help="may be repeated"
    )
    add.add_argument("--if-not-exists", action="store_true", help="succeed when it is there")
    add = add_verb(verbs, "describe", "leaders, replicas and offsets of every partition")
    add.add_argument("names", nargs="*", metavar="NAME", help="default: all but Kafka's own")
    add = add_verb(verbs, "alter", "let a topic have more partitions, or other settings")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--partitions", type=int, help="how many there are to be")
    add.add_argument(
        "--config", action="append", default=[], metavar="NAME=VALUE", help="may be repeated"
    )
    add.add_argument(
        "--reset", action="append", default=[], metavar="NAME", help="a setting back to its default"
    )
    add = add_verb(verbs, "delete", "delete topics with all their records")
    add.add_argument("names", nargs="+", metavar="NAME")
    add.add_argument("--if-exists", action="store_true", help="succeed when one is not there")


def run(options: argparse.Namespace) -> int:
    """0, 1 when the cluster refuses or cannot be reached, 2 for options that cannot be meant."""
    verbs = {
        "list": _list,
        "create": _create,
        "describe": _describe,
        "alter": _alter,
        "delete": _delete,
    }
    return run_verb(options, verbs)


async def _list(client: KafkaClient, options: argparse.Namespace) -> None:
    topics: list[dict[str, Any]] = [
        {
            "name": topic.name,
            "partitions": len(topic.partitions),
            "replication_factor": max(
                (len(each.replica_nodes) for each in topic.partitions), default=0
            ),
            "internal": topic.is_internal,
        }
        for topic in await Admin(client).list_topics()
        if options.internal or not topic.is_internal
    ]
    if options.json:
        print_json(topics)
        return
    print_table(
        ("TOPIC", "PARTITIONS", "REPLICATION"),
        [(each["name"], each["partitions"], each["replication_factor"]) for each in topics],
    )


async def _create(client: KafkaClient, options: argparse.Namespace) -> None:
    created = True
    if options.partitions < 1 and options.partitions != -1:
        raise UsageError(f"--partitions {options.partitions}: expected 1 or more")
    try:
        await Admin(client).create_topic(
            options.name,
            partitions=options.partitions,
            replication_factor=options.replication_factor,
            config=parse_assignments("--config", options.config),
        )
    except KafkaError as error:
        if not options.if_not_exists or error.error_code != ErrorCode.TOPIC_ALREADY_EXISTS:
            raise
        created = False
    if options.json:
        print_json({"name": options.name, "created": created})
    else:
        print(f"{'created' if created else 'exists already:'} {options.name}")


async def _describe(client: KafkaClient, options: argparse.Namespace) -> None:
    admin = Admin(client)
    described: list[dict[str, Any]] = []
    names = list(dict.fromkeys(options.names))
    topics = await (admin.describe_topics(names) if names else admin.list_topics())
    for topic in topics:
        if topic.is_internal and not names:
            continue
        name = topic.name or ""
        led = [each.partition_index for each in topic.partitions if each.leader_id >= 0]
        first = await list_offsets(client, name, dict.fromkeys(led, EARLIEST))
        end = await list_offsets(client, name, dict.fromkeys(led, LATEST))
        partitions = [
            {
                "partition": each.partition_index,
                "leader": each.leader_id if each.leader_id >= 0 else None,
                "replicas": each.replica_nodes,
                "isr": each.isr_nodes,
                "first_offset": first.get(each.partition_index),
                "end_offset": end.get(each.partition_index),
            }
            for each in sorted(topic.partitions, key=lambda each: each.partition_index)
        ]
        described.append({"name": topic.name, "partitions": partitions})
    if options.json:
        print_json(described)
        return
    print_table(
        ("TOPIC", "PARTITION", "LEADER", "REPLICAS", "ISR", "FIRST", "END"),
        [
            (
                topic["name"],
                each["partition"],
                each["leader"],
                ",".join(map(str, each["replicas"])),
                ",".join(map(str, each["isr"])),
                each["first_offset"],
                each["end_offset"],
            )
            for topic in described
            for each in topic["partitions"]
        ],
    )


async def _alter(client: KafkaClient, options: argparse.Namespace) -> None:
    """Settings first: a partition cannot be taken back where a setting is refused."""
    changes = parse_changes("--config", options.config, options.reset)
    if options.partitions is None and not changes:
        raise UsageError("nothing to change: expected --partitions, --config NAME=VALUE or --reset")
    if changes:
        await Admin(client).alter_configs(Resource(TOPIC, options.name), changes)
    if options.partitions is not None:
        await Admin(client).create_partitions(options.name, options.partitions)
    if options.json:
        changed = {"partitions": options.partitions, "changed": sorted(changes)}
        print_json({"name": options.name, **changed})
        return
    if changes:
        print(f"{options.name}: changed {', '.join(sorted(changes))}")
    if options.partitions is not None:
        print(f"{options.name} has {options.partitions} partitions")


async def _delete(client: KafkaClient, options: argparse.Namespace) -> None:
    await each_of(
        options.names,
        Admin(client).delete_topic,
        unless=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if options.if_exists else None,
        done=partial(print_deleted, options.json),
    )
