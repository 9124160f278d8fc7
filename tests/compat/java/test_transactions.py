"""Kafka's own transactional producer at level 2 (KIP-890), and kafka-transactions."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.compat.java.dump_log import dump, files_of
from tests.compat.java.raw_producer import RawProducer
from tests.compat.kafka_python import clients
from tests.compat.waiting import eventually
from tests.peers import kafka_tools

if TYPE_CHECKING:
    from tests.compat.broker_under_test import OwnedBroker
    from tests.peers.kafka_tools import KafkaTools

pytestmark = pytest.mark.timeout(180)
TRANSACTIONS = Path(__file__).with_name("Transactions.java")
ONE_AFTER_THE_OTHER = Path(__file__).with_name("OneAfterTheOther.java")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_javas_producer_consumes_transforms_and_produces(
    tools: KafkaTools, bootstrap: str, topic: str, protocol: str
) -> None:
    said = tools.run(str(TRANSACTIONS), bootstrap, topic, protocol)
    assert "zombie: ProducerFencedException" in said
    assert "each input exactly once" in said


def _ask(tools: KafkaTools, bootstrap: str, *commands: tuple[str, ...]) -> list[list[list[str]]]:
    """What kafka-transactions prints at each command: the words of its lines, without headers."""
    at = ("--bootstrap-server", bootstrap)
    script = "".join("\t".join((*at, *command)) + "\n" for command in commands)
    output = tools.run(str(ONE_AFTER_THE_OTHER), kafka_tools.TRANSACTIONS, text=script)
    *parts, rest = output.split("\f\n")
    assert not rest and len(parts) == len(commands), output
    return [[line.split() for line in part.splitlines()[1:]] for part in parts]


def test_a_hanging_transaction_is_found_and_aborted(
    tools: KafkaTools, owned_broker: OwnedBroker
) -> None:
    """One that its coordinator knows nothing of, beside one that is just old."""
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, "t")
    with (
        closing(RawProducer(bootstrap, "lost")) as lost,
        closing(RawProducer(bootstrap, "old")) as old,
    ):
        lost.verify_partitions(enabled=False)
        eventually(lambda: lost.produce("t", 11) == 0, what="an append that nobody verifies")
        lost.verify_partitions(enabled=True)
        assert old.produce("t", 12) == 0
        assert lost.last_stable_offset("t") == 0

        find = ("find-hanging", "--topic", "t")
        listed, described, producers, hanging, _, left, _, states = _ask(
            tools,
            bootstrap,
            ("list",),
            ("describe", "--transactional-id", "old"),
            ("describe-producers", "--topic", "t", "--partition", "0"),
            find,
            ("abort", "--topic", "t", "--partition", "0", "--start-offset", "0"),
            find,
            ("forceTerminateTransaction", "--transactionalId", "old"),
            ("list",),
        )
        assert lost.last_stable_offset("t") == 4, "two records and two markers"
    lost_id, old_id = str(lost.producer_id), str(old.producer_id)
    # transactional id, coordinator, producer id, state
    assert {(row[0], row[2], row[3]) for row in listed} == {
        ("lost", lost_id, "Empty"),
        ("old", old_id, "Ongoing"),
    }
    (row,) = described
    # coordinator, transactional id, producer id, epoch, state, timeout, start, duration, partitions
    assert (row[1:6], row[-1]) == (["old", old_id, "0", "Ongoing", "900000"], "t-0")
    # producer id, epoch, latest coordinator epoch, last sequence, last timestamp, start offset
    assert {(row[0], row[1], row[2], row[3], row[5]) for row in producers} == {
        (lost_id, "0", "-1", "0", "0"),
        (old_id, "0", "-1", "0", "1"),
    }
    # topic, partition, producer id, epoch, coordinator epoch, start offset, last timestamp, minutes
    assert [row[:6] for row in hanging] == [["t", "0", lost_id, "0", "-1", "0"]]
    assert left == []
    assert {(row[0], row[3]) for row in states} == {("lost", "Empty"), ("old", "Empty")}


def test_kafka_reads_the_records_of_transactions(
    tools: KafkaTools, owned_broker: OwnedBroker
) -> None:
    """__transaction_state as kafka-dump-log decodes it: one committed transaction, one open."""
    clients.create_topic(owned_broker.bootstrap, "t")
    with closing(RawProducer(owned_broker.bootstrap, "tx")) as producer:
        assert producer.produce("t", 12) == 0
        assert producer.commit() == 0
        eventually(lambda: producer.state() == "CompleteCommit", what="the marker")
        assert producer.produce("t", 12) == 0
        producer_id = producer.producer_id
    owned_broker.stop()
    logs = [path for path in files_of(owned_broker.data_dir, ".log") if path.stat().st_size]
    states = [path for path in logs if path.parent.name.startswith("__transaction_state-")]

    decoded, _ = dump(tools, states, "--transaction-log-decoder")
    printed, _ = dump(
        tools, [path for path in logs if path.parent.name == "t-0"], "--print-data-log"
    )

    found = re.findall(
        r'"producerId":(\d+),.*"producerEpoch":(\d+),.*"transactionStatus":(\d)', decoded
    )
    # Empty, Ongoing, PrepareCommit and CompleteCommit in the next epoch, Ongoing
    expected = [(0, 0), (0, 1), (1, 2), (1, 4), (1, 1)]
    assert found == [(str(producer_id), str(epoch), str(state)) for epoch, state in expected], (
        decoded
    )
    assert "endTxnMarker: COMMIT coordinatorEpoch: 0" in printed
    assert "isvalid: false" not in decoded + printed
