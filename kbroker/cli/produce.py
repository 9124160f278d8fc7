"""``kbroker produce``: lines of standard input, or whole files, become records of a topic."""

import argparse
import io
import os
import select
import stat
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from kbroker.cli.cluster import (
    UsageError,
    add_connection_arguments,
    parse_assignments,
    print_json,
    run_with_client,
)
from kbroker.cli.progress import Progress
from kbroker.client.client import KafkaClient
from kbroker.client.producer import ACKS_ALL, ACKS_LEADER, ACKS_NONE, Producer
from kbroker.common.clock import SystemClock
from kbroker.common.offload import Offload, ThreadOffload
from kbroker.protocol.errors import KafkaError
from kbroker.record.compression import CODEC_IDS
from kbroker.record.record import Record

_ACKS: Final = {"0": ACKS_NONE, "1": ACKS_LEADER, "all": ACKS_ALL}
_CHUNK_BYTES: Final = 256 * 1024
_LONGEST_LINE_BYTES: Final = 64 * 1024 * 1024
_LOOK_UP_S: Final = 0.2
"""How often a wait for input looks up, so that Ctrl-C ends it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``kbroker produce``."""
    add = parser.add_argument
    add("topic", metavar="TOPIC")
    add(
        "files",
        nargs="*",
        metavar="FILE",
        help="each file is one record; without files each line of standard input is one",
    )
    add(
        "--lines",
        action="append",
        default=[],
        metavar="FILE",
        help="each line of this file is one record; may be repeated",
    )
    add("--key-separator", metavar="TEXT", help="a line is KEY, this text, VALUE")
    add("--key", metavar="TEXT", help="the key of every record")
    add(
        "--header",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a header of every record; may be repeated",
    )
    add("--null", metavar="TEXT", help="a key or value that is this text is null: a tombstone")
    add("--partition", type=int, help="default: by key as Java does, else in turn")
    add("--compression", choices=tuple(CODEC_IDS), default="none", help="default none")
    add("--acks", choices=tuple(_ACKS), default="all", help="default all: idempotent")
    add_connection_arguments(parser, json_help="print the count as JSON")


def parse_arguments(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Options may stand between the topic and the files."""
    return parser.parse_intermixed_args(words)


def run(options: argparse.Namespace) -> int:
    """0, 1 when the cluster refuses or cannot be reached, 2 for options that cannot be meant."""

    async def work(client: KafkaClient) -> int:
        await _produce(client, options)
        return 0

    return run_with_client(options, work)


async def _produce(client: KafkaClient, options: argparse.Namespace) -> None:
    if options.files and options.lines:
        raise UsageError("either FILEs, each one record, or --lines FILE")
    if options.key_separator == "":
        raise UsageError("--key-separator: expected at least one character")
    headers = [
        (name, os.fsencode(value))
        for header in options.header  # one by one: a name may come twice
        for name, value in parse_assignments("--header", [header]).items()
    ]
    key = None if options.key is None else os.fsencode(options.key)
    separator = None if options.key_separator is None else os.fsencode(options.key_separator)
    null = None if options.null is None else os.fsencode(options.null)
    producer = Producer(
        client,
        options.topic,
        acks=_ACKS[options.acks],
        compression=CODEC_IDS[options.compression],
    )
    clock = SystemClock()
    count = 0
    names = [*options.files, *options.lines]
    typed = not names and sys.stdin.isatty()  # what one types is not to be written over
    with Progress(total_bytes=_input_bytes(names), shown=not typed) as progress:
        async for batch in _input(options):
            records: list[Record] = []
            for value in batch:
                record_key = key
                if separator is not None and not options.files:
                    record_key, found, value = value.partition(separator)
                    if not found:
                        raise UsageError(
                            f"line {count + len(records) + 1} has no {options.key_separator!r}; "
                            f"{count} records were written"
                        )
                records.append(
                    Record(
                        key=None if record_key == null else record_key,
                        value=None if value == null else value,
                        headers=headers,
                        timestamp=clock.time_ms(),
                    )
                )
            await _send(producer, records, options.partition, count)
            count += len(records)
            progress.advance(records=len(records), input_bytes=sum(map(len, batch)) + len(batch))
    if options.json:
        print_json({"topic": options.topic, "records": count})
    else:
        print(f"{count} record{'' if count == 1 else 's'} to {options.topic}", file=sys.stderr)


async def _send(
    producer: Producer, records: Sequence[Record], partition: int | None, written: int
) -> None:
    try:
        await producer.send(records, partition=partition)
    except KafkaError as error:
        if not written:
            raise
        told = [error.message] if error.message else []
        told.append(f"what was written before it: {written}")
        raise KafkaError(error.error_code, "; ".join(told)) from error


def _input_bytes(names: Sequence[str]) -> int | None:
    """How much there is to read; None where only the end will tell (a pipe, a terminal)."""
    try:
        found = [os.stat(name) for name in names] or [os.fstat(sys.stdin.fileno())]
    except OSError:
        return None  # whoever opens it says so
    if not all(stat.S_ISREG(each.st_mode) for each in found):
        return None
    return sum(each.st_size for each in found)


async def _input(options: argparse.Namespace) -> AsyncIterator[list[bytes]]:
    """The values of some records at a time. Raises UsageError for a file that is not there."""
    offload = ThreadOffload(1)
    if not options.files and not options.lines:
        async for lines in _lines(offload, _read_input, "standard input"):
            yield lines
    name = ""
    try:
        for name in options.files:
            yield [await offload.run(Path(name).read_bytes)]
        for name in options.lines:
            with await offload.run(partial(io.FileIO, name)) as file:
                async for lines in _lines(offload, partial(file.read, _CHUNK_BYTES), name):
                    yield lines
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error


async def _lines(
    offload: Offload, read: Callable[[], bytes | None], name: str
) -> AsyncIterator[list[bytes]]:
    """Whole lines without their ends, as they arrive; the last one may lack its end."""
    parts: list[bytes] = []  # of a line whose end has not come
    while True:
        chunk = await offload.run(read)
        if chunk is None:
            continue
        if not chunk:
            break
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join((*parts, lines[0]))
            parts.clear()
            yield [line.removesuffix(b"\r") for line in lines]
        parts.append(rest)
        if sum(map(len, parts)) > _LONGEST_LINE_BYTES:
            raise UsageError(f"a line of {name} exceeds {_LONGEST_LINE_BYTES} bytes")
    if rest := b"".join(parts):
        yield [rest.removesuffix(b"\r")]


def _read_input() -> bytes | None:
    """What standard input holds: b"" at its end, None when nothing came for a moment."""
    descriptor = sys.stdin.fileno()
    if os.name == "posix" and not select.select([descriptor], [], [], _LOOK_UP_S)[0]:
        return None
    return os.read(descriptor, _CHUNK_BYTES)
