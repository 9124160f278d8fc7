"""A broker whose system lacks the calls it prefers: no sendfile, no vectored or positional I/O, no
fdatasync, no fcntl, no uvloop, an event loop without watchers on descriptors (as Windows')."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.peers.kbroker_process import KbrokerProcess

if TYPE_CHECKING:
    from pathlib import Path

_HIDE = """
import os, sys
for name in ("pwrite", "pread", "pwritev", "preadv", "writev", "sendfile", "fdatasync",
             "posix_fallocate"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("fcntl", "uvloop"):
    sys.modules[name] = None

class NoWatchers:
    def find_spec(self, name, path=None, target=None):
        if name == "asyncio.selector_events":
            sys.meta_path.remove(self)
            import asyncio.selector_events as module
            def refuse(self, *arguments):
                raise NotImplementedError
            for method in ("add_reader", "add_writer", "remove_reader", "remove_writer"):
                setattr(module.BaseSelectorEventLoop, method, refuse)
        return None

sys.meta_path.insert(0, NoWatchers())
"""
RECORDS = 3000


def test_a_broker_without_them_keeps_every_record(tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(_HIDE)
    broker = KbrokerProcess(tmp_path / "broker", environment={"PYTHONPATH": str(hooks)})
    broker.start()
    try:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic("t", 2)])["t"].result()
        producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
        sent = [b"%d " % number * 200 for number in range(RECORDS)]
        for number, value in enumerate(sent):
            producer.produce("t", value, partition=number % 2)
            producer.poll(0)
        assert producer.flush(30) == 0
        assert sorted(_read(broker.bootstrap)) == sorted(sent)
        broker.kill()
        broker.start()
        assert sorted(_read(broker.bootstrap)) == sorted(sent)
        broker.stop()
        broker.start()
        assert sorted(_read(broker.bootstrap)) == sorted(sent)
        broker.stop()
    finally:
        broker.kill()


def _read(bootstrap: str) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "g",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        consumer.subscribe(["t"])
        values: list[bytes] = []
        while len(values) < RECORDS:
            found = consumer.consume(1000, timeout=20)
            assert found, f"only {len(values)} records came"
            for message in found:
                assert message.error() is None, message.error()
                values.append(message.value() or b"")
        return values
    finally:
        consumer.close()
