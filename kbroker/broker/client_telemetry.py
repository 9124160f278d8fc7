"""Metrics that clients push (KIP-714), as OTLP MetricsData, kept for the next scrape.

Of each client instance the last value of each gauge and the sum of each counter is kept: clients
push counters as differences. The series of an instance that has been silent for three of its
intervals are dropped. Histograms and summaries, which no Kafka client pushes, are passed over.
"""

import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kbroker.broker.metrics import COUNTER, GAUGE, Family, in_turns

if TYPE_CHECKING:
    from kbroker.metadata.client_metrics import ClientInstance

MOST_SERIES: Final = 20_000
"""Of all clients together; what comes beyond is dropped, and counted."""

_MOST_LABELS: Final = 32
_MOST_TEXT: Final = 2048
"""Characters of a point's name and labels together; Kafka's clients have 200."""
_CUMULATIVE: Final = 2
_KAFKA_S: Final = "org_apache_kafka_"
_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_]")
_DOUBLE: Final = struct.Struct("<d")
_INT64: Final = struct.Struct("<q")

Labels = tuple[tuple[str, str], ...]


class Point(NamedTuple):
    """One number of one metric."""

    name: str
    labels: Labels
    value: float
    is_counter: bool
    is_cumulative: bool


class _Series:
    __slots__ = ("is_counter", "name", "value")

    def __init__(self, name: str, *, is_counter: bool) -> None:
        self.name = name
        self.is_counter = is_counter
        self.value = 0.0


class ClientTelemetry:
    """A ``Receiver`` that remembers."""

    def __init__(self) -> None:
        self._by_instance: dict[bytes, tuple[ClientInstance, dict[Any, _Series]]] = {}
        self._count = 0
        self.pushes = 0
        self.dropped = 0
        """Points for which there was no room."""

    def receive(self, instance: "ClientInstance", payload: bytes, now: float) -> None:
        """Raises ValueError for what is no MetricsData; nothing of it is kept then."""
        points = list(read_points(payload))
        self.pushes += 1
        self.forget(now)
        _, series = self._by_instance.get(instance.instance_id, (instance, {}))
        self._by_instance[instance.instance_id] = (instance, series)
        for point in points:
            key = (point.name, point.labels)
            known = series.get(key)
            if known is None:
                if self._count >= MOST_SERIES or _text_size(point) > _MOST_TEXT:
                    self.dropped += 1
                    continue
                self._count += 1
                known = series[key] = _Series(point.name, is_counter=point.is_counter)
            if point.is_counter and not point.is_cumulative:
                known.value += point.value
            else:
                known.value = point.value

    def forget(self, now: float) -> None:
        """Drop what belongs to clients that are gone."""
        gone = [key for key, (one, _) in self._by_instance.items() if one.is_forgotten(now)]
        for key in gone:
            self._count -= len(self._by_instance.pop(key)[1])

    async def families(self, now: float) -> list[Family]:
        """Everything of clients that are there, with their ids among the labels."""
        self.forget(now)
        pushes = Family("kbroker_client_telemetry_pushes", COUNTER, "Pushes received")
        dropped = Family("kbroker_client_telemetry_dropped", COUNTER, "Points without room")
        own = [pushes.add(self.pushes), dropped.add(self.dropped)]
        by_name: dict[str, Family] = {}
        known = [
            (instance, labels, one)
            for instance, series in self._by_instance.values()
            for (_, labels), one in series.items()
        ]
        async for instance, labels, one in in_turns(known):
            name = family_name(one.name)
            kind = COUNTER if one.is_counter else GAUGE
            if kind == COUNTER:
                name = name.removesuffix("_total")
            family = by_name.setdefault(name, Family(name, kind, f"Pushed as {one.name}"))
            if family.kind == kind:  # else a client calls two things by one name
                shown = {label_name(key): value for key, value in labels}
                shown["client_instance_id"] = instance.name
                shown["client_id"] = instance.client.client_id
                family.put(one.value, shown)
        return [*own, *by_name.values()]


def family_name(name: str) -> str:
    """A name that no metric of the broker's own has, whatever a client calls its metric."""
    plain = prometheus_name(name)
    return plain if plain.startswith(_KAFKA_S) else f"client_{plain}"


def prometheus_name(name: str) -> str:
    """Dots and what else Prometheus does not allow become underscores."""
    plain = _NOT_IN_NAMES.sub("_", name)
    return f"_{plain}" if plain[:1].isdigit() else plain


def label_name(name: str) -> str:
    """One that Prometheus allows a sample to have: not empty, and none of its own ``__...``."""
    plain = prometheus_name(name)
    return plain if plain and not plain.startswith("__") else f"label{plain}"


def _text_size(point: Point) -> int:
    return len(point.name) + sum(len(key) + len(value) for key, value in point.labels)


# -- OTLP: https://github.com/open-telemetry/opentelemetry-proto, metrics/v1/metrics.proto


def read_points(data: bytes) -> Iterator[Point]:
    """The numbers of a MetricsData. Raises ValueError."""
    try:
        for resource in _messages(data, 1):
            for scope in _messages(resource, 2):
                for metric in _messages(scope, 2):
                    yield from _points_of(metric)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"no OTLP metrics: {error}") from error


def _points_of(metric: bytes) -> Iterator[Point]:
    name = ""
    for number, value in _fields(metric):
        if number == 1:
            name = _text(value)
    for number, value in _fields(metric):
        if number == 5 and isinstance(value, bytes):  # Gauge
            for point in _messages(value, 1):
                yield _point(name, point, is_counter=False, is_cumulative=False)
        elif number == 7 and isinstance(value, bytes):  # Sum
            about = {key: found for key, found in _fields(value) if key in (2, 3)}
            for point in _messages(value, 1):
                yield _point(
                    name,
                    point,
                    is_counter=about.get(3) == 1,
                    is_cumulative=about.get(2) == _CUMULATIVE,
                )


def _point(name: str, data: bytes, *, is_counter: bool, is_cumulative: bool) -> Point:
    value = 0.0
    labels: list[tuple[str, str]] = []
    for number, found in _fields(data):
        if number == 4 and isinstance(found, bytes):
            (value,) = _DOUBLE.unpack(found)
        elif number == 6 and isinstance(found, bytes):
            (value,) = _INT64.unpack(found)
        elif number == 7 and isinstance(found, bytes) and len(labels) < _MOST_LABELS:
            labels.append(_label(found))
    return Point(name, tuple(sorted(labels)), value, is_counter, is_cumulative)


def _label(data: bytes) -> tuple[str, str]:
    """A KeyValue; values that are no strings are shown as numbers, or not at all."""
    key = value = ""
    for number, found in _fields(data):
        if number == 1:
            key = _text(found)
        elif number == 2 and isinstance(found, bytes):
            for kind, inner in _fields(found):
                if kind == 1:
                    value = _text(inner)
                elif kind in (2, 3):
                    value = str(inner)
    return key, value


def _text(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise ValueError("no OTLP metrics: a number where a text should be")
    return value.decode()


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    for number, value in _fields(data):
        if number == wanted:
            if not isinstance(value, bytes):
                raise ValueError("no OTLP metrics: a number where a message should be")
            yield value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protobuf message: integers for varints, bytes for the rest."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(data, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no OTLP metrics: wire type {kind}")
        if number == 0 or size > end - position:
            raise ValueError("no OTLP metrics: cut short")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("no OTLP metrics: a varint of more than 10 bytes")
