"""Brokers in the caller's process: what they do, what they leave alone, what they leave behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, Producer

from kbroker import Broker, BrokerThread
from kbroker.embedded import StartError
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.sizes import size
from tests.wire.connection import Conn

ROUNDS = size(ci=60, full=1000)
LIVENESS_S = 30


def test_a_blocking_client_beside_a_thread():
    with BrokerThread() as broker:
        broker.create_topic("orders", partitions=3, config={"retention.ms": 1000_000})
        assert broker.produce("orders", "one", key="k", headers=[("h", b"1")]) == (2, 0)
        consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                "group.id": "g",
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe(["orders"])
        message = consumer.poll(LIVENESS_S)
        assert (message.key(), message.value()) == (b"k", b"one")
        consumer.close()
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        producer.produce("answers", b"two")
        assert producer.flush(LIVENESS_S) == 0
        (record,) = broker.consume("answers", count=1)
        assert (record.topic, record.partition, record.offset) == ("answers", 0, 0)
        assert record.value == b"two"


def test_consume_waits_for_a_topic_that_is_not_there_yet():
    with BrokerThread() as broker:
        later = threading.Timer(0.3, broker.produce, ("late", b"x"))
        later.start()
        (record,) = broker.consume("late", count=1, timeout_s=LIVENESS_S)
        assert record.value == b"x"
        later.join()
        with pytest.raises(TimeoutError, match="holds 1 records"):
            broker.consume("late", count=2, timeout_s=0.2)
        assert broker.consume("never") == []


def test_errors_reach_the_caller():
    with BrokerThread() as broker:
        broker.create_topic("t")
        with pytest.raises(KafkaError) as raised:
            broker.create_topic("t")
        assert raised.value.error_code == ErrorCode.TOPIC_ALREADY_EXISTS
        with pytest.raises(KafkaError) as raised:
            broker.produce("t", b"x", partition=7)
        assert raised.value.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    with pytest.raises(RuntimeError, match="with BrokerThread"):
        broker.produce("t", b"x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(StartError, match="cannot listen"):
            BrokerThread(port=taken.getsockname()[1]).start()
    with pytest.raises(StartError, match="no authorizer"):
        BrokerThread(settings={"authorizer.class.name": "x.Y"})


def test_a_directory_keeps_what_was_produced(tmp_path):
    for number in range(3):
        with BrokerThread(data_dir=tmp_path / "data") as broker:
            assert broker.produce("t", str(number)) == (0, number)
            with pytest.raises(StartError, match="in use"):
                BrokerThread(data_dir=tmp_path / "data").start()
    with BrokerThread(data_dir=tmp_path / "data") as broker:
        assert [record.value for record in broker.consume("t")] == [b"0", b"1", b"2"]


def test_an_async_client_on_the_same_loop():
    async def main():
        async with Broker() as broker:
            await broker.create_topic("t")
            producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
            await producer.start()
            sent = await producer.send_and_wait("t", b"x", key=b"k")
            await producer.stop()
            assert (await broker.consume("t", count=1))[0].offset == sent.offset
            consumer = AIOKafkaConsumer(
                "t",
                bootstrap_servers=broker.bootstrap_servers,
                group_id="g",
                auto_offset_reset="earliest",
            )
            await consumer.start()
            message = await asyncio.wait_for(consumer.getone(), LIVENESS_S)
            await consumer.stop()
            assert message.value == b"x"

    asyncio.run(main())


def process_state() -> dict[str, object]:
    """What a library must not touch."""
    return {
        "signals": {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)},
        "handlers": list(logging.getLogger().handlers),
        "level": logging.getLogger().level,
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "policy": asyncio.get_event_loop_policy(),
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "umask": _umask(),
        "directory": Path.cwd(),
        "hooks": (sys.excepthook, threading.excepthook),
    }


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def test_the_process_is_left_alone():
    before = process_state()
    with BrokerThread() as broker:
        broker.produce("t", b"x")
        assert process_state() == before

    async def main():
        async with Broker() as own:
            await own.produce("t", b"x")
            assert process_state() == before

    asyncio.run(main())
    assert process_state() == before


def test_many_brokers_side_by_side():
    brokers = [BrokerThread() for _ in range(20)]
    try:
        for broker in brokers:
            broker.start()
        for number, broker in enumerate(brokers):
            broker.produce("t", str(number))
        for number, broker in enumerate(brokers):
            assert [record.value for record in broker.consume("t")] == [str(number).encode()]
        assert len({broker.bootstrap_servers for broker in brokers}) == len(brokers)
        assert len({broker.cluster_id for broker in brokers}) == len(brokers)
    finally:
        for broker in brokers:
            broker.stop()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def one_round(broker: BrokerThread) -> None:
    broker.produce("t", b"x")
    host, _, port = broker.bootstrap_servers.rpartition(":")
    connection = Conn(host, int(port))
    connection.send("Metadata", 12, {"Topics": None})
    assert connection.recv(LIVENESS_S)[4]["Topics"]
    connection.close()


def assert_no_leak(rounds) -> None:
    """``rounds(n)`` starts and closes n brokers; nothing of them may stay."""
    rounds(5)  # whatever is imported and cached once
    gc.collect()
    descriptors, threads = open_descriptors(), threading.active_count()
    tracemalloc.start()
    try:
        rounds(5)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        rounds(ROUNDS)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert open_descriptors() == descriptors
    assert threading.active_count() == threads
    assert grown < 100_000 + ROUNDS * 200, f"{grown} bytes more after {ROUNDS} brokers"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count descriptors")
@pytest.mark.timeout(300)
def test_threads_leave_nothing_behind():
    def rounds(count: int) -> None:
        for _ in range(count):
            with BrokerThread() as broker:
                one_round(broker)

    assert_no_leak(rounds)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count descriptors")
@pytest.mark.timeout(300)
def test_brokers_on_a_loop_leave_nothing_behind():
    async def main(count: int) -> None:
        tasks = len(asyncio.all_tasks())
        for _ in range(count):
            async with Broker() as broker:
                await broker.produce("t", b"x")
        assert len(asyncio.all_tasks()) == tasks

    assert_no_leak(lambda count: asyncio.run(main(count)))


def test_a_blocked_loop_is_named_once(caplog, monkeypatch):
    monkeypatch.setattr("kbroker.embedded.BLOCKED_AFTER_S", 0.2)

    async def main():
        async with Broker() as broker:
            host, _, port = broker.bootstrap_servers.rpartition(":")
            with socket.create_connection((host, int(port))) as client:
                client.sendall(b"\0\0\0\x0a")
                time.sleep(1.5)  # what a blocking client does to this loop
            time.sleep(1.0)

    with caplog.at_level(logging.WARNING, "kbroker.embedded"):
        asyncio.run(main())
    told = [record for record in caplog.records if "BrokerThread" in record.getMessage()]
    assert len(told) == 1


def test_a_busy_loop_without_a_waiting_client_is_not_named(caplog, monkeypatch):
    monkeypatch.setattr("kbroker.embedded.BLOCKED_AFTER_S", 0.2)

    async def main():
        async with Broker():
            time.sleep(1.0)

    with caplog.at_level(logging.WARNING, "kbroker.embedded"):
        asyncio.run(main())
    assert not caplog.records


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_closes_its_copy(tmp_path):
    broker = BrokerThread(data_dir=tmp_path / "data")
    broker.start()
    port = int(broker.bootstrap_servers.rpartition(":")[2])
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # lives until the parent says so
        os._exit(0)
    os.close(read)
    try:
        broker.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with BrokerThread(data_dir=tmp_path / "data") as again:  # the lock is free as well
            again.produce("t", b"x")
    finally:
        os.close(write)
        os.waitpid(child, 0)
