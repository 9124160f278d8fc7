"""Client instances: what they are told, what they may push, and when they are forgotten."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.config.broker_config import BrokerConfig, ConfigHolder
from kbroker.metadata.client_metrics import ClientAttributes, ClientInstance, ClientMetricsManager
from kbroker.metadata.keys import ConfigResourceType
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.wire import ZERO_UUID
from kbroker.record.compression import compress

WHO = b"\7" * 16
CLIENT = ClientAttributes("app", "lib", "1.2", "10.0.0.1", "4711")
METRICS = ConfigResourceType.CLIENT_METRICS


class Broker:
    """A manager, and subscriptions that a test writes."""

    def __init__(self) -> None:
        self.clock = ManualClock(monotonic=1000.0)
        self.metadata: Any = SimpleNamespace(image=SimpleNamespace(configs={}))
        self.received: list[bytes] = []
        self.manager = ClientMetricsManager(
            metadata=self.metadata,
            config=ConfigHolder(BrokerConfig.from_properties({"telemetry.max.bytes": "100"})),
            clock=self.clock,
            entropy=SeededEntropy(0),
            receiver=self,
        )

    def receive(self, instance: ClientInstance, payload: bytes, now: float) -> None:
        if payload == b"bad":
            raise ValueError("no metrics")
        self.received.append(payload)

    def subscribe(self, name: str, **settings: str) -> None:
        own = {key.replace("_", "."): value for key, value in settings.items()}
        configs = {**self.metadata.image.configs, (METRICS, name): own}
        self.metadata.image = SimpleNamespace(configs=configs)

    def get(self, who: bytes = WHO, client: ClientAttributes = CLIENT) -> ClientInstance:
        return self.manager.get_subscription(who, client)

    def push(self, subscription: int, data: bytes = b"", codec: int = 0, **how: Any) -> None:
        instance = self.manager.check_push(
            how.get("who", WHO),
            CLIENT,
            subscription_id=subscription,
            is_terminating=how.get("is_terminating", False),
            codec=codec,
            size=len(data),
        )
        self.manager.receive(instance, self.manager.inflate(instance, codec, data))


@pytest.fixture
def broker() -> Broker:
    return Broker()


@contextmanager
def refused(code: ErrorCode) -> Iterator[None]:
    with pytest.raises(KafkaError) as caught:
        yield
    assert caught.value.error_code == code


def test_without_subscriptions_there_is_nothing_to_push(broker: Broker) -> None:
    instance = broker.get()
    assert (instance.metrics, instance.interval_ms) == ((), 300_000)
    assert broker.get(ZERO_UUID).instance_id not in (ZERO_UUID, WHO)


def test_matching_subscriptions_are_put_together(broker: Broker) -> None:
    broker.subscribe("a", metrics="x.,y.", interval_ms="5000", match="client_id=ap+")
    broker.subscribe("b", metrics="y.,z.", interval_ms="3000")
    broker.subscribe("c", metrics="never", interval_ms="100", match="client_source_port=4")
    instance = broker.get()
    assert (instance.metrics, instance.interval_ms) == (("x.", "y.", "z."), 3000)
    broker.subscribe("d", metrics="*,q.")
    assert broker.get(b"\1" * 16).metrics == ("*",)


@pytest.mark.parametrize(
    "match",
    [
        "client_id=app",
        "client_software_name=lib,client_software_version=1\\..",
        "client_source_address=10\\.0\\..*",
        "client_instance_id=BwcHBwcHBwcHBwcHBwcHBw",
    ],
)
def test_every_attribute_is_matched(broker: Broker, match: str) -> None:
    broker.subscribe("a", metrics="m", match=match)
    assert broker.get().metrics == ("m",)
    other = CLIENT._replace(
        client_id="other",
        client_software_name="other",
        client_source_address="::1",
    )
    assert broker.get(b"\1" * 16, other).metrics == ()


def test_a_changed_subscription_has_another_id_and_may_be_asked_for_at_once(
    broker: Broker,
) -> None:
    broker.subscribe("a", metrics="x", interval_ms="1000")
    first = broker.get().subscription_id
    assert broker.get(b"\1" * 16).subscription_id != first
    broker.subscribe("a", metrics="y", interval_ms="1000")
    with refused(ErrorCode.UNKNOWN_SUBSCRIPTION_ID):
        broker.push(first)
    second = broker.get()
    assert second.metrics == ("y",)
    broker.clock.advance(1)
    broker.push(second.subscription_id, b"data")
    assert broker.received == [b"data"]


def test_requests_come_once_in_an_interval(broker: Broker) -> None:
    broker.subscribe("a", metrics="x", interval_ms="1000")
    subscription = broker.get().subscription_id
    with refused(ErrorCode.THROTTLING_QUOTA_EXCEEDED):
        broker.get()
    broker.clock.advance(0.1)
    broker.push(subscription, b"1")
    with refused(ErrorCode.THROTTLING_QUOTA_EXCEEDED):
        broker.push(subscription, b"2")
    broker.clock.advance(1.0)
    broker.push(subscription, b"3")
    assert broker.received == [b"1", b"3"]


def test_the_last_push_may_come_early_and_is_the_last(broker: Broker) -> None:
    subscription = broker.get().subscription_id
    broker.push(subscription, b"1")
    broker.push(subscription, b"2", is_terminating=True)
    assert broker.received == [b"1", b"2"]
    broker.clock.advance(400)
    with refused(ErrorCode.INVALID_REQUEST):
        broker.push(subscription, b"3")


@pytest.mark.parametrize(
    ("data", "codec", "code"),
    [
        (b"x" * 101, 0, ErrorCode.TELEMETRY_TOO_LARGE),
        (b"x", 5, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
        (b"x", -1, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
        (b"x", 4, ErrorCode.INVALID_RECORD),
        (b"bad", 0, ErrorCode.INVALID_RECORD),
    ],
)
def test_what_is_refused(broker: Broker, data: bytes, codec: int, code: ErrorCode) -> None:
    instance = broker.get()
    with refused(code):
        broker.push(instance.subscription_id, data, codec)
    assert instance.last_error == code
    assert broker.received == []


@pytest.mark.parametrize("who", [ZERO_UUID, bytes(15) + b"\1"])
def test_ids_that_nobody_has(broker: Broker, who: bytes) -> None:
    with refused(ErrorCode.INVALID_REQUEST):
        broker.push(1, who=who)
    assert len(broker.manager) == 0


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_compressed_metrics_are_inflated(broker: Broker, codec: int) -> None:
    broker.push(broker.get().subscription_id, compress(codec, b"metrics"), codec)
    assert broker.received == [b"metrics"]


def test_silent_instances_are_forgotten(broker: Broker) -> None:
    broker.subscribe("a", metrics="x", interval_ms="30000")
    broker.get()
    broker.clock.advance(60)
    broker.get(b"\1" * 16)
    assert len(broker.manager) == 2
    broker.clock.advance(31)
    broker.get(b"\2" * 16)
    assert len(broker.manager) == 2


def test_there_is_a_limit_of_instances(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kbroker.metadata.client_metrics._MOST_INSTANCES", 3)
    for number in range(10):
        broker.get(bytes([number + 2]) * 16)
    assert len(broker.manager) == 3
