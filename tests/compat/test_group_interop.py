"""Consumers of several makers in one group, many at once, killed, paused, and restarted brokers."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("confluent_kafka", reason="interop needs all three clients")
pytest.importorskip("aiokafka", reason="interop needs all three clients")
pytest.importorskip("kafka", reason="interop needs all three clients")

import asyncio

from confluent_kafka import Consumer, TopicPartition

from tests.compat.aiokafka import clients as aiokafka_clients
from tests.compat.confluent_kafka import clients
from tests.compat.kafka_python import clients as kafka_python_clients
from tests.compat.samples import Sample, now_ms
from tests.compat.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.compat.broker_under_test import OwnedBroker

PROTOCOLS = ("classic", "consumer")
SESSION_TIMEOUT_MS = 6000
"""The shortest that the brokers' default settings allow."""


def assigned(consumer: Consumer) -> frozenset[int]:
    """Polls once (librdkafka rebalances inside poll) and returns the assigned partitions."""
    message = consumer.poll(0.02)
    assert message is None or message.error() is None, message.error()
    return frozenset(partition.partition for partition in consumer.assignment())


def are_shared_out(shares: Iterable[frozenset[int]], partitions: int) -> bool:
    """Whether every partition has one owner and the shares differ by one at most."""
    found = list(shares)
    owners = sorted(index for share in found for index in share)
    sizes = [len(share) for share in found]
    return owners == list(range(partitions)) and max(sizes) - min(sizes) <= 1


class InAThread:
    """A kafka-python consumer, or an aiokafka consumer with its loop; polled all the time."""

    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        self.shares: frozenset[int] = frozenset()
        self.read: list[bytes | None] = []
        self._args = bootstrap, topic, group
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        raise NotImplementedError


class KafkaPythonMember(InAThread):
    def _work(self) -> None:
        bootstrap, topic, group = self._args
        settings = {"heartbeat_interval_ms": 300}
        with closing(kafka_python_clients.consumer(bootstrap, group, **settings)) as consumer:
            kafka_python_clients.subscribe(consumer, topic)
            while not self._stop.is_set():
                for batch in consumer.poll(timeout_ms=100).values():
                    self.read += [record.value for record in batch]
                self.shares = frozenset(each.partition for each in consumer.assignment())


class AiokafkaMember(InAThread):
    def _work(self) -> None:
        asyncio.run(self._read())

    async def _read(self) -> None:
        from aiokafka.coordinator.assignors.range import RangePartitionAssignor

        bootstrap, topic, group = self._args
        settings = {
            "heartbeat_interval_ms": 300,
            "partition_assignment_strategy": (RangePartitionAssignor,),
        }
        async with aiokafka_clients.consumer(bootstrap, topic, group=group, **settings) as consumer:
            while not self._stop.is_set():
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    self.read += [record.value for record in batch]
                self.shares = frozenset(each.partition for each in consumer.assignment())


def test_three_makers_in_one_group(bootstrap: str, topic: str, group: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=6)
    read: list[bytes | None] = []
    # Ours leaves first: nobody polls it while the others end, who would wait for it to join again.
    with (
        KafkaPythonMember(bootstrap, topic, group) as second,
        AiokafkaMember(bootstrap, topic, group) as third,
        closing(clients.consumer(bootstrap, group, partition_assignment_strategy="range")) as ours,
    ):
        ours.subscribe([topic])
        eventually(
            lambda: are_shared_out((assigned(ours), second.shares, third.shares), 6),
            what="each has two partitions",
        )
        producer = clients.producer(bootstrap)
        for number in range(6):
            clients.send(producer, topic, [Sample(None, b"%d" % number, now_ms())], number)

        def all_read() -> bool:
            message = ours.poll(0.05)
            if message is not None:
                assert message.error() is None
                read.append(message.value())
            return len(read) + len(second.read) + len(third.read) >= 6

        eventually(all_read, what="each record reaches one member")
        everything = sorted(value or b"" for value in (*read, *second.read, *third.read))
        assert everything == [b"%d" % number for number in range(6)]


def leave_together(members: Iterable[Consumer]) -> None:
    """Have all give up what they own before the first is closed.

    librdkafka 2.16 waits for ever, deaf to signals, in a close() that meets a rebalance: of many
    that are closed in turn, each has the others rebalance.
    """
    members = list(members)
    for member in members:
        member.unsubscribe()
    eventually(lambda: sum(len(assigned(each)) for each in members) == 0, what="nobody owns any")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_consumers_join_at_once(bootstrap: str, topic: str, group: str, protocol: str) -> None:
    count = 50
    clients.create_topic(bootstrap, topic, partitions=count)
    with ExitStack() as stack:
        members = [
            stack.enter_context(
                closing(clients.consumer(bootstrap, group, group_protocol=protocol))
            )
            for _ in range(count)
        ]
        for member in members:
            member.subscribe([topic])
        eventually(
            lambda: are_shared_out([assigned(member) for member in members], count),
            what="each has one partition",
            timeout_s=90,
        )
        leave_together(members)


