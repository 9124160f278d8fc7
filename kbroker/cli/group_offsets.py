"""``kbroker groups reset`` and ``delete-offsets``: other offsets for a group, or none."""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from kbroker.cli.cluster import (
    UsageError,
    parse_moment,
    print_json,
    print_table,
)
from kbroker.client.client import KafkaClient
from kbroker.client.group_admin import DEAD, GroupAdmin
from kbroker.client.group_offsets import (
    CommittedOffset,
    TopicPartition,
    commit_offsets,
    delete_offsets,
    fetch_offsets,
)
from kbroker.client.partitions import first_and_end_offsets, offsets_at
from kbroker.common.clock import SystemClock
from kbroker.common.durations import parse_duration
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

_WITHOUT_MEMBERS = ("Empty", DEAD)

Offsets = Mapping[TopicPartition, CommittedOffset]
Bounds = Mapping[TopicPartition, tuple[int, int]]


def add_topic_argument(parser: Any, *, required: bool = False) -> None:
    """``--topic NAME[:PARTITIONS]``."""
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        dest="topics",
        metavar="NAME[:N,N...]",
        required=required,
        help="all partitions of a topic, or some; may be repeated",
    )


def add_reset_arguments(parser: argparse.ArgumentParser) -> None:
    """Which partitions, to where, and whether in earnest."""
    add_topic_argument(parser)
    parser.add_argument(
        "--all-topics", action="store_true", help="every partition that has a committed offset"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--to-earliest", action="store_true", help="the first record there is")
    where.add_argument("--to-latest", action="store_true", help="behind the last record")
    where.add_argument("--to-current", action="store_true", help="what is committed, or the end")
    where.add_argument("--to-offset", type=int, metavar="N", help="this offset")
    where.add_argument(
        "--shift-by", type=int, metavar="N", help="N further, or back: --shift-by=-N"
    )
    where.add_argument(
        "--to-datetime",
        metavar="TIME",
        help="the first record from then on: 2026-01-31T12:00:00Z (local time without a zone)",
    )
    where.add_argument(
        "--by-duration",
        metavar="DURATION",
        help="the first record of the time since then: PnDTnHnMnS, PT1H30M are 90 minutes",
    )
    where.add_argument(
        "--from-file", metavar="FILE", help="lines TOPIC,PARTITION,OFFSET, as --export prints them"
    )
    parser.add_argument(
        "--execute", action="store_true", help="do it; without this it is only shown"
    )
    parser.add_argument(
        "--export", action="store_true", help="print lines TOPIC,PARTITION,OFFSET for --from-file"
    )


async def reset_group_offsets(client: KafkaClient, options: argparse.Namespace) -> None:
    """Show, or commit, what the options ask for. Raises UsageError, KafkaError."""
    group: str = options.name
    await _refuse_members(client, group)
    committed = await fetch_offsets(client, group)
    listed = _read_file(group, options.from_file) if options.from_file else None
    partitions = await _partitions(client, options, committed, listed)
    bounds = await first_and_end_offsets(client, partitions)
    wanted = listed or await _wanted(client, options, bounds, committed)
    planned = {each: _within(each, wanted[each], bounds[each]) for each in partitions}
    if options.execute:
        await commit_offsets(
            client, group, {each: CommittedOffset(offset) for each, offset in planned.items()}
        )
    _print_plan(options, committed, planned)


async def _refuse_members(client: KafkaClient, group: str) -> None:
    """As Kafka's tool: a member would overwrite what is reset, or be fenced by it."""
    try:
        described = await GroupAdmin(client).describe_group(group)
    except KafkaError as error:
        if error.error_code != ErrorCode.GROUP_ID_NOT_FOUND:
            raise
        return  # a commit makes it
    if described.state not in _WITHOUT_MEMBERS:
        clients = ", ".join(sorted({member.client_id for member in described.members}))
        raise KafkaError(
            ErrorCode.NON_EMPTY_GROUP,
            f"group {group} is {described.state}, with {len(described.members)} members"
            + (f" of {clients}" if clients else ""),
        )


async def _partitions(
    client: KafkaClient,
    options: argparse.Namespace,
    committed: Offsets,
    listed: Mapping[TopicPartition, int] | None,
) -> list[TopicPartition]:
    """Which ones are reset, in order."""
    if listed is not None:
        if options.topics or options.all_topics:
            raise UsageError("--from-file names its partitions: leave out --topic and --all-topics")
        return sorted(listed)
    if bool(options.topics) == options.all_topics:
        raise UsageError("which partitions? expected --topic NAME[:N,N...] or --all-topics")
    if not options.all_topics:
        return await _named_partitions(client, options.topics)
    if not committed:
        raise UsageError(
            f"group {options.name} has committed nothing: name topics with --topic NAME"
        )
    return sorted(committed)


async def _named_partitions(client: KafkaClient, topics: Sequence[str]) -> list[TopicPartition]:
    """``NAME`` or ``NAME:0,2`` each. Raises UsageError, KafkaError for a missing topic."""
    found: set[TopicPartition] = set()
    for text in topics:
        name, colon, numbers = text.partition(":")
        if not colon:
            found |= {TopicPartition(name, index) for index in await client.leaders(name, of=())}
            continue
        if not name or not all(number.isdecimal() for number in numbers.split(",")):
            raise UsageError(f"--topic {text}: expected NAME or NAME:N,N...")
        found |= {TopicPartition(name, int(number)) for number in numbers.split(",")}
    return sorted(found)


async def _wanted(
    client: KafkaClient, options: argparse.Namespace, bounds: Bounds, committed: Offsets
) -> dict[TopicPartition, int]:
    """Where each partition is to go, not yet held against what is there."""
    if options.to_earliest:
        return {each: first for each, (first, _) in bounds.items()}
    if options.to_latest:
        return {each: end for each, (_, end) in bounds.items()}
    if options.to_offset is not None:
        return dict.fromkeys(bounds, options.to_offset)
    if options.to_current:
        return {
            each: committed[each].offset if each in committed else end
            for each, (_, end) in bounds.items()
        }
    if options.shift_by is not None:
        missing = [str(each) for each in bounds if each not in committed]
        if missing:
            raise UsageError(f"--shift-by: nothing is committed for {', '.join(missing)}")
        return {each: committed[each].offset + options.shift_by for each in bounds}
    moment = _moment(options)
    found = await offsets_at(client, dict.fromkeys(bounds, moment))
    return {each: end if found[each] < 0 else found[each] for each, (_, end) in bounds.items()}


def _moment(options: argparse.Namespace) -> int:
    """``--to-datetime`` or ``--by-duration``, ms since 1970. Raises UsageError."""
    if options.to_datetime is not None:
        try:
            return parse_moment(options.to_datetime)
        except ValueError:
            raise UsageError(
                f"--to-datetime {options.to_datetime}: expected a time like 2026-01-31T12:00:00Z"
            ) from None
    try:
        return max(SystemClock().time_ms() - parse_duration(options.by_duration), 0)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--by-duration {options.by_duration}: expected a duration like P7D, PT1H30M or PT10.5S"
        ) from None


