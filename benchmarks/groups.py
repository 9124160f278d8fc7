"""Groups: the first record of a fresh one, rebalances of many members, commits, memory.

Many members are the project's own client, a connection each for its group: lighter than any other
Python client, and the same for every broker. Assignment costs are the leader's, so the client's.
"""

from __future__ import annotations

import time
import uuid
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from functools import partial
from struct import pack
from typing import TYPE_CHECKING, Any

import anyio

from benchmarks import throughput
from benchmarks.load import Load, keep_busy
from benchmarks.process_stats import cpu_seconds, rss_mb
from benchmarks.small_requests import wait_until_led
from benchmarks.wire_requests import CLIENT_ID
from kbroker.client.classic_member import ClassicMember
from kbroker.client.client import KafkaClient
from kbroker.client.consumer_member import ConsumerMember
from kbroker.client.group_offsets import CommittedOffset, TopicPartition, commit_offsets
from kbroker.protocol import registry
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from benchmarks.brokers import MeasuredBroker
    from benchmarks.table import Figures

    Measure = Callable[["MeasuredBroker", "Figures", Any], None]

COMMIT_CONNECTIONS = 32
COMMIT_VERSION = 7
FIRST_RECORDS = 5
GROUPS = 1000
MEMBERS = (10, 100)
MANY_MEMBERS = 1000
MANY_ROUNDS = 2
PARTITIONS = 100
PATIENCE_S = 120.0
HEARTBEATS_PER_S = 1000
"""Of all members together, but each sends one every 100 ms at most: the client must keep up."""


@dataclass(frozen=True)
class Rebalance:
    """From the first request of it until the last member knows what it owns."""

    seconds: float
    broker_cpu_s: float


def subjects() -> Iterator[tuple[str, Measure]]:
    """(name, how to measure one broker once); the third argument has ``rounds`` (1: a look)."""
    yield "groups memory", _memory
    yield "groups first record", _first_record
    for count in (*MEMBERS, MANY_MEMBERS):
        yield f"groups rebalance of {count}", partial(_rebalance, count)
        yield f"groups join of {count}", partial(_join, count)
    yield "groups commits", _commits


def _first_record(broker: MeasuredBroker, figures: Figures, size: Any) -> None:
    topic = _topic(broker, 1)
    throughput.produce(broker, topic, records=1)
    line = figures.line("fresh group to its first record", "ms", digits=0, target="ratio <= 1")
    for _ in range(FIRST_RECORDS):
        line.add(broker.name, first_record_s(broker.bootstrap, topic) * 1000)


def _rebalance(count: int, broker: MeasuredBroker, figures: Figures, size: Any) -> None:
    name = f"rebalance of {count:,} members, classic"
    _measure_members(name, rebalance, count, broker, figures, size)


def _join(count: int, broker: MeasuredBroker, figures: Figures, size: Any) -> None:
    name = f"{count:,} members join at once, consumer protocol"
    _measure_members(name, join_at_once, count, broker, figures, size)


def _measure_members(
    name: str, work: Any, count: int, broker: MeasuredBroker, figures: Figures, size: Any
) -> None:
    """A thousand members take a minute: not for a look, and not in every round."""
    if count == MANY_MEMBERS and size.rounds == 1:
        return
    line = figures.line(name, "ms", digits=0)
    if count == MANY_MEMBERS and len(line.values.get(broker.name, ())) >= MANY_ROUNDS:
        return
    took = anyio.run(work, broker, _topic(broker, PARTITIONS), count)
    line.add(broker.name, took.seconds * 1000)
    _add_cpu(name, took, count, broker, figures)


def _add_cpu(
    name: str, took: Rebalance, count: int, broker: MeasuredBroker, figures: Figures
) -> None:
    line = figures.line(f"{name}: CPU", "us/member", digits=0)
    line.add(broker.name, took.broker_cpu_s * 1e6 / count)


def _commits(broker: MeasuredBroker, figures: Figures, size: Any) -> None:
    load = commits(broker, _topic(broker, 1), count=size.requests)
    name = f"commits from {COMMIT_CONNECTIONS} connections"
    figures.line(name, "requests/s", digits=0).add(broker.name, load.requests_per_s)
    figures.line(f"{name}: CPU", "us/request").add(broker.name, load.cpu_us_per_request)


