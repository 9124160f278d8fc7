"""``kbroker serve --api-versions``: clients take it for the older broker it says it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer
from kafka import KafkaConsumer, KafkaProducer

from kbroker import BrokerThread
from tests.peers import kafka_tools
from tests.peers.kafka_tools import KafkaTools
from tests.peers.kbroker_process import KbrokerProcess
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.wire.connection import Closed, Conn

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT_TIMEOUT_S = 30


@pytest.fixture(scope="module", params=["2.8", "3.9"])
def posing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KbrokerProcess]:
    folder = tmp_path_factory.mktemp("posing")
    arguments = (f"--api-versions={request.param}", "--trace")
    with KbrokerProcess(folder, arguments=arguments) as broker:
        yield broker
        broker.stop()
    latest = {"2.8": (9, 12, 11), "3.9": (11, 17, 12)}[request.param]
    asked = _latest_asked(broker)
    for name, limit in zip(("Produce", "Fetch", "Metadata"), latest, strict=True):
        assert 0 < asked[name] <= limit


def _latest_asked(broker: KbrokerProcess) -> dict[str, int]:
    """The latest version in which each API was asked."""
    asked: dict[str, int] = {}
    for line in broker.error_log.read_text().splitlines():
        _, sign, rest = line.partition(" > ")
        if sign:
            name, version = rest.split()[:2]
            asked[name] = max(asked.get(name, 0), int(version[1:]))
    return asked


def test_confluent_kafka(posing: KbrokerProcess) -> None:
    producer = Producer({"bootstrap.servers": posing.bootstrap, "enable.idempotence": True})
    producer.produce("confluent", b"v")
    assert producer.flush(CLIENT_TIMEOUT_S) == 0
    settings = {
        "bootstrap.servers": posing.bootstrap,
        "group.id": "g",
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(settings)
    consumer.subscribe(["confluent"])
    try:
        message = consumer.poll(CLIENT_TIMEOUT_S)
        assert message is not None
        assert message.error() is None
        assert message.value() == b"v"
    finally:
        consumer.close()


def test_kafka_python(posing: KbrokerProcess) -> None:
    with KafkaProducer(bootstrap_servers=posing.bootstrap) as producer:
        producer.send("kafka-python", b"v").get(CLIENT_TIMEOUT_S)
    consumer = KafkaConsumer(
        "kafka-python",
        bootstrap_servers=posing.bootstrap,
        group_id="k",
        auto_offset_reset="earliest",
        consumer_timeout_ms=CLIENT_TIMEOUT_S * 1000,
    )
    try:
        assert next(consumer).value == b"v"
    finally:
        consumer.close()


@pytest.mark.parametrize("posing", ["2.8"], indirect=True)
def test_java(posing: KbrokerProcess) -> None:
    try:
        tools = KafkaTools()
    except PeerUnavailable as missing:
        skip_or_fail(missing)
    where = ("--bootstrap-server", posing.bootstrap, "--topic", "java")
    tools.run(kafka_tools.CONSOLE_PRODUCER, *where, text="v\n")
    options = ("--from-beginning", "--max-messages", "1", "--timeout-ms", "30000")
    assert tools.run(kafka_tools.CONSOLE_CONSUMER, *where, *options) == "v\n"


def test_in_process() -> None:
    with BrokerThread(settings={"kbroker.api.versions": "2.8"}) as broker:
        host, _, port = broker.bootstrap_servers.rpartition(":")
        connection = Conn(host, int(port))
        try:
            connection.send("ApiVersions", 0)
            told = connection.recv(CLIENT_TIMEOUT_S)[4]["ApiKeys"]
        finally:
            connection.close()
    latest = {each["ApiKey"]: each["MaxVersion"] for each in told}
    assert (latest[0], latest[1], latest[18]) == (9, 12, 3)
    assert 68 not in latest  # ConsumerGroupHeartbeat


def test_a_newer_request_closes_the_connection(posing: KbrokerProcess) -> None:
    connection = Conn("127.0.0.1", posing.port)
    try:
        connection.send("ListConfigResources", 1, {"ResourceTypes": []})
        with pytest.raises(Closed):
            connection.recv(CLIENT_TIMEOUT_S)
    finally:
        connection.close()
