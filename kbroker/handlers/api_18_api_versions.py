"""ApiVersions (18), versions 0-4: what this broker speaks.

The keys are those of the handlers' table with the ranges of the protocol registry, so no client is
promised what is not there. Produce is advertised from v0: librdkafka looks for it to know whether
it may compress (KAFKA-18659); v0-2 themselves close the connection.
v3  client software name and version, checked; features as tagged fields. Features whose least
    version is 0 are left out, which v3 clients cannot read (KAFKA-17492).
v4  those features too.
A version above 4 is answered as v0 with UNSUPPORTED_VERSION and the range to try (KIP-511).
With ``kbroker.api.versions`` the ranges and features are those of another broker, as far as they
are served here (see ``pose``).
A feature is finalized only when its protocol is complete here: clients choose by that alone.
"""

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from kbroker.handlers.registry import HANDLERS
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.api_versions_request import ApiVersionsRequest
from kbroker.protocol.messages.api_versions_response import (
    ApiVersion,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)
from kbroker.protocol.registry import APIS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbroker.handlers.pose import Pose
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext

_API_VERSIONS_KEY: Final = 18
_OLDEST_ADVERTISED: Final = {0: 0}  # where it is not the oldest that is served
_TELEMETRY: Final = frozenset({71, 72})  # advertised where somebody receives it, else answered
_SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


class _Feature(NamedTuple):
    name: str
    oldest: int
    latest: int
    finalized: int  # 0 is not finalized


_FEATURES: Final = (
    _Feature("group.version", 0, 1, 1),
    _Feature("metadata.version", 7, 30, 30),
    # 2 is KIP-890: Produce v12, TxnOffsetCommit v5, EndTxn v5. Apache Kafka's own producer (4.3.1)
    # has a race there, with any broker: its sender looks for unsent batches before it takes the
    # lock under which it looks for EndTxn (Sender.maybeSendAndPollTransactionalRequest), so once in
    # some thousand transactions of one record EndTxn goes first and is INVALID_TXN_STATE.
    # flush() before commitTransaction() avoids it.
    _Feature("transaction.version", 0, 2, 2),
)

_ADVERTISED: Final = [
    ApiVersion(key, _OLDEST_ADVERTISED.get(key, APIS[key].min_version), APIS[key].max_version)
    for key in sorted(HANDLERS)
]

_WITHOUT_TELEMETRY: Final = [own for own in _ADVERTISED if own.api_key not in _TELEMETRY]


def handle(
    services: "Services", context: "RequestContext", request: ApiVersionsRequest
) -> ApiVersionsResponse:
    """The same for everybody; remembers which software the client says it is."""
    version = context.api_version
    if version >= 3:
        name, software_version = request.client_software_name, request.client_software_version
        if not (_SOFTWARE.fullmatch(name) and _SOFTWARE.fullmatch(software_version)):
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        context.connection.client_software_name = name
        context.connection.client_software_version = software_version
    advertised: list[ApiVersion] = _ADVERTISED
    if not services.receives_telemetry:
        advertised = _WITHOUT_TELEMETRY
    features: Iterable[_Feature] = _FEATURES
    if services.pose is not None:
        advertised = _posing(services.pose, advertised)
        features = _features_of(services.pose)
    return ApiVersionsResponse(
        api_keys=advertised,
        supported_features=[
            SupportedFeatureKey(feature.name, feature.oldest, feature.latest)
            for feature in features
            if feature.oldest > 0 or version >= 4
        ],
        finalized_features_epoch=services.metadata.image.revision,
        finalized_features=[
            FinalizedFeatureKey(feature.name, feature.finalized, feature.finalized)
            for feature in features
            if feature.finalized
        ],
    )


def _posing(pose: "Pose", served_here: list[ApiVersion]) -> list[ApiVersion]:
    """What another broker would advertise, as far as it is served here."""
    advertised = []
    for own in served_here:
        served = pose.serves(own.api_key, own.min_version, own.max_version)
        if served is not None:
            advertised.append(ApiVersion(own.api_key, *served))
    return advertised


def _features_of(pose: "Pose") -> list[_Feature]:
    """The same of features; levels that this broker has not finalized stay so."""
    features = []
    for own in _FEATURES:
        oldest, latest = pose.features.get(own.name, (0, 0))
        latest = min(latest, own.latest)
        if latest > 0:
            features.append(_Feature(own.name, oldest, latest, min(latest, own.finalized)))
    return features


def error_response(
    request: ApiVersionsRequest | None, error: KafkaError, version: int
) -> ApiVersionsResponse:
    """Only the code; for an unsupported version also the range of this very API."""
    response = ApiVersionsResponse(error_code=error.error_code)
    if error.error_code == ErrorCode.UNSUPPORTED_VERSION:
        own = APIS[_API_VERSIONS_KEY]
        response.api_keys = [ApiVersion(own.key, own.min_version, own.max_version)]
    return response
