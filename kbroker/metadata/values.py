"""Values of the metadata keys: one version byte, then binary fields, big-endian.

A newer release only adds fields at the end. What follows the fields known here is kept in ``tail``
and written back, so that an older broker does not lose what a newer one wrote. The version byte
changes only when an old reader must not go on.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from enum import IntEnum
from struct import Struct, error, unpack_from
from typing import Final, Self

from kbroker.common.named_tuple import NamedTuple

VERSION: Final = 0
_VERSION_BYTE: Final = bytes([VERSION])
_INT16: Final = Struct(">h")
_INT64: Final = Struct(">q")
_COUNT: Final = Struct(">H")
_TOPIC: Final = Struct(">iq")  # partitions, generation
_PORT: Final = Struct(">i")
_NULL: Final = 0xFFFF
_PARTITION: Final = Struct(">iiBhq6H")
MAX_MIN_ISR: Final = 0x7FFF
"""More replicas than any partition has: a larger min.insync.replicas says the same."""


class BadValue(Exception):
    """A value in the store that this release cannot read."""


class RecoveryState(IntEnum):
    """Whether the leader was chosen among replicas that may have lost records (KIP-704)."""

    RECOVERED = 0
    RECOVERING = 1


class _Reader:
    """Takes fields off the front of a value."""

    __slots__ = ("_data", "_position", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        if not data or data[0] > VERSION:
            raise BadValue(f"{what}: {'empty' if not data else f'version {data[0]} is newer'}")
        self._data = data
        self._position = 1
        self._what = what

    def fields(self, layout: Struct) -> tuple[int, ...]:
        try:
            values: tuple[int, ...] = layout.unpack_from(self._data, self._position)
        except error as problem:
            raise BadValue(f"{self._what}: cut short ({problem})") from None
        self._position += layout.size
        return values

    def raw(self, size: int) -> bytes:
        start, self._position = self._position, self._position + size
        if self._position > len(self._data):
            raise BadValue(f"{self._what}: cut short")
        return self._data[start : self._position]

    def nullable_text(self) -> str | None:
        (size,) = self.fields(_COUNT)
        return None if size == _NULL else self.raw(size).decode()

    def text(self) -> str:
        text = self.nullable_text()
        if text is None:
            raise BadValue(f"{self._what}: a text is missing")
        return text

    def tail(self) -> bytes:
        return self._data[self._position :]


def _text(text: str | None) -> bytes:
    if text is None:
        return _COUNT.pack(_NULL)
    data = text.encode()
    return _COUNT.pack(len(data)) + data


class MetaValue(NamedTuple):
    """``meta``: which cluster this is."""

    cluster_id: str
    incarnation: bytes  # 16 random bytes of the first start: tells a restored store from this one
    tail: bytes = b""

    def encode(self) -> bytes:
        return _VERSION_BYTE + _text(self.cluster_id) + self.incarnation + self.tail

    @classmethod
    def decode(cls, data: bytes) -> "MetaValue":
        reader = _Reader(data, "meta")
        return cls(cluster_id=reader.text(), incarnation=reader.raw(16), tail=reader.tail())


class NumberValue(NamedTuple):
    """A single number: ``controller`` (node id), ``pid``, ``b/act`` and ``b/epoch`` (epochs)."""

    number: int
    tail: bytes = b""

    def encode(self) -> bytes:
        return _VERSION_BYTE + _INT64.pack(self.number) + self.tail

    @classmethod
    def decode(cls, data: bytes) -> "NumberValue":
        reader = _Reader(data, "number")
        return cls(number=reader.fields(_INT64)[0], tail=reader.tail())


class RegistrationValue(NamedTuple):
    """``b/reg``: where a broker is and what it was before."""

    incarnation: bytes  # 16 random bytes, new at each start of the broker
    endpoints: Mapping[str, tuple[str, int]]  # listener name -> (host, port)
    rack: str | None = None
    clean_epoch: int = -1  # epoch under which it stopped cleanly before, -1 when it did not
    session_id: int = 0  # of the broker, for the controller to put the admission under
    tail: bytes = b""

    def encode(self) -> bytes:
        parts = [_VERSION_BYTE, self.incarnation, _INT64.pack(self.clean_epoch)]
        parts += (_INT64.pack(self.session_id), _text(self.rack))
        parts.append(_COUNT.pack(len(self.endpoints)))
        for name, (host, port) in self.endpoints.items():
            parts += (_text(name), _text(host), _PORT.pack(port))
        return b"".join(parts) + self.tail

    @classmethod
    def decode(cls, data: bytes) -> "RegistrationValue":
        reader = _Reader(data, "broker registration")
        incarnation = reader.raw(16)
        (clean_epoch,) = reader.fields(_INT64)
        (session_id,) = reader.fields(_INT64)
        rack = reader.nullable_text()
        endpoints = {}
        for _ in range(reader.fields(_COUNT)[0]):
            name, host = reader.text(), reader.text()
            endpoints[name] = (host, reader.fields(_PORT)[0])
        return cls(
            incarnation=incarnation,
            endpoints=endpoints,
            rack=rack,
            clean_epoch=clean_epoch,
            session_id=session_id,
            tail=reader.tail(),
        )


class TopicValue(NamedTuple):
    """``ti``: the topic behind an id. ``generation`` counts changes of the partition count."""

    name: str
    partitions: int
    generation: int = 0
    tail: bytes = b""

    def encode(self) -> bytes:
        fields = _TOPIC.pack(self.partitions, self.generation)
        return _VERSION_BYTE + _text(self.name) + fields + self.tail

    @classmethod
    def decode(cls, data: bytes) -> "TopicValue":
        reader = _Reader(data, "topic")
        name = reader.text()
        partitions, generation = reader.fields(_TOPIC)
        return cls(name=name, partitions=partitions, generation=generation, tail=reader.tail())


def encode_topic_id(topic_id: bytes) -> bytes:
    """``t``: the id of the topic that has this name."""
    return _VERSION_BYTE + topic_id


def decode_topic_id(data: bytes) -> bytes:
    """The 16 bytes of a ``t`` value."""
    return _Reader(data, "topic id").raw(16)


def encode_config(overrides: Mapping[str, str]) -> bytes:
    """``cfg``: every override of one resource, sorted by name."""
    parts = [_VERSION_BYTE, _COUNT.pack(len(overrides))]
    for name in sorted(overrides):
        value = overrides[name].encode()
        parts += (_text(name), len(value).to_bytes(4, "big"), value)
    return b"".join(parts)


def decode_config(data: bytes) -> dict[str, str]:
    """The overrides of a ``cfg`` value."""
    reader = _Reader(data, "configuration")
    overrides = {}
    for _ in range(reader.fields(_COUNT)[0]):
        name = reader.text()
        overrides[name] = reader.raw(int.from_bytes(reader.raw(4), "big")).decode()
    return overrides


class PartitionValue:
    """``p``: one partition. Node ids in lists; ``leader`` is -1 when there is none.

    In an image it has the store's counters besides, which are not part of the value.
    """

    __slots__ = (
        "adding",
        "change_id",
        "elr",
        "isr",
        "last_known_elr",
        "leader",
        "leader_epoch",
        "min_isr",
        "mod_revision",
        "partition_epoch",
        "recovery_state",
        "removing",
        "replicas",
        "tail",
    )

    def __init__(
        self,
        *,
        leader: int,
        leader_epoch: int,
        replicas: tuple[int, ...],
        isr: tuple[int, ...],
        adding: tuple[int, ...] = (),
        removing: tuple[int, ...] = (),
        elr: tuple[int, ...] = (),
        last_known_elr: tuple[int, ...] = (),
        recovery_state: int = RecoveryState.RECOVERED,
        min_isr: int = 1,
        change_id: int = 0,
        tail: bytes = b"",
        partition_epoch: int = 0,
        mod_revision: int = 0,
    ) -> None:
        self.leader = leader
        self.leader_epoch = leader_epoch
        self.replicas = replicas
        self.isr = isr
        self.adding = adding
        self.removing = removing
        self.elr = elr
        self.last_known_elr = last_known_elr
        self.recovery_state = recovery_state
        # Of min.insync.replicas, so that a leader's compare-and-swap sees it.
        self.min_isr = min(min_isr, MAX_MIN_ISR)
        self.change_id = change_id  # of the last proposal of a leader: tells an ambiguous outcome
        self.tail = tail
        self.partition_epoch = partition_epoch  # the key's version: one more with each change
        self.mod_revision = mod_revision

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PartitionValue):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"PartitionValue({fields})"

    def with_min_isr(self, min_isr: int) -> "PartitionValue":
        """The same partition under another min.insync.replicas."""
        changed = copy(self)
        changed.min_isr = min_isr
        return changed

    def encode(self) -> bytes:
        lists: Sequence[tuple[int, ...]] = (
            self.replicas,
            self.isr,
            self.adding,
            self.removing,
            self.elr,
            self.last_known_elr,
        )
        nodes = [node for nodes in lists for node in nodes]
        fields = _PARTITION.pack(
            self.leader,
            self.leader_epoch,
            self.recovery_state,
            self.min_isr,
            self.change_id,
            *map(len, lists),
        )
        return _VERSION_BYTE + fields + Struct(f">{len(nodes)}i").pack(*nodes) + self.tail

    @classmethod
    def decode(cls, data: bytes) -> Self:
        if not data or data[0] > VERSION:
            raise BadValue("partition: empty or newer than this release")
        try:
            leader, leader_epoch, recovery, min_isr, change_id, *counts = _PARTITION.unpack_from(
                data, 1
            )
            total = sum(counts)
            nodes = unpack_from(f">{total}i", data, 1 + _PARTITION.size)
        except error as problem:
            raise BadValue(f"partition: cut short ({problem})") from None
        start = counts[0]
        if counts[1] == total - start:  # nothing under way: all others are empty
            lists = [nodes[:start], nodes[start:], (), (), (), ()]
        else:
            lists = []
            start = 0
            for count in counts:
                lists.append(nodes[start : start + count])
                start += count
        replicas = lists[0]
        return cls(
            leader=leader,
            leader_epoch=leader_epoch,
            replicas=replicas,
            isr=replicas if lists[1] == replicas else lists[1],  # usual, and saves a tuple
            adding=lists[2],
            removing=lists[3],
            elr=lists[4],
            last_known_elr=lists[5],
            recovery_state=recovery,
            min_isr=min_isr,
            change_id=change_id,
            tail=data[1 + _PARTITION.size + 4 * total :],
        )
