"""Where settings come from: server.properties files and the environment."""

from collections.abc import Iterator, Mapping

_FOREIGN = (
    "KAFKA_BOOTSTRAP",
    "KAFKA_CLUSTERS",
    "KAFKA_DEBUG",
    "KAFKA_GC",
    "KAFKA_HEAP",
    "KAFKA_HOME",
    "KAFKA_JDK",
    "KAFKA_JMX",
    "KAFKA_JVM",
    "KAFKA_LOG4J",
    "KAFKA_OPTS",
    "KAFKA_REST",
    "KAFKA_SCHEMA",
    "KAFKA_URL",
    "KAFKA_VERSION",
)
"""Variables that scripts, images and clients use for other ends than a broker's settings."""

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def parse_properties(text: str) -> dict[str, str]:
    """A Java properties file: comments, continued lines, escapes, ``=``, ``:`` or blanks between.

    A later line wins over an earlier one of the same name. Raises ValueError for a bad escape.
    """
    properties: dict[str, str] = {}
    for line in _logical_lines(text):
        end, start = _split_key(line)
        properties[_unescape(line[:end])] = _unescape(line[start:])
    return properties


def _logical_lines(text: str) -> Iterator[str]:
    pending = ""
    for raw in text.splitlines():
        line = raw.lstrip(" \t\f")
        if not pending and (not line or line[0] in "#!"):
            continue
        line = pending + line
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            pending = line[:-1]
            continue
        pending = ""
        yield line
    if pending:
        yield pending


def _split_key(line: str) -> tuple[int, int]:
    """(end of the key, start of the value)."""
    escaped = False
    end = len(line)
    for index, character in enumerate(line):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in "=: \t\f":
            end = index
            break
    start = end
    separator_seen = False
    while start < len(line):
        character = line[start]
        if character in " \t\f":
            start += 1
        elif character in "=:" and not separator_seen:
            separator_seen = True
            start += 1
        else:
            break
    return end, start


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    out: list[str] = []
    index = 0
    while index < len(text):
        character = text[index]
        index += 1
        if character != "\\" or index == len(text):
            out.append(character)
            continue
        escape = text[index]
        index += 1
        if escape == "u":
            out.append(chr(int(text[index : index + 4], 16)))
            index += 4
        else:
            out.append(_ESCAPES.get(escape, escape))
    return "".join(out)


def environment_properties(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings from ``KAFKA_...`` variables, as Kafka's container image names them.

    ``_`` is ``.``, ``__`` is ``-`` and ``___`` is ``_``: KAFKA_LOG_DIRS is log.dirs.
    """
    properties: dict[str, str] = {}
    for variable, value in environment.items():
        if variable.startswith("KAFKA_") and not variable.startswith(_FOREIGN):
            name = variable[6:].lower().replace("___", "\0").replace("__", "-")
            properties[name.replace("_", ".").replace("\0", "_")] = value
    return properties
