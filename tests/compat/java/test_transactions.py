"""Kafka's own transactional producer at level 2 (KIP-890), and kafka-transactions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.peers.kafka_tools import KafkaTools

pytestmark = pytest.mark.timeout(180)
TRANSACTIONS = Path(__file__).with_name("Transactions.java")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_javas_producer_consumes_transforms_and_produces(
    tools: KafkaTools, bootstrap: str, topic: str, protocol: str
) -> None:
    said = tools.run(str(TRANSACTIONS), bootstrap, topic, protocol)
    assert "zombie: ProducerFencedException" in said
    assert "each input exactly once" in said