def _memory(broker: MeasuredBroker, figures: Figures, size: Any) -> None:
    grown = anyio.run(memory_mb, broker, _topic(broker, 1), GROUPS)
    figures.line(f"memory of {GROUPS:,} groups", "MB").add(broker.name, grown)


def _topic(broker: MeasuredBroker, partitions: int) -> str:
    topic = f"groups-{uuid.uuid4().hex[:8]}"
    throughput.create_topic(broker.bootstrap, topic, partitions)
    # A leader that does not see the topic yet gives nothing to anybody, and nothing makes it join
    # again: Apache Kafka's brokers hear of a topic a moment after it was made.
    wait_until_led(broker, topic)
    return topic


def _fresh_group() -> str:
    return f"group-{uuid.uuid4().hex[:12]}"


def first_record_s(bootstrap: str, topic: str) -> float:
    """From making a consumer of a new group to its first record; confluent-kafka's defaults."""
    from confluent_kafka import Consumer

    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": _fresh_group(),
        "auto.offset.reset": "earliest",
    }
    started = time.perf_counter()
    with closing(Consumer(settings)) as consumer:
        consumer.subscribe([topic])
        message = consumer.poll(PATIENCE_S)
        if message is None or message.error() is not None:
            raise TimeoutError(f"no record: {message and message.error()}")
        return time.perf_counter() - started


def heartbeat_interval_s(members: int) -> float:
    """How often each of so many sends one."""
    return max(0.1, members / HEARTBEATS_PER_S)


class _Members:
    """Members in tasks of this loop; heartbeats keep those that wait for the others."""

    def __init__(self, members: Sequence[ClassicMember | ConsumerMember]) -> None:
        self.members = list(members)
        self._interval_s = heartbeat_interval_s(len(members))
        self.owned: dict[Any, list[int]] = {}

    async def join(self, member: ClassicMember | ConsumerMember) -> None:
        assignment = await member.join()
        self.owned[member] = [index for indexes in assignment.values() for index in indexes]

    async def join_all(self) -> None:
        """Once each, at the same time."""
        async with anyio.create_task_group() as tasks:
            for member in self.members:
                tasks.start_soon(self.join, member)

    async def settle(self) -> None:
        """Heartbeats and joins until every partition has one owner, and all know it."""
        async with anyio.create_task_group() as tasks:
            for member in self.members:
                tasks.start_soon(self._keep, member)
            with anyio.fail_after(PATIENCE_S):
                while not self.is_settled:  # noqa: ASYNC110 - looked at seldom: it takes time
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    @property
    def is_settled(self) -> bool:
        found = [self.owned.get(member) for member in self.members]
        if None in found:
            return False
        epochs = {member.identity.generation_id for member in self.members}
        owners = sorted(index for each in found if each for index in each)
        return len(epochs) == 1 and owners == list(range(PARTITIONS))

    async def _keep(self, member: ClassicMember | ConsumerMember) -> None:
        if member not in self.owned:
            await self.join(member)
        while True:
            await anyio.sleep(self._interval_s)
            with anyio.CancelScope(shield=True):  # a request that is cut off costs the connection
                if not await member.heartbeat():
                    await self.join(member)


async def _clients(stack: AsyncExitStack, bootstrap: str, count: int) -> list[KafkaClient]:
    """With their connections made, which is no part of any figure."""
    clients = [
        await stack.enter_async_context(KafkaClient(bootstrap, timeout_s=PATIENCE_S))
        for _ in range(count)
    ]
    for client in clients:
        await client.connection()
    return clients


async def rebalance(broker: MeasuredBroker, topic: str, count: int) -> Rebalance:
    """One more member joins a settled group of ``count``, and everybody joins again at once.

    That they hear of it at a heartbeat is left out: how often these are sent, clients choose.
    """
    group = _fresh_group()
    async with AsyncExitStack() as stack:
        clients = await _clients(stack, broker.bootstrap, count + 1)
        *members, newcomer = (
            ClassicMember(client, group, [topic], rebalance_timeout_ms=int(PATIENCE_S * 1000))
            for client in clients
        )
        old = _Members(members)
        await old.settle()
        everybody = _Members([*members, newcomer])
        await clients[-1].group_connection(group)
        cpu, started = cpu_seconds(broker.pid), time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(everybody.join, newcomer)
            while await members[0].heartbeat():  # noqa: ASYNC110 - the broker tells nobody
                await anyio.sleep(0.001)
            for member in members:
                tasks.start_soon(everybody.join, member)
        took = time.perf_counter() - started
        used = cpu_seconds(broker.pid) - cpu
        if not everybody.is_settled:
            raise RuntimeError("the rebalance has not shared out every partition")
        await _each(everybody.members, lambda member: member.leave())
        return Rebalance(took, used)


