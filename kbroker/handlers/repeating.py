"""What shortcuts that answer repeated requests have in common."""

from typing import TYPE_CHECKING

from kbroker.protocol.headers import read_request_fields
from kbroker.request_context import RequestContext

if TYPE_CHECKING:
    from kbroker.handlers.dispatch import Conclude
    from kbroker.handlers.services import Services
    from kbroker.metadata.image import MetadataImage
    from kbroker.request_context import ConnectionContext


class KnownOfImage:
    """A ``RepeatingShortcut`` that forgets everything when the metadata image changes."""

    __slots__ = ("_conclude", "_image", "_services", "era")

    def __init__(self, services: "Services") -> None:
        self._services = services
        self._image: MetadataImage | None = None
        self._conclude: Conclude | None = None
        self.era = object()
        """Another one when all was forgotten."""

    def let_repeat(self, conclude: "Conclude") -> None:
        """See ``RepeatingShortcut``."""
        self._conclude = conclude

    @property
    def is_current(self) -> bool:
        """Whether what is known was said of the image that there is now."""
        return self._image is self._services.metadata.image


def context_of(
    frame: memoryview, connection: "ConnectionContext", services: "Services"
) -> RequestContext:
    """The context that dispatch would have been given with this frame."""
    api_key, version, correlation_id, client_id, _ = read_request_fields(frame)
    return RequestContext(
        connection, api_key, version, correlation_id, client_id, services.clock.monotonic()
    )
