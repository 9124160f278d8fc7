"""What the members, the broker and the auditor of a group campaign agree on."""

from __future__ import annotations

from typing import NamedTuple

SESSION_S = 4.0
HEARTBEAT_S = 0.5
COMMIT_TIMEOUT_S = 2.0
PARTITIONS = 6

BROKER_SETTINGS = {
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(int(SESSION_S * 1000)),
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": str(int(HEARTBEAT_S * 1000)),
    "auto.create.topics.enable": "false",
}


class MemberKind(NamedTuple):
    """A client library and how it is set up."""

    client: str
    protocol: str
    assignor: str


MEMBER_KINDS = {
    "confluent-range": MemberKind("confluent", "classic", "range"),
    "confluent-cooperative": MemberKind("confluent", "classic", "cooperative-sticky"),
    "confluent-consumer": MemberKind("confluent", "consumer", ""),
    "kafka-python-range": MemberKind("kafka-python", "classic", "range"),
    "kafka-python-cooperative": MemberKind("kafka-python", "classic", "cooperative-sticky"),
}

GROUPS = {
    "consumer": ("confluent-consumer",) * 4,
    "mixed": (
        "confluent-consumer",
        "kafka-python-range",
        "confluent-consumer",
        "confluent-range",
    ),
    "cooperative": (
        "confluent-cooperative",
        "kafka-python-cooperative",
        "confluent-cooperative",
        "confluent-cooperative",
    ),
    "classic": ("confluent-range", "kafka-python-range", "confluent-range", "kafka-python-range"),
    "mixed-cooperative": (
        "confluent-cooperative",
        "confluent-consumer",
        "confluent-consumer",
        "confluent-cooperative",
    ),
}
"""What a group's members are, by the name of the mix."""
