"""``kbroker configs``: settings of topics and brokers, described and changed, on any Kafka."""

import argparse
from typing import Any

from kbroker.cli.cluster import (
    UsageError,
    add_connection_arguments,
    parse_assignments,
    print_json,
    print_table,
    run_with_client,
)
from kbroker.client.admin import BROKER, TOPIC, Admin, Resource
from kbroker.client.client import KafkaClient

_DEFAULT_SOURCE = 5
_MASK = "********"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs of ``kbroker configs``."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add = _add_verb(verbs, "describe", "settings that differ from Kafka's defaults")
    add.add_argument("--all", action="store_true", help="the defaults as well")
    add = _add_verb(verbs, "alter", "change some settings, leave the others")
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


def _add_verb(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    of_what = parser.add_mutually_exclusive_group(required=True)
    of_what.add_argument("--topic", metavar="NAME")
    of_what.add_argument("--broker", metavar="ID", help='a broker; "" is the default of all')
    add_connection_arguments(parser, json_help="print JSON")
    return parser


def run(options: argparse.Namespace) -> int:
    """0, 1 when the cluster refuses or cannot be reached, 2 for options that cannot be meant."""
    if options.topic is not None:
        resource = Resource(TOPIC, options.topic)
    else:
        resource = Resource(BROKER, options.broker)

    async def work(client: KafkaClient) -> int:
        verb = _describe if options.verb == "describe" else _alter
        await verb(Admin(client), resource, options)
        return 0

    return run_with_client(options, work)


async def _describe(admin: Admin, resource: Resource, options: argparse.Namespace) -> None:
    configs: list[dict[str, Any]] = [
        {
            "name": each.name,
            "value": None if each.is_sensitive else each.value,
            "sensitive": each.is_sensitive,
            "read_only": each.read_only,
            "default": each.config_source == _DEFAULT_SOURCE,
        }
        for each in await admin.describe_configs(resource)
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


async def _alter(admin: Admin, resource: Resource, options: argparse.Namespace) -> None:
    changes: dict[str, str | None] = dict(parse_assignments("--set", options.assignments))
    changes.update(dict.fromkeys(options.reset))
    if not changes:
        raise UsageError("nothing to change: expected --set NAME=VALUE or --reset NAME")
    await admin.alter_configs(resource, changes)
    if options.json:
        print_json({"changed": sorted(changes)})
    else:
        print(f"changed {', '.join(sorted(changes))}")
