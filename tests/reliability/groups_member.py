"""One member of a consumer group as a process of its own: it may be killed, stopped, continued.

``python -m tests.reliability.groups_member KIND BOOTSTRAP GROUP TOPIC NAME``. Tells what it does in
JSON lines (see ``groups_history``): what it reads before it commits it, what it owns in the
callbacks, and each commit with the times at which it was sent and acknowledged. SIGTERM lets it
leave the group in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from tests.reliability.groups_settings import (
    COMMIT_TIMEOUT_S,
    HEARTBEAT_S,
    MEMBER_KINDS,
    SESSION_S,
    MemberKind,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

POLL_S = 0.1
AT_MOST = 200


def end_with_the_campaign() -> None:
    """The campaign holds our standard input: when it is gone, so are we."""
    os.read(0, 1)
    os._exit(1)


def tell(event: str, **fields: Any) -> None:
    """One line for the campaign; times are those of the clock that all processes share."""
    print(json.dumps({"e": event, "t": time.monotonic(), **fields}), flush=True)


class Client(Protocol):
    """A consumer: calls ``owns`` and ``loses`` from within its poll."""

    def poll(self) -> list[tuple[int, int, bytes]]: ...

    def commit(self, positions: dict[int, int]) -> None: ...

    def close(self) -> None: ...


class Member:
    """What it owns, how far it has read, and what it has told."""

    def __init__(self) -> None:
        self.owned: set[int] = set()
        self.positions: dict[int, int] = {}
        self.client: Client | None = None

    def owns(self, partitions: Iterable[int]) -> None:
        added = sorted(partitions)
        tell("assigned", partitions=added)
        self.owned.update(added)
        for partition in added:
            self.positions.pop(partition, None)

    def gives_back(self, partitions: Iterable[int]) -> None:
        """The group wants them: the last chance to commit."""
        self.commit()
        self.loses(partitions)

    def loses(self, partitions: Iterable[int]) -> None:
        gone = sorted(partitions)
        tell("revoked", partitions=gone)
        self.owned.difference_update(gone)
        for partition in gone:
            self.positions.pop(partition, None)

    def read(self, records: list[tuple[int, int, bytes]]) -> None:
        runs: dict[int, list[tuple[int, bytes]]] = {}
        for partition, offset, value in records:
            runs.setdefault(partition, []).append((offset, value))
        for partition, run in runs.items():
            newest = float(run[-1][1].split(b";")[0])
            tell("read", partition=partition, offsets=[o for o, _ in run], produced_at=newest)
            if partition in self.owned:
                self.positions[partition] = run[-1][0] + 1

    def commit(self) -> None:
        positions = {p: o for p, o in self.positions.items() if p in self.owned}
        if not positions or self.client is None:
            return
        sent_at = time.monotonic()
        try:
            self.client.commit(positions)
        except Exception as error:
            tell("not_committed", error=repr(error)[:200])
        else:
            tell("committed", sent_at=sent_at, offsets=positions)
            self.positions = {}


class ConfluentClient:
    """confluent-kafka: both protocols, eager and cooperative."""

    def __init__(
        self, kind: MemberKind, bootstrap: str, group: str, topic: str, name: str, member: Member
    ) -> None:
        from confluent_kafka import Consumer

        settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "client.id": name,
            "group.protocol": kind.protocol,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
            "topic.metadata.refresh.interval.ms": 5_000,
            "max.poll.interval.ms": int(SESSION_S * 1000),
            "socket.timeout.ms": int(COMMIT_TIMEOUT_S * 1000),
            "log_level": 0,
        }
        if kind.protocol == "classic":
            settings |= {
                "session.timeout.ms": int(SESSION_S * 1000),
                "heartbeat.interval.ms": int(HEARTBEAT_S * 1000),
                "partition.assignment.strategy": kind.assignor,
            }
        self._topic = topic
        self._consumer = Consumer(settings)
        self._consumer.subscribe(
            [topic],
            on_assign=lambda _, found: member.owns(p.partition for p in found),
            on_revoke=lambda _, found: member.gives_back(p.partition for p in found),
            on_lost=lambda _, found: member.loses(p.partition for p in found),
        )

    def poll(self) -> list[tuple[int, int, bytes]]:
        found = []
        for message in self._consumer.consume(AT_MOST, POLL_S):
            error = message.error()
            if error is None:
                found.append((message.partition(), message.offset(), message.value()))
            else:
                tell("error", error=str(error))
        return found

    def commit(self, positions: dict[int, int]) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        wanted = [TopicPartition(self._topic, p, o) for p, o in positions.items()]
        for done in self._consumer.commit(offsets=wanted, asynchronous=False):
            if done.error is not None:
                raise KafkaException(done.error)

    def close(self) -> None:
        self._consumer.close()


class KafkaPythonClient:
    """kafka-python: the classic protocol."""

    def __init__(
        self, kind: MemberKind, bootstrap: str, group: str, topic: str, name: str, member: Member
    ) -> None:
        from kafka import ConsumerRebalanceListener, KafkaConsumer
        from kafka.coordinator.assignors.cooperative_sticky import (
            CooperativeStickyAssignor,
        )
        from kafka.coordinator.assignors.range import RangePartitionAssignor

        class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
            def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
                member.owns(p.partition for p in assigned)

            def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
                member.gives_back(p.partition for p in revoked)

            def on_partitions_lost(self, lost: Iterable[Any]) -> None:
                member.loses(p.partition for p in lost)

        assignor = {
            "range": RangePartitionAssignor,
            "cooperative-sticky": CooperativeStickyAssignor,
        }[kind.assignor]
        self._topic = topic
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            client_id=name,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            reconnect_backoff_ms=20,
            reconnect_backoff_max_ms=100,
            retry_backoff_ms=50,
            max_poll_interval_ms=int(SESSION_S * 1000),
            session_timeout_ms=int(SESSION_S * 1000),
            heartbeat_interval_ms=int(HEARTBEAT_S * 1000),
            max_poll_records=AT_MOST,
            partition_assignment_strategy=[assignor],
        )
        self._consumer.subscribe([topic], listener=Listener())

    def poll(self) -> list[tuple[int, int, bytes]]:
        batches = self._consumer.poll(timeout_ms=int(POLL_S * 1000))
        return [
            (record.partition, record.offset, record.value)
            for batch in batches.values()
            for record in batch
        ]

    def commit(self, positions: dict[int, int]) -> None:
        from kafka import TopicPartition
        from kafka.structs import OffsetAndMetadata

        self._consumer.commit(
            {
                TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
                for partition, offset in positions.items()
            },
            timeout_ms=int(COMMIT_TIMEOUT_S * 1000),
        )

    def close(self) -> None:
        self._consumer.close()


def main() -> int:
    kind_name, bootstrap, group, topic, name = sys.argv[1:]
    kind = MEMBER_KINDS[kind_name]
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    threading.Thread(target=end_with_the_campaign, daemon=True).start()
    member = Member()
    make = ConfluentClient if kind.client == "confluent" else KafkaPythonClient
    client: Client = make(kind, bootstrap, group, topic, name, member)
    member.client = client
    tell("ready")
    with contextlib.suppress(BrokenPipeError):
        while not stopping:
            try:
                records = client.poll()
            except Exception as error:
                tell("error", error=repr(error)[:200])
                time.sleep(POLL_S)
                continue
            member.read(records)
            member.commit()
        client.close()
        tell("left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
