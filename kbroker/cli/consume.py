"""``kbroker consume``: records of a topic, from anywhere, alone or in a group, to its end or on."""

import argparse
from collections.abc import Mapping
from typing import Final

import anyio

from kbroker.cli.cluster import (
    UsageError,
    add_connection_arguments,
    parse_moment,
    run_with_client,
)
from kbroker.cli.record_output import RecordOutput, add_output_arguments
from kbroker.client.classic_member import ClassicMember
from kbroker.client.client import KafkaClient
from kbroker.client.consumer_member import ConsumerMember
from kbroker.client.group_offsets import TopicPartition, fetch_offsets
from kbroker.client.group_reader import GroupReader, Membership
from kbroker.client.reader import EARLIEST, LATEST, Reader, list_offsets
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

_STARTS: Final = {"beginning": EARLIEST, "end": LATEST}
_LOOK_FOR_PARTITIONS_S: Final = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``kbroker consume``."""
    add = parser.add_argument
    add("topic", metavar="TOPIC")
    add(
        "--from",
        dest="start",
        default="beginning",
        metavar="WHERE",
        help="beginning (default), end, an offset (partitions without it: the nearest), -N for the "
        "last N of each partition, or a time: 2026-01-31T12:00:00Z (local time without a zone); in "
        "a group: beginning or end, where it has committed nothing",
    )
    add("--partition", type=int, help="only this one")
    add("--group", metavar="GROUP", help="as a member of it; what was written out is committed")
    add("--group-protocol", choices=("classic", "consumer"), default="classic", help="KIP-848?")
    add("--group-instance-id", metavar="ID", help="a static member: it may come back unnoticed")
    add("--count", type=int, metavar="N", help="end after N records")
    add("--exit", action="store_true", help="end at what is the end now; default: wait for more")
    add_output_arguments(parser)
    add_connection_arguments(parser, json_help="one JSON object a record")


def run(options: argparse.Namespace) -> int:
    """0, 1 when the cluster refuses or cannot be reached, 2 for options that cannot be meant."""

    async def work(client: KafkaClient) -> int:
        output = RecordOutput(
            options.topic,
            template=options.format,
            as_json=options.json,
            file=options.output,
            count=options.count,
        )
        with output:
            read = _read_alone if options.group is None else _read_in_group
            await read(client, options, output)
        return 0

    return run_with_client(options, work)


async def _read_alone(
    client: KafkaClient, options: argparse.Namespace, output: RecordOutput
) -> None:
    only = None if options.partition is None else [options.partition]
    partitions = only or list(await client.leaders(options.topic))
    ends = await list_offsets(client, options.topic, dict.fromkeys(partitions, LATEST))
    starts = await _starts(client, options.topic, options.start, ends)
    reader = Reader(client, options.topic, starts)
    look_again_at = anyio.current_time() + _LOOK_FOR_PARTITIONS_S
    while not options.exit or any(reader.positions[each] < ends[each] for each in partitions):
        output.write(await reader.poll(), ends=ends if options.exit else None)
        if output.is_complete:
            return
        if not options.exit and only is None and anyio.current_time() >= look_again_at:
            look_again_at = anyio.current_time() + _LOOK_FOR_PARTITIONS_S
            reader.positions |= await _new_partitions(client, options.topic, reader.positions)


async def _new_partitions(
    client: KafkaClient, topic: str, known: Mapping[int, int]
) -> dict[int, int]:
    """Partition -> its first offset, of those that a topic has got since."""
    client.forget(topic)
    new = (await client.leaders(topic, of=())).keys() - known.keys()
    return await list_offsets(client, topic, dict.fromkeys(new, EARLIEST))


async def _starts(
    client: KafkaClient, topic: str, start: str, ends: Mapping[int, int]
) -> dict[int, int]:
    """Partition -> the offset to begin with. Raises UsageError."""
    if start == "end":
        return dict(ends)
    counted = start.removeprefix("-").isdecimal()
    if start == "beginning" or counted:
        firsts = await list_offsets(client, topic, dict.fromkeys(ends, EARLIEST))
        if start == "beginning":
            return firsts
        if start[0] != "-":
            return _nearest(topic, int(start), firsts, ends)
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


def _nearest(
    topic: str, offset: int, firsts: Mapping[int, int], ends: Mapping[int, int]
) -> dict[int, int]:
    """Where each partition begins: at an offset, or what is nearest where others have it.

    Raises KafkaError where no partition has it.
    """
    if not any(firsts[each] <= offset <= ends[each] for each in ends):
        ranges = ", ".join(f"{each}: {firsts[each]} to {ends[each]}" for each in ends)
        raise KafkaError(
            ErrorCode.OFFSET_OUT_OF_RANGE,
            f"topic {topic} has no offset {offset}, only partition {ranges}",
        )
    return {each: min(max(offset, firsts[each]), ends[each]) for each in ends}


async def _read_in_group(
    client: KafkaClient, options: argparse.Namespace, output: RecordOutput
) -> None:
    """Commits behind what was written, before it asks for more."""
    if options.start not in _STARTS or options.partition is not None:
        raise UsageError(
            "--group: a group decides about partitions and goes on where it has committed; "
            "--from beginning or end says where it begins, `kbroker groups reset` moves it"
        )
    partitions = await client.leaders(options.topic)
    ends = await list_offsets(client, options.topic, dict.fromkeys(partitions, LATEST))
    reader = GroupReader(
        client,
        options.group,
        options.topic,
        _member(client, options),
        start=_STARTS[options.start],
    )
    async with reader:
        while not output.is_complete:
            fetched = await reader.poll()
            written = output.write(fetched)
            if fetched:
                # behind the last record there may be a transaction's marker: nobody reads that
                await reader.commit(written if output.is_complete else None)
            elif options.exit and await _is_read(client, options, reader, ends):
                return


def _member(client: KafkaClient, options: argparse.Namespace) -> Membership:
    kind = ClassicMember if options.group_protocol == "classic" else ConsumerMember
    member: Membership = kind(
        client, options.group, [options.topic], instance_id=options.group_instance_id
    )
    return member


async def _is_read(
    client: KafkaClient, options: argparse.Namespace, reader: GroupReader, ends: Mapping[int, int]
) -> bool:
    """Whether the whole group has come to the ends: this member by its positions, others by what
    they have committed, which for a partition without records is nothing.
    """
    if any(position < ends.get(each, 0) for each, position in reader.positions.items()):
        return False
    others = [
        TopicPartition(options.topic, each)
        for each, end in ends.items()
        if end and each not in reader.positions
    ]
    committed = await fetch_offsets(client, options.group, others)
    return all(
        each in committed and committed[each].offset >= ends[each.partition] for each in others
    )
