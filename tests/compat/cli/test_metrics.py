"""``kbroker serve --metrics-port``: what Prometheus and an orchestrator read of a real process."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer
from prometheus_client.parser import text_string_to_metric_families

from tests.compat.waiting import eventually
from tests.peers.kbroker_process import KbrokerProcess
from tests.wire.connection import Conn

if TYPE_CHECKING:
    from pathlib import Path

CLIENT_TIMEOUT_S = 30
ON_A_FREE_PORT = ("--metrics-port", "0")


def base_url(broker: KbrokerProcess) -> str:
    """Where metrics and health are; the log says it."""
    found = re.search(r"metrics and health on (http://\S+)/", broker.error_log.read_text())
    assert found is not None
    return found[1]


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=CLIENT_TIMEOUT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scrape(url: str) -> dict[tuple[str, ...], float]:
    status, text = get(f"{url}/metrics")
    assert status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_follow_real_clients(tmp_path: Path) -> None:
    with KbrokerProcess(tmp_path, arguments=ON_A_FREE_PORT) as broker:
        url = base_url(broker)
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        for number in range(10):
            producer.produce("orders", str(number).encode())
        assert producer.flush(CLIENT_TIMEOUT_S) == 0
        consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": "shop",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        consumer.subscribe(["orders"])
        records = consumer.consume(4, CLIENT_TIMEOUT_S)
        assert len(records) == 4
        consumer.commit(message=records[-1], asynchronous=False)
        found = scrape(url)
        consumer.close()
        broker.stop()
    lag = found["kafka_consumergroup_lag", "shop", "0", "orders"]
    assert lag == 6
    assert found["kafka_server_brokertopicmetrics_messagesin_total", "orders"] == 10
    size = found["kafka_log_log_size", "0", "orders"]
    assert found["kafka_server_brokertopicmetrics_bytesin_total", "orders"] == size > 10 * 7
    assert found["kafka_server_brokertopicmetrics_bytesout_total", "orders"] > 10 * 7
    assert found["kafka_network_requestmetrics_totaltimems_count", "Produce"] >= 1
    assert found["kafka_server_socket_server_metrics_connection_count",] >= 1
    assert found["process_resident_memory_bytes",] > 1 << 20


def test_metrics_that_clients_push_are_shown(tmp_path: Path) -> None:
    """KIP-714: librdkafka asks what to push, and pushes it."""
    with KbrokerProcess(tmp_path, arguments=ON_A_FREE_PORT) as broker:
        subscribe_to_all(broker)
        producer = Producer({"bootstrap.servers": broker.bootstrap, "client.id": "pushing"})
        producer.produce("orders", b"v")
        assert producer.flush(CLIENT_TIMEOUT_S) == 0
        url = base_url(broker)

        def pushed() -> list[tuple[str, ...]]:
            producer.poll(0)
            return [key for key in scrape(url) if "pushing" in key]

        names = {key[0] for key in eventually(pushed, what="metrics of the client")}
        assert "org_apache_kafka_producer_connection_creation_total" in names
        producer.close()
        broker.stop()


def subscribe_to_all(broker: KbrokerProcess) -> None:
    """Every client is to push all that it has, often."""
    configs = [
        {"Name": "metrics", "ConfigOperation": 0, "Value": "*"},
        {"Name": "interval.ms", "ConfigOperation": 0, "Value": "100"},
    ]
    asked = {"ResourceType": 16, "ResourceName": "all", "Configs": configs}
    connection = Conn("127.0.0.1", broker.port)
    try:
        connection.send("IncrementalAlterConfigs", 1, {"Resources": [asked]})
        (answer,) = connection.recv(CLIENT_TIMEOUT_S)[4]["Responses"]
        assert answer["ErrorCode"] == 0
    finally:
        connection.close()


def test_health_without_prometheus_client(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "prometheus_client.py").write_text('raise ImportError("as if it were not there")\n')
    broker = KbrokerProcess(
        tmp_path, arguments=ON_A_FREE_PORT, environment={"PYTHONPATH": str(hidden)}
    )
    with broker:
        url = base_url(broker)
        assert get(f"{url}/health/live") == (200, "live\n")
        assert get(f"{url}/health/ready") == (200, "ready\n")
        status, text = get(f"{url}/metrics")
        assert status == 501
        assert "pip install kbroker[metrics]" in text
        broker.stop()
