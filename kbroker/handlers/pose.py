"""Posing as an older broker: which versions of which API it advertises, and so serves.

``kbroker.api.versions`` names a release of Apache Kafka (``releases.toml`` has its table) or a
file: TOML, or JSON when it is called so, with ``Produce = "3-9"`` for each API, and optionally a
table ``features`` of ``name = "oldest-latest"``. What is not named is not served. Never more is
promised than this broker keeps: ranges are cut to its own.
"""

import os
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final, NamedTuple

from kbroker.config.config_def import ConfigError
from kbroker.handlers.registry import HANDLERS
from kbroker.protocol.registry import APIS

Range = tuple[int, int]
"""(oldest, latest), both inclusive."""

_RELEASES: Final = "releases.toml"
_OWN_RELEASE: Final = "4.3"
_FEATURES: Final = "features"
_API_VERSIONS: Final = "ApiVersions"


class Pose(NamedTuple):
    """What another broker would say of itself in ApiVersions."""

    ranges: Mapping[int, Range]
    """By API key, not yet cut to what this broker serves."""
    features: Mapping[str, Range]
    """By name, as supported; the latest level is the finalized one."""

    def serves(self, key: int, oldest: int, latest: int) -> Range | None:
        """What is left of this broker's own range; None: nothing, the API is not served."""
        theirs = self.ranges.get(key)
        if theirs is None:
            return None
        low, high = max(theirs[0], oldest), min(theirs[1], latest)
        return (low, high) if low <= high else None


def load_pose(named: str) -> Pose | None:
    """The pose of a release (``3.9``, or ``3.9.1``) or of a file; None for the release that this
    broker speaks anyhow. Raises ConfigError, which says what is wrong or which releases there are.
    """
    releases = _parse_toml(files(__package__).joinpath(_RELEASES).read_text("utf-8"), _RELEASES)
    release = ".".join(named.strip().split(".")[:2])
    if release in releases:
        return _to_pose(releases[release], named)
    if release == _OWN_RELEASE:
        return None
    if not os.path.exists(named):
        raise ConfigError(
            f"kbroker.api.versions: {named!r} is neither a file nor a known release; there are: "
            + ", ".join([*releases, _OWN_RELEASE])
        )
    try:
        with open(named, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"kbroker.api.versions: {named} cannot be read: {error}") from None
    table = _parse_json(text, named) if named.endswith(".json") else _parse_toml(text, named)
    made = _to_pose(table, named)
    for key in made.ranges.keys() & HANDLERS.keys():
        own = APIS[key]
        if made.serves(key, own.min_version, own.max_version) is None:
            raise ConfigError(
                f"kbroker.api.versions: {named}: {own.name}: this broker has only versions "
                f"{own.min_version} to {own.max_version}; leave it out if it is not to be served"
            )
    return made


def _parse_toml(text: str, where: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"kbroker.api.versions: {where}: {error}") from None


def _parse_json(text: str, where: str) -> dict[str, Any]:
    import json

    try:
        table = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"kbroker.api.versions: {where}: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f"kbroker.api.versions: {where}: expected an object")
    return table


def _to_pose(table: Mapping[str, Any], where: str) -> Pose:
    keys = {info.name: key for key, info in APIS.items()}
    ranges: dict[int, Range] = {}
    features: dict[str, Range] = {}
    for name, value in table.items():
        if name == _FEATURES:
            if not isinstance(value, dict):
                raise ConfigError(f"kbroker.api.versions: {where}: {_FEATURES}: expected a table")
            features = {feature: _range(where, feature, text) for feature, text in value.items()}
        elif name not in keys:
            raise ConfigError(
                f"kbroker.api.versions: {where}: there is no API {name!r}; there are: "
                + ", ".join(sorted(APIS[key].name for key in HANDLERS))
            )
        else:
            ranges[keys[name]] = _range(where, name, value)
    if keys[_API_VERSIONS] not in ranges:
        raise ConfigError(
            f"kbroker.api.versions: {where}: {_API_VERSIONS} is missing; clients begin with it"
        )
    return Pose(ranges, features)


def _range(where: str, name: str, value: Any) -> Range:
    """``"3-9"``, or ``"3"`` for one version."""
    low, dash, high = value.partition("-") if isinstance(value, str) else ("", "", "")
    high = high if dash else low
    if not (low.isascii() and low.isdigit() and high.isascii() and high.isdigit()):
        raise ConfigError(
            f'kbroker.api.versions: {where}: {name} = {value!r}: expected "oldest-latest"'
        )
    if int(low) > int(high):
        raise ConfigError(f"kbroker.api.versions: {where}: {name} = {value!r} is an empty range")
    return int(low), int(high)
