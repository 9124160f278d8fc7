"""A Kafka-wire-compatible broker in Python.

Importing this package imports nothing else; ``Broker`` and ``BrokerThread`` resolve on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kbroker.embedded import Broker, BrokerThread

__version__ = "0.1.0"
__all__ = ["Broker", "BrokerThread", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Broker", "BrokerThread"):
        from kbroker import embedded

        return getattr(embedded, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
