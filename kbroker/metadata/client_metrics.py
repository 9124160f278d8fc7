"""Which metrics clients are to push, how often, and whether a push is in order (KIP-714).

Subscriptions are the client-metrics resources of the metadata. A client instance is known by its
id from its first request on, matched against all subscriptions, and forgotten when it has not been
heard of for three of its intervals. Follows ClientMetricsManager of Kafka 4.3; what is pushed goes
to a receiver, if there is one.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from kbroker.config.group_config import ClientMetricsConfig
from kbroker.metadata.keys import ConfigResourceType
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.wire import ZERO_UUID
from kbroker.record.compression import decompress
from kbroker.record.crc import crc32c

if TYPE_CHECKING:
    from kbroker.common.clock import Clock
    from kbroker.common.entropy import Entropy
    from kbroker.config.broker_config import ConfigHolder
    from kbroker.metadata.image import MetadataImage

ALL_METRICS: Final = "*"
ACCEPTED_CODECS: Final = (4, 3, 1, 2)
"""zstd, lz4, gzip, snappy: in the order of preference that Kafka tells."""
UNCOMPRESSED: Final = 0

_DEFAULT_INTERVAL_MS: Final = 300_000
_RESERVED_IDS: Final = frozenset({ZERO_UUID, bytes(15) + b"\1"})
_MOST_INSTANCES: Final = 16_384
_LARGEST_INFLATED: Final = 16 * 1024 * 1024
_FORGOTTEN_AFTER: Final = 3  # intervals
_SHORTEST_MEMORY_S: Final = 60.0
_NEVER: Final = float("-inf")
_MAY_ASK_AGAIN: Final = (
    ErrorCode.UNKNOWN_SUBSCRIPTION_ID,
    ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
)
"""After these errors a client asks for its subscription at once."""


class Metadata(Protocol):
    """Who has the current image."""

    @property
    def image(self) -> "MetadataImage": ...


class ClientAttributes(NamedTuple):
    """What is known of a client from its connection, under the names that patterns match."""

    client_id: str
    client_software_name: str
    client_software_version: str
    client_source_address: str
    client_source_port: str


class Receiver(Protocol):
    """Takes what clients push. Raises ValueError for bytes that are no metrics."""

    def receive(self, instance: "ClientInstance", payload: bytes, now: float) -> None:
        """``payload`` is OTLP MetricsData v1, inflated; ``now`` monotonic seconds."""
        ...


class Subscription(NamedTuple):
    """One client-metrics resource; ``matches`` is by attribute, empty for every client."""

    metrics: tuple[str, ...]
    interval_ms: int
    matches: Mapping[str, re.Pattern[str]]

    def is_for(self, instance_id: str, client: ClientAttributes) -> bool:
        """Each pattern stands for the whole of its attribute."""
        known = {"client_instance_id": instance_id, **client._asdict()}
        return all(pattern.fullmatch(known[name]) for name, pattern in self.matches.items())


class ClientInstance:
    """A client that asked for its subscription, or pushed, not long ago."""

    __slots__ = (
        "client",
        "heard_at",
        "instance_id",
        "interval_ms",
        "is_terminating",
        "last_error",
        "last_get",
        "last_push",
        "metrics",
        "subscription_id",
        "version",
    )

    def __init__(
        self,
        instance_id: bytes,
        client: ClientAttributes,
        metrics: tuple[str, ...],
        interval_ms: int,
        version: int,
    ) -> None:
        self.instance_id = instance_id
        self.client = client
        self.metrics = metrics
        self.interval_ms = interval_ms
        self.version = version
        self.subscription_id = _subscription_id(metrics, interval_ms, instance_id)
        self.last_get = _NEVER
        self.last_push = _NEVER
        self.heard_at = _NEVER
        self.last_error = ErrorCode.NONE
        self.is_terminating = False

    @property
    def name(self) -> str:
        """The id as Kafka writes it."""
        return _name(self.instance_id)

    def may_get(self, now: float) -> bool:
        """Note a request for the subscription; False when it came before it was due."""
        if (now - max(self.last_get, self.last_push)) * 1000 < self.interval_ms:
            return self.last_error in _MAY_ASK_AGAIN
        self.last_get = now
        return True

    def may_push(self, now: float) -> bool:
        """Note a push; False when it came before it was due. The first after a get is due."""
        if self.last_get <= self.last_push and (now - self.last_push) * 1000 < self.interval_ms:
            return False
        self.last_push = now
        return True

    def is_forgotten(self, now: float) -> bool:
        """Nothing was heard for so long that it counts as gone."""
        memory = max(self.interval_ms * _FORGOTTEN_AFTER / 1000, _SHORTEST_MEMORY_S)
        return now - self.heard_at > memory


class ClientMetricsManager:
    """The client instances of one broker. ``metadata`` has the subscriptions."""

    def __init__(
        self,
        *,
        metadata: Metadata,
        config: "ConfigHolder",
        clock: "Clock",
        entropy: "Entropy",
        receiver: Receiver | None = None,
    ) -> None:
        self._metadata = metadata
        self._config = config
        self._clock = clock
        self._entropy = entropy
        self._receiver = receiver
        self._instances: dict[bytes, ClientInstance] = {}  # the longest silent first
        self._seen: object = None
        self._overrides: dict[str, Mapping[str, str]] = {}
        self._subscriptions: list[Subscription] = []
        self._version = 0

    def __len__(self) -> int:
        """How many instances are known."""
        return len(self._instances)

    def get_subscription(self, instance_id: bytes, client: ClientAttributes) -> ClientInstance:
        """The instance, a new one for the id zero. KafkaError THROTTLING_QUOTA_EXCEEDED."""
        now = self._clock.monotonic()
        if instance_id == ZERO_UUID:
            instance_id = self._entropy.uuid_bytes()
        instance = self._instance(instance_id, client, now)
        if not instance.may_get(now):
            raise _early(instance)
        instance.last_error = ErrorCode.NONE
        return instance

    def check_push(
        self,
        instance_id: bytes,
        client: ClientAttributes,
        *,
        subscription_id: int,
        is_terminating: bool,
        codec: int,
        size: int,
    ) -> ClientInstance:
        """The instance that may push ``size`` bytes now; KafkaError when it may not."""
        if instance_id in _RESERVED_IDS:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"Invalid request from the client [{_name(instance_id)}], "
                "invalid client instance id",
            )
        now = self._clock.monotonic()
        instance = self._instance(instance_id, client, now)
        try:
            _check_push(instance, now, is_terminating=is_terminating)
            if subscription_id != instance.subscription_id:
                raise KafkaError(ErrorCode.UNKNOWN_SUBSCRIPTION_ID)
            if codec != UNCOMPRESSED and codec not in ACCEPTED_CODECS:
                raise KafkaError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)
            if size > self._config.current.telemetry_max_bytes:
                raise KafkaError(ErrorCode.TELEMETRY_TOO_LARGE)
        except KafkaError as error:
            instance.last_error = error.error_code
            raise
        return instance

    def inflate(self, instance: ClientInstance, codec: int, data: bytes) -> bytes:
        """What was pushed, inflated; may be called off the event loop. KafkaError
        INVALID_RECORD."""
        if codec == UNCOMPRESSED or not data:
            return data
        try:
            return decompress(codec, data, limit=_LARGEST_INFLATED)
        except KafkaError as error:
            instance.last_error = ErrorCode.INVALID_RECORD
            raise KafkaError(ErrorCode.INVALID_RECORD, error.message) from None

    def receive(self, instance: ClientInstance, payload: bytes) -> None:
        """Hand on what was pushed. KafkaError INVALID_RECORD when it is no metrics."""
        if payload and self._receiver is not None:
            try:
                self._receiver.receive(instance, payload, self._clock.monotonic())
            except ValueError as error:
                instance.last_error = ErrorCode.INVALID_RECORD
                raise KafkaError(ErrorCode.INVALID_RECORD, str(error)) from None
        instance.last_error = ErrorCode.NONE

    # Instances and subscriptions ----------------------------------------------------------------

    def _instance(self, instance_id: bytes, client: ClientAttributes, now: float) -> ClientInstance:
        """The known one, matched anew when subscriptions have changed, else a new one."""
        self._read_subscriptions()
        known = self._instances.pop(instance_id, None)
        if known is None or known.version < self._version:
            if known is not None:
                client = known.client
            metrics, interval_ms = self._subscribed(_name(instance_id), client)
            known = ClientInstance(instance_id, client, metrics, interval_ms, self._version)
        known.heard_at = now
        self._instances[instance_id] = known  # the last one heard of
        self._forget(now)
        return known

    def _forget(self, now: float) -> None:
        while self._instances:
            oldest = next(iter(self._instances.values()))
            if len(self._instances) <= _MOST_INSTANCES and not oldest.is_forgotten(now):
                return
            del self._instances[oldest.instance_id]

    def _subscribed(self, name: str, client: ClientAttributes) -> tuple[tuple[str, ...], int]:
        """All metrics of the subscriptions that match, the shortest interval."""
        matching = [each for each in self._subscriptions if each.is_for(name, client)]
        if not matching:
            return (), _DEFAULT_INTERVAL_MS
        metrics = sorted({metric for each in matching for metric in each.metrics})
        if ALL_METRICS in metrics:
            metrics = [ALL_METRICS]
        return tuple(metrics), min(each.interval_ms for each in matching)

    def _read_subscriptions(self) -> None:
        configs = self._metadata.image.configs
        if configs is self._seen:
            return
        self._seen = configs
        overrides = {
            name: settings
            for (kind, name), settings in configs.items()
            if kind == ConfigResourceType.CLIENT_METRICS
        }
        if overrides != self._overrides:
            self._overrides = overrides
            self._subscriptions = [_parse(settings) for settings in overrides.values()]
            self._version += 1


def _check_push(instance: ClientInstance, now: float, *, is_terminating: bool) -> None:
    if instance.is_terminating:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Client [{instance.name}] sent the previous request with state terminating as TRUE, "
            "can not accept any requests after that",
        )
    if not instance.may_push(now) and not is_terminating:
        raise _early(instance)
    instance.is_terminating = is_terminating


def _early(instance: ClientInstance) -> KafkaError:
    return KafkaError(
        ErrorCode.THROTTLING_QUOTA_EXCEEDED,
        f"Request from the client [{instance.name}] arrived before the next push interval time",
    )


def _parse(settings: Mapping[str, str]) -> Subscription:
    """Of a pattern that is given twice the later one counts."""
    rows = ClientMetricsConfig.settings()
    values = {name: rows[name].parse(text) for name, text in settings.items()}
    matches = {}
    for pattern in values.get("match", ()):
        name, _, expression = pattern.partition("=")
        matches[name.strip()] = re.compile(expression.strip())
    interval_ms = values.get("interval.ms", _DEFAULT_INTERVAL_MS)
    return Subscription(tuple(values.get("metrics", ())), interval_ms, matches)


def _subscription_id(metrics: tuple[str, ...], interval_ms: int, instance_id: bytes) -> int:
    """A signed 32-bit number that changes with what is subscribed."""
    text = f"{','.join(metrics)} {interval_ms}".encode()
    mixed = crc32c(text + instance_id)
    return mixed - (1 << 32) if mixed >= 1 << 31 else mixed


def _name(instance_id: bytes) -> str:
    return urlsafe_b64encode(instance_id).decode().rstrip("=")


NewManager = Callable[[], ClientMetricsManager]
