"""``listeners``, ``advertised.listeners`` and ``listener.security.protocol.map``."""

from collections.abc import Iterable, Mapping
from typing import Final

from kbroker.common.named_tuple import NamedTuple
from kbroker.config.config_def import ConfigError


class ListenerSpec(NamedTuple):
    """One address to listen on, and the one that clients are told, if it is fixed."""

    name: str
    host: str
    """"" or "0.0.0.0" or "::" is every address."""
    port: int
    security_protocol: str
    advertised_host: str | None
    advertised_port: int | None


_LISTENER_PREFIX: Final = "listener.name."
_OF_MECHANISMS: Final = (
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.server.callback.handler.class",
    "connections.max.reauth.ms",
    "sasl.server.max.receive.size",
)


def without_listener(name: str) -> str | None:
    """``listener.name.in.plain.sasl.jaas.config`` -> ``sasl.jaas.config``: the setting that one of
    a listener, and of one of its mechanisms, stands for. None for any other name."""
    if not name.startswith(_LISTENER_PREFIX):
        return None
    _, dot, base = name.removeprefix(_LISTENER_PREFIX).partition(".")
    if not dot:
        return None
    return next((each for each in _OF_MECHANISMS if base.endswith(f".{each}")), base)


def parse_endpoint(text: str, setting: str) -> tuple[str, str, int]:
    """``NAME://host:port`` with ``[...]`` around an IPv6 address -> (NAME, host, port)."""
    name, separator, address = text.partition("://")
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not separator or not colon or not name or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"Invalid value {text} for configuration {setting}: expected NAME://HOST:PORT"
        )
    return name.upper(), host, int(port)


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPv6]:PORT`` -> (host, port)."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def parse_listeners(
    *,
    listeners: Iterable[str],
    advertised: Iterable[str],
    protocol_map: str,
    controller_names: Iterable[str],
) -> list[ListenerSpec]:
    """The broker's listeners; those of the KRaft controller are left out: it has no network here.

    Raises ConfigError for unreadable, doubled or unknown names.
    """
    protocols = _parse_protocol_map(protocol_map)
    controllers = {name.upper() for name in controller_names}
    told = {
        name: (host, port)
        for name, host, port in (parse_endpoint(t, "advertised.listeners") for t in advertised)
    }
    specs: list[ListenerSpec] = []
    for text in listeners:
        name, host, port = parse_endpoint(text, "listeners")
        if name in controllers:
            continue
        if any(spec.name == name for spec in specs):
            raise ConfigError(f"Each listener must have a different name, {name} occurs twice")
        if name not in protocols:
            raise ConfigError(
                f"No security protocol defined for listener {name}; "
                "add it to listener.security.protocol.map"
            )
        advertised_host, advertised_port = told.get(name, (None, None))
        specs.append(
            ListenerSpec(name, host, port, protocols[name], advertised_host, advertised_port)
        )
    if not specs:
        raise ConfigError("listeners names no broker listener")
    unknown = told.keys() - {spec.name for spec in specs} - controllers
    if unknown:
        raise ConfigError(
            f"advertised.listeners names {', '.join(sorted(unknown))}, which listeners does not"
        )
    return specs


def _parse_protocol_map(text: str) -> Mapping[str, str]:
    protocols: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, colon, protocol = item.partition(":")
        if not colon or protocol.upper() not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
            raise ConfigError(
                f"Invalid value {item} for configuration listener.security.protocol.map: "
                "expected NAME:PROTOCOL"
            )
        protocols[name.strip().upper()] = protocol.upper()
    return protocols
