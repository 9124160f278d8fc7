"""The tools, where Java is there."""

from __future__ import annotations

import pytest

from tests.peers.kafka_tools import KafkaTools
from tests.peers.require import PeerUnavailable, skip_or_fail


@pytest.fixture(scope="session")
def tools() -> KafkaTools:
    try:
        return KafkaTools()
    except PeerUnavailable as missing:
        skip_or_fail(missing)
