"""``kbroker consume``: records of a topic on standard output, from anywhere, to its end or on."""

import argparse
import base64
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kbroker.cli.cluster import (
    UsageError,
    add_connection_arguments,
    parse_moment,
    print_json,
    run_with_client,
)
from kbroker.client.client import KafkaClient
from kbroker.client.reader import EARLIEST, LATEST, FetchedRecord, Reader, list_offsets

_FIELDS: Final = ("topic", "partition", "offset", "timestamp", "time", "key", "value", "headers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``kbroker consume``."""
    add = parser.add_argument
    add("topic", metavar="TOPIC")
    add(
        "--from",
        dest="start",
        default="beginning",
        metavar="WHERE",
        help="beginning (default), end, an offset, -N for the last N of each partition, or a time: "
        "2026-01-31T12:00:00Z (local time without a zone)",
    )
    add("--partition", type=int, help="only this one")
    add("--count", type=int, metavar="N", help="end after N records")
    add("--exit", action="store_true", help="end at what is the end now; default: wait for more")
    add(
        "--format",
        metavar="TEMPLATE",
        help=f"with {{value}} and the like: {', '.join(_FIELDS)} (default: the value alone)",
    )
    add_connection_arguments(parser, json_help="one JSON object a record")


def run(options: argparse.Namespace) -> int:
    """0, 1 when the cluster refuses or cannot be reached, 2 for options that cannot be meant."""

    async def work(client: KafkaClient) -> int:
        await _consume(client, options)
        return 0

    return run_with_client(options, work)


async def _consume(client: KafkaClient, options: argparse.Namespace) -> None:
    if options.count is not None and options.count < 1:
        raise UsageError(f"--count {options.count}: expected 1 or more")
    _check_template(options.format)
    partitions = list(await client.leaders(options.topic))
    if options.partition is not None:
        partitions = [options.partition]
    ends = await list_offsets(client, options.topic, dict.fromkeys(partitions, LATEST))
    starts = await _starts(client, options.topic, options.start, ends)
    reader = Reader(client, options.topic, starts)
    left = options.count
    while not options.exit or any(reader.positions[each] < ends[each] for each in partitions):
        for fetched in await reader.poll():
            if options.exit and fetched.record.offset >= ends[fetched.partition]:
                continue
            _print(options, fetched)
            if left is not None:
                left -= 1
                if left == 0:
                    sys.stdout.flush()
                    return
        sys.stdout.flush()


async def _starts(
    client: KafkaClient, topic: str, start: str, ends: Mapping[int, int]
) -> dict[int, int]:
    """Partition -> the offset to begin with. Raises UsageError."""
    if start == "end":
        return dict(ends)
    if start.isdecimal():
        return dict.fromkeys(ends, int(start))
    if start == "beginning" or (start[:1] == "-" and start[1:].isdecimal()):
        firsts = await list_offsets(client, topic, dict.fromkeys(ends, EARLIEST))
        if start == "beginning":
            return firsts
        return {each: max(firsts[each], ends[each] + int(start)) for each in ends}
    try:
        timestamp = parse_moment(start)
    except ValueError:
        raise UsageError(
            f"--from {start}: expected beginning, end, an offset, -N, or a time like "
            "2026-01-31T12:00:00Z"
        ) from None
    found = await list_offsets(client, topic, dict.fromkeys(ends, timestamp))
    return {each: ends[each] if found[each] < 0 else found[each] for each in ends}


def _print(options: argparse.Namespace, fetched: FetchedRecord) -> None:
    record = fetched.record
    if options.json:
        print_json(
            {
                "topic": options.topic,
                "partition": fetched.partition,
                "offset": record.offset,
                "timestamp": record.timestamp,
                **_json_bytes("key", record.key),
                **_json_bytes("value", record.value),
                "headers": [
                    {"name": name, **_json_bytes("value", value)} for name, value in record.headers
                ],
            }
        )
    elif options.format is None:
        sys.stdout.buffer.write((record.value or b"") + b"\n")
    else:
        sys.stdout.buffer.write(_fill(options, fetched).encode("utf-8", "surrogateescape") + b"\n")


def _fill(options: argparse.Namespace, fetched: FetchedRecord) -> str:
    record = fetched.record
    moment = datetime.fromtimestamp(max(record.timestamp, 0) / 1000, UTC)
    template: str = options.format
    return (
        template.replace("\\t", "\t")
        .replace("\\n", "\n")
        .format(
            topic=options.topic,
            partition=fetched.partition,
            offset=record.offset,
            timestamp=record.timestamp,
            time=moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            key=_text(record.key),
            value=_text(record.value),
            headers=",".join(f"{name}={_text(value)}" for name, value in record.headers),
        )
    )


def _check_template(template: str | None) -> None:
    try:
        (template or "").format(**dict.fromkeys(_FIELDS, ""))
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise UsageError(
            f"--format {template}: {error}; the fields are {', '.join(_FIELDS)}"
        ) from None


def _text(data: bytes | None) -> str:
    """Bytes that are no UTF-8 come out as they went in; null is nothing."""
    return "" if data is None else data.decode("utf-8", "surrogateescape")


def _json_bytes(name: str, data: bytes | None) -> dict[str, Any]:
    """Text where it is UTF-8, else ``NAME_base64``."""
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data or b"").decode()}
