"""OTLP as clients push it: read, added up, shown, forgotten; refused when it is something else."""

import random
import struct
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kbroker.broker import client_telemetry
from kbroker.broker.client_telemetry import ClientTelemetry, Point, family_name, read_points
from kbroker.broker.prometheus import new_renderer
from kbroker.metadata.client_metrics import ClientAttributes, ClientInstance
from tests.sizes import size

pytestmark = pytest.mark.anyio
DELTA, CUMULATIVE = 1, 2


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, value: bytes | int) -> bytes:
    """A length-delimited field, or a varint."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 1) + data


def point(value: float, **labels: str) -> bytes:
    """A NumberDataPoint: as_double for a float, as_int for an int, and times that nobody reads."""
    number = (
        fixed(6, struct.pack("<q", value))
        if isinstance(value, int)
        else fixed(4, struct.pack("<d", value))
    )
    attributes = b"".join(
        field(7, field(1, key.encode()) + field(2, field(1, text.encode())))
        for key, text in labels.items()
    )
    return attributes + fixed(3, bytes(8)) + number


def gauge(name: str, *points: bytes) -> bytes:
    return field(1, name.encode()) + field(5, b"".join(field(1, one) for one in points))


def counter(name: str, *points: bytes, temporality: int = DELTA, monotonic: int = 1) -> bytes:
    body = b"".join(field(1, one) for one in points) + field(2, temporality) + field(3, monotonic)
    return field(1, name.encode()) + field(7, body)


def metrics(*each: bytes) -> bytes:
    """A MetricsData with one resource and one scope."""
    scope = b"".join(field(2, one) for one in each)
    return field(1, field(1, b"") + field(2, scope))


def instance(number: int = 1) -> ClientInstance:
    client = ClientAttributes("app", "test", "1", "127.0.0.1", "1")
    made = ClientInstance(bytes([number]) * 16, client, ("*",), 100_000, 1)
    made.heard_at = 0.0
    return made


async def shown(store: ClientTelemetry, now: float = 0.0) -> dict[Any, float]:
    return {
        (family.name + sample.suffix, *sorted(sample.labels.items())): sample.value
        for family in await store.families(now)
        for sample in family.samples
        if not family.name.startswith("kbroker_")
    }


def test_points_are_read() -> None:
    data = metrics(
        gauge("a.b", point(1.5, node="1"), point(-3)),
        counter("c", point(7)),
        counter("d", point(8), temporality=CUMULATIVE),
        counter("e", point(9), monotonic=0),
        field(1, b"histogram") + field(9, field(1, b"\x08\x01")),
    )
    assert list(read_points(data)) == [
        Point("a.b", (("node", "1"),), 1.5, False, False),
        Point("a.b", (), -3, False, False),
        Point("c", (), 7, True, False),
        Point("d", (), 8, True, True),
        Point("e", (), 9, False, False),
    ]


async def test_differences_are_added_up_and_the_last_gauge_counts() -> None:
    store = ClientTelemetry()
    one = instance()
    for value in (5, 7):
        pushed = metrics(
            counter("org.apache.kafka.sent.total", point(value, topic="t")),
            gauge("org.apache.kafka.age", point(float(value))),
            counter("mine", point(value), temporality=CUMULATIVE),
        )
        store.receive(one, pushed, 0.0)
    own = (("client_id", "app"), ("client_instance_id", one.name))
    assert await shown(store) == {
        ("org_apache_kafka_sent_total", *own, ("topic", "t")): 12,
        ("org_apache_kafka_age", *own): 7,
        ("client_mine_total", *own): 7,
    }


async def test_clients_are_told_apart_and_forgotten() -> None:
    store = ClientTelemetry()
    store.receive(instance(1), metrics(gauge("g", point(1))), 0.0)
    late = instance(2)
    late.heard_at = 200.0
    store.receive(late, metrics(gauge("g", point(2))), 200.0)
    assert sorted((await shown(store, 200.0)).values()) == [1, 2]
    assert list((await shown(store, 301.0)).values()) == [2]
    assert await shown(store, 600.0) == {}


async def test_no_more_series_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_telemetry, "MOST_SERIES", 3)
    store = ClientTelemetry()
    pushed = metrics(gauge("g", *(point(n, n=str(n)) for n in range(5))))
    store.receive(instance(), pushed, 0.0)
    store.receive(instance(), pushed, 0.0)
    assert len(await shown(store)) == 3
    assert store.dropped == 4
    store.forget(1e9)
    store.receive(instance(3), metrics(gauge("g", point(1))), 0.0)
    assert len(await shown(store)) == 1


async def test_texts_that_are_too_long_are_dropped() -> None:
    store = ClientTelemetry()
    long = "x" * 3000
    pushed = metrics(gauge(long, point(1)), gauge("g", point(2, a=long), point(3, a="b")))
    store.receive(instance(), pushed, 0.0)
    assert list((await shown(store)).values()) == [3]
    assert store.dropped == 2


async def test_no_label_of_a_client_breaks_the_page() -> None:
    """An empty name of a label is no exposition at all; ``__name__`` would rename the sample."""
    store = ClientTelemetry()
    one = instance()
    labels = {"": "empty", "__name__": "up", "a b": 'quote " \\ \n', "client_id": "another"}
    store.receive(one, metrics(gauge("g\nh", point(1, **labels))), 0.0)
    body, _ = new_renderer()(await store.families(0.0), "")
    (sample,) = [
        sample
        for family in text_string_to_metric_families(body.decode())
        if family.name == "client_g_h"
        for sample in family.samples
    ]
    assert sample.labels == {
        "label": "empty",
        "label__name__": "up",
        "a_b": 'quote " \\ \n',
        "client_id": "app",
        "client_instance_id": one.name,
    }


def test_no_client_takes_a_name_of_the_broker_s() -> None:
    assert family_name("kafka.log.log.size") == "client_kafka_log_log_size"
    assert family_name("9 lives-ü") == "client__9_lives__"


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish",
        field(1, b"\xff"),
        field(1, 5),
        metrics(gauge("g", point(1)))[:-1],
        metrics(field(1, b"\xff") + field(5, field(1, point(1)))),
        metrics(field(1, b"g") + field(5, field(1, fixed(4, b"")))),
        b"\x0b",
        b"\x80" * 11,
    ],
)
async def test_what_is_no_metrics_is_refused_whole(data: bytes) -> None:
    store = ClientTelemetry()
    with pytest.raises(ValueError, match="no OTLP metrics"):
        store.receive(instance(), data, 0.0)
    assert await shown(store) == {}
    assert store.pushes == 0


def test_no_bytes_do_any_other_harm() -> None:
    chance = random.Random(9)
    sound = metrics(gauge("a", point(1.5, x="y")), counter("b", point(2)))
    for _ in range(size(ci=300, full=20_000)):
        data = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            list(read_points(bytes(data[: chance.randint(1, len(data))])))
        except ValueError:
            continue