def _within(partition: TopicPartition, offset: int, bounds: tuple[int, int]) -> int:
    """The nearest offset that there is, with a word where that is another one."""
    first, end = bounds
    taken = min(max(offset, first), end)
    if taken != offset:
        print(
            f"kbroker: {partition}: {offset} is outside of {first} to {end}, taking {taken}",
            file=sys.stderr,
        )
    return taken


def _read_file(group: str, name: str) -> dict[TopicPartition, int]:
    """``TOPIC,PARTITION,OFFSET`` lines, or Kafka's with the group in front. Raises UsageError."""
    found: dict[TopicPartition, int] = {}
    try:
        with open(name, encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                fields = [field.strip() for field in row]
                if not fields:
                    continue
                if len(fields) == 4:
                    if fields[0] != group:
                        continue
                    del fields[0]
                if len(fields) != 3 or not (fields[1].isdecimal() and fields[2].isdecimal()):
                    raise UsageError(f"{name}, line {number}: expected TOPIC,PARTITION,OFFSET")
                found[TopicPartition(fields[0], int(fields[1]))] = int(fields[2])
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise UsageError(f"{name} names no partition for group {group}")
    return found


def _print_plan(
    options: argparse.Namespace, committed: Offsets, planned: Mapping[TopicPartition, int]
) -> None:
    before = {each: committed[each].offset if each in committed else None for each in planned}
    if options.export:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows((*each, offset) for each, offset in planned.items())
    elif options.json:
        print_json(
            {
                "group": options.name,
                "executed": options.execute,
                "partitions": [
                    {**each._asdict(), "committed": before[each], "new": offset}
                    for each, offset in planned.items()
                ],
            }
        )
    else:
        print_table(
            ("TOPIC", "PARTITION", "COMMITTED", "NEW"),
            [(*each, before[each], offset) for each, offset in planned.items()],
        )
    if not options.execute and not options.json:
        print("nothing was changed; --execute does it", file=sys.stderr)


async def delete_group_offsets(client: KafkaClient, options: argparse.Namespace) -> None:
    """Delete what is committed; the first partition's error is raised after all were tried."""
    partitions = await _named_partitions(client, options.topics)
    results = await delete_offsets(client, options.name, partitions)
    deleted = [each for each, problem in results.items() if problem is None]
    if options.json:
        print_json({"group": options.name, "deleted": [each._asdict() for each in deleted]})
    else:
        for each in deleted:
            print(f"deleted {each}")
    for each, problem in results.items():
        if problem is not None:
            raise KafkaError(problem.error_code, str(each))
