"""Small requests from many connections: what one costs the broker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.load import Load, connect, keep_busy, receive_frame
from benchmarks.wire_requests import (
    ACKS_ALL,
    VALUE,
    check_fetched,
    check_metadata,
    check_produced,
    fetch_request,
    metadata_request,
    produce_request,
    record_batch,
)

if TYPE_CHECKING:
    from benchmarks.brokers import MeasuredBroker

METADATA_CONNECTIONS = 100
PRODUCE_CONNECTIONS = 32


def metadata(broker: MeasuredBroker, topic: str, *, count: int) -> Load:
    """Metadata of one topic, one request under way on each connection."""
    return keep_busy(
        broker,
        [metadata_request(topic)],
        connections=METADATA_CONNECTIONS,
        count=count,
        check=lambda answer: check_metadata(answer, topic),
    )


def one_record_produce(broker: MeasuredBroker, topic: str, *, count: int) -> Load:
    """One record of 100 bytes with acks=all, one request under way on each connection."""
    return keep_busy(
        broker,
        [produce_request(topic, record_batch([VALUE]), acks=ACKS_ALL)],
        connections=PRODUCE_CONNECTIONS,
        count=count,
        check=lambda answer: check_produced(answer, topic),
    )


def wait_until_led(broker: MeasuredBroker, topic: str) -> None:
    """A broker leads a new topic's partitions a moment after the controller has made it."""
    deadline = time.monotonic() + 10
    with connect(broker.bootstrap) as peer:
        while True:
            peer.sendall(fetch_request(topic, 0, max_bytes=1, max_wait_ms=0))
            try:
                check_fetched(receive_frame(peer), topic)
            except ValueError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def have_created(broker: MeasuredBroker, topic: str) -> None:
    """Ask for the topic until it can be written to: for brokers that create what they are asked."""
    deadline = time.monotonic() + 10
    batch = record_batch([VALUE])
    with connect(broker.bootstrap) as peer:
        while True:
            peer.sendall(metadata_request(topic))
            receive_frame(peer)
            peer.sendall(produce_request(topic, batch, acks=ACKS_ALL))
            try:
                check_produced(receive_frame(peer), topic)
            except ValueError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return