@pytest.mark.parametrize("way", ["upgrade", "downgrade"])
def test_a_group_changes_its_protocol_member_by_member(
    bootstrap: str, topic: str, group: str, way: str
) -> None:
    """KIP-848's online migration: no record is lost or read twice while members are replaced."""
    before, after = PROTOCOLS if way == "upgrade" else reversed(PROTOCOLS)
    clients.create_topic(bootstrap, topic, partitions=4)
    producer = clients.producer(bootstrap)
    read: list[str] = []
    members: list[Consumer] = []

    def poll(member: Consumer) -> frozenset[int]:
        message = member.poll(0.02)
        if message is not None:
            assert message.error() is None, message.error()
            value = message.value()
            assert isinstance(value, bytes)
            read.append(value.decode())
            member.commit(message, asynchronous=False)
        return frozenset(partition.partition for partition in member.assignment())

    def join(protocol: str) -> None:
        settings = {"partition_assignment_strategy": "range"} if protocol == "classic" else {}
        member = clients.consumer(bootstrap, group, group_protocol=protocol, **settings)
        members.append(member)
        member.subscribe([topic])

    def settle(stage: str) -> None:
        eventually(
            lambda: are_shared_out([poll(member) for member in members], 4), what=f"{stage}: shared"
        )
        sent = [f"{stage} {number}" for number in range(4)]
        for number, value in enumerate(sent):
            clients.send(producer, topic, [Sample(None, value.encode(), now_ms())], number)

        def all_read() -> bool:
            for member in members:
                poll(member)
            return set(sent) <= set(read)

        eventually(all_read, what=f"{stage}: read")

    try:
        join(before)
        join(before)
        settle("old")
        for number in range(2):
            join(after)
            settle(f"joined {number}")
            members.pop(0).close()
            settle(f"replaced {number}")
    finally:
        for member in members:
            member.close()
    assert len(read) == len(set(read)) == 20


VICTIM = """
import sys
from confluent_kafka import Consumer
bootstrap, topic, group, session = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group,
    "session.timeout.ms": session, "auto.offset.reset": "earliest", "enable.auto.commit": False})
consumer.subscribe([topic])
while len(consumer.assignment()) < 3:
    consumer.poll(0.1)
print("owner", flush=True)
while True:
    consumer.poll(1)
"""


def test_a_consumer_that_is_killed_loses_its_partitions(
    bootstrap: str, topic: str, group: str
) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)
    arguments = (bootstrap, topic, group, str(SESSION_TIMEOUT_MS))
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, *arguments], stdout=subprocess.PIPE
    ) as victim:
        try:
            assert victim.stdout is not None and victim.stdout.readline() == b"owner\n"
        finally:
            victim.kill()
    killed = time.monotonic()
    with closing(clients.consumer(bootstrap, group, session_timeout_ms=SESSION_TIMEOUT_MS)) as heir:
        heir.subscribe([topic])
        eventually(lambda: len(assigned(heir)) == 3, what="the heir owns all")
    assert time.monotonic() - killed > SESSION_TIMEOUT_MS / 1000 / 2, "its session was not over"


def test_a_consumer_that_pauses_past_its_poll_limit_loses_its_partitions_and_comes_back(
    bootstrap: str, topic: str, group: str
) -> None:
    """kafka-python's heartbeat thread sees the limit passed and leaves (KIP-62)."""
    kafka_python_clients.create_topic(bootstrap, topic, partitions=2)
    settings = {"max_poll_interval_ms": 1000, "heartbeat_interval_ms": 300}
    with (
        closing(kafka_python_clients.consumer(bootstrap, group, **settings)) as paused,
        closing(clients.consumer(bootstrap, group)) as heir,
    ):
        kafka_python_clients.subscribe(paused, topic)

        def owned() -> int:
            paused.poll(timeout_ms=50)
            return len(paused.assignment())

        eventually(lambda: owned() == 2, what="the member owns all")
        heir.subscribe([topic])  # and the other one is not polled from here on
        eventually(lambda: len(assigned(heir)) == 2, what="the heir owns all")
        # both are polled in any case: a member that waits for a rebalance waits for the other
        eventually(
            lambda: (owned(), len(assigned(heir))) == (1, 1), what="the member takes part again"
        )


@pytest.fixture
def two_members(owned_broker: OwnedBroker) -> Iterator[Any]:
    """Makes consumers of a broker that will be killed, and closes them."""
    with ExitStack() as stack:

        def member(protocol: str) -> Consumer:
            consumer = clients.consumer(
                owned_broker.bootstrap, "g", group_protocol=protocol, reconnect_backoff_max_ms=500
            )
            return stack.enter_context(closing(consumer))

        yield member


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_coordinator_that_dies_in_the_middle_of_a_rebalance(
    owned_broker: OwnedBroker, two_members: Any, protocol: str
) -> None:
    """What was committed is there afterwards, and the rebalance ends."""
    clients.create_topic(owned_broker.bootstrap, "kept", partitions=4)
    producer = clients.producer(owned_broker.bootstrap)
    for partition in range(4):
        clients.send(producer, "kept", [Sample(None, b"v", now_ms())] * 5, partition)
    first = two_members(protocol)
    first.subscribe(["kept"])
    clients.receive(first, 20)
    first.commit(offsets=[TopicPartition("kept", n, 2 + n) for n in range(4)], asynchronous=False)
    second = two_members(protocol)
    second.subscribe(["kept"])
    second.poll(0.5)  # it has joined, or is about to; the first one does not answer while unpolled
    owned_broker.kill()
    owned_broker.start()

    def shared() -> bool:
        shares = []
        for member in (first, second):
            member.poll(0.05)  # errors of the connection are events here
            shares.append(frozenset(each.partition for each in member.assignment()))
        return are_shared_out(shares, 4)

    eventually(shared, what="both own a half", timeout_s=4 * PATIENCE_S)
    asked = [TopicPartition("kept", n) for n in range(4)]
    found = [each.offset for each in second.committed(asked, timeout=PATIENCE_S)]
    assert found == [2, 3, 4, 5]
