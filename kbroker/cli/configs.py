"""``kbroker configs``: settings of topics, brokers and more, shown and changed, on any Kafka."""

import argparse
from typing import Any

from kbroker.cli.cluster import (
    UsageError,
    add_verb,
    parse_changes,
    print_json,
    print_table,
    run_with_client,
)
from kbroker.client.admin import (
    BROKER,
    BROKER_LOGGER,
    CLIENT_METRICS,
    GROUP,
    RESOURCE_TYPES,
    TOPIC,
    Admin,
    Resource,
)
from kbroker.client.client import KafkaClient

_DEFAULT_SOURCE = 5
_MASK = "********"
_OPTIONS = {
    "topic": (TOPIC, "NAME", "a topic"),
    "broker": (BROKER, "ID", 'a broker; "" is the default of all'),
    "broker-logger": (BROKER_LOGGER, "ID", "the log levels of a broker"),
    "group": (GROUP, "NAME", "a group"),
    "client-metrics": (CLIENT_METRICS, "NAME", "a subscription to metrics of clients (KIP-714)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs of ``kbroker configs``."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add_verb(verbs, "list", "what has, or can have, settings of its own")
    add = _add_resource_verb(verbs, "describe", "settings that differ from Kafka's defaults")
    add.add_argument("--all", action="store_true", help="the defaults as well")
    add = _add_resource_verb(verbs, "alter", "change some settings, leave the others")
    add.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="NAME=VALUE",
        help="may be repeated",
    )
    add.add_argument(
        "--reset", action="append", default=[], metavar="NAME", help="back to its default"
    )


def _add_resource_verb(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser = add_verb(verbs, name, summary)
    of_what = parser.add_mutually_exclusive_group(required=True)
    for option, (_, metavar, what) in _OPTIONS.items():
        of_what.add_argument(f"--{option}", dest=option, metavar=metavar, help=what)
    return parser


def run(options: argparse.Namespace) -> int:
    """0, 1 when the cluster refuses or cannot be reached, 2 for options that cannot be meant."""

    async def work(client: KafkaClient) -> int:
        verb = {"list": _list, "describe": _describe, "alter": _alter}[options.verb]
        await verb(Admin(client), options)
        return 0

    return run_with_client(options, work)


def _resource(options: argparse.Namespace) -> Resource:
    """The one that an option names; argparse has seen to it that there is one."""
    (found,) = (
        Resource(resource_type, getattr(options, option))
        for option, (resource_type, _, _) in _OPTIONS.items()
        if getattr(options, option) is not None
    )
    return found


async def _list(admin: Admin, options: argparse.Namespace) -> None:
    resources = [
        (RESOURCE_TYPES.get(each.resource_type, str(each.resource_type)), each.name)
        for each in await admin.list_config_resources()
    ]
    if options.json:
        print_json([{"type": kind, "name": name} for kind, name in resources])
    else:
        print_table(("TYPE", "NAME"), resources)


async def _describe(admin: Admin, options: argparse.Namespace) -> None:
    configs: list[dict[str, Any]] = [
        {
            "name": each.name,
            "value": None if each.is_sensitive else each.value,
            "sensitive": each.is_sensitive,
            "read_only": each.read_only,
            "default": each.config_source == _DEFAULT_SOURCE,
        }
        for each in await admin.describe_configs(_resource(options))
        if options.all or each.config_source != _DEFAULT_SOURCE
    ]
    if options.json:
        print_json(configs)
        return
    print_table(
        ("SETTING", "VALUE"),
        [
            (each["name"], _MASK if each["sensitive"] else str(each["value"] or ""))
            for each in configs
        ],
    )


async def _alter(admin: Admin, options: argparse.Namespace) -> None:
    changes = parse_changes("--set", options.assignments, options.reset)
    if not changes:
        raise UsageError("nothing to change: expected --set NAME=VALUE or --reset NAME")
    await admin.alter_configs(_resource(options), changes)
    if options.json:
        print_json({"changed": sorted(changes)})
    else:
        print(f"changed {', '.join(sorted(changes))}")