async def join_at_once(broker: MeasuredBroker, topic: str, count: int) -> Rebalance:
    """A fresh group of the consumer protocol, whose broker assigns (KIP-848)."""
    group = _fresh_group()
    async with AsyncExitStack() as stack:
        clients = await _clients(stack, broker.bootstrap, count)
        everybody = _Members([ConsumerMember(client, group, [topic]) for client in clients])
        cpu, started = cpu_seconds(broker.pid), time.perf_counter()
        await everybody.settle()
        took = Rebalance(time.perf_counter() - started, cpu_seconds(broker.pid) - cpu)
        await _each(everybody.members, lambda member: member.leave())
        return took


async def _each(members: Sequence[Any], work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async with anyio.create_task_group() as tasks:
        for member in members:
            tasks.start_soon(work, member)


def commits(broker: MeasuredBroker, topic: str, *, count: int) -> Load:
    """One offset a request, of groups without members, one request under way on each connection."""
    groups = [_fresh_group() for _ in range(COMMIT_CONNECTIONS)]
    anyio.run(_commit_once, broker.bootstrap, topic, groups)  # the coordinators are there
    return keep_busy(
        broker,
        [commit_request(group, topic, 1) for group in groups],
        connections=COMMIT_CONNECTIONS,
        count=count,
        check=lambda answer: check_committed(answer, topic),
    )


async def _commit_once(bootstrap: str, topic: str, groups: Sequence[str]) -> None:
    async with KafkaClient(bootstrap) as client:
        for group in groups:
            offset = {TopicPartition(topic, 0): CommittedOffset(0)}
            await commit_offsets(client, group, offset)


def commit_request(group: str, topic: str, offset: int) -> bytes:
    """A framed OffsetCommit of partition 0 in nobody's name."""
    partition = OffsetCommitRequestPartition(0, offset)
    request = OffsetCommitRequest(
        group, topics=[OffsetCommitRequestTopic(topic, partitions=[partition])]
    )
    parts: list[Any] = [
        pack(">hhih", ApiKey.OFFSET_COMMIT, COMMIT_VERSION, 1, len(CLIENT_ID)),
        CLIENT_ID,
    ]
    registry.write_request(ApiKey.OFFSET_COMMIT, COMMIT_VERSION, request, parts)
    body = b"".join(parts)
    return pack(">i", len(body)) + body


def check_committed(answer: memoryview | bytes, topic: str) -> None:
    """Raises ValueError unless the one partition answered without an error."""
    # correlation id, throttle time, one topic, its name, one partition: index, error code
    position = 4 + 4 + 4 + 2 + len(topic.encode()) + 4 + 4
    error_code = int.from_bytes(answer[position : position + 2], "big", signed=True)
    if error_code:
        raise ValueError(f"OffsetCommit answered {error_code=}")


async def memory_mb(broker: MeasuredBroker, topic: str, count: int) -> float:
    """How much the broker grows by so many groups of one member and one committed offset."""
    async with KafkaClient(broker.bootstrap, timeout_s=PATIENCE_S) as client:
        await _join_and_commit(client, topic, 1)
        before = rss_mb(broker.pid)
        await _join_and_commit(client, topic, count)
        return rss_mb(broker.pid) - before


async def _join_and_commit(client: KafkaClient, topic: str, count: int) -> None:
    for _ in range(count):
        group = _fresh_group()
        member = ClassicMember(client, group, [topic], session_timeout_ms=300_000)
        await member.join()
        offset = {TopicPartition(topic, 0): CommittedOffset(1, metadata="m")}
        await commit_offsets(client, group, offset, member=member.identity)
