"""``python -m codegen.import_schemas SOURCE``: the facts of a Kafka release, into ``schemas/``.

SOURCE is an Apache Kafka source tree, a folder of schema folders (one per Kafka module), or a
folder with the release's jars (``libs/``). Only facts are kept: comments and ``about`` texts go.
What a source does not hold (jars have no readable error table, a source tree no table of settings)
is left as it is, with a message that names what is stale.
"""

import argparse
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen import source_json
from codegen.java_errors import read_errors_java
from codegen.schema import SchemaError, parse_message

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
API_TYPES = frozenset({"request", "response", "header"})
PROSE = frozenset({"about"})

# The modules whose schemas a broker or a client meets; others hold generator tests or tools.
MODULES = (
    "clients",
    "group-coordinator",
    "share-coordinator",
    "transaction-coordinator",
    "streams",
    "metadata",
    "raft",
    "storage",
)
# Where a module keeps its schemas, in its resources and so in its jar.
_FOLDERS = ("common/message", "common/metadata", "message")
_ENTRY = re.compile(rf"(?:{'|'.join(_FOLDERS)})/\w+\.json")
_JAR = re.compile(r"^(?:kafka-)?(?P<module>[a-z-]+?)-(?P<release>\d+\.\d+\.\d+[\w.-]*)\.jar$")
_RELEASE_IN_NAME = re.compile(r"(\d+\.\d+\.\d+)")


class ImportSchemasError(Exception):
    """The source is none of the three kinds, or holds something the schema language forbids."""


@dataclass(frozen=True)
class Source:
    """Everything found in a source; None where it does not hold such a table."""

    kind: str
    release: str | None
    messages: Mapping[str, Mapping[str, str]]  # module -> schema name -> text
    errors: Sequence[Mapping[str, Any]] | None
    configs: Mapping[str, Sequence[Mapping[str, Any]]] | None


def read_source(path: Path) -> Source:
    """Recognise what ``path`` is and read it."""
    if (path / "clients/src/main/resources/common/message").is_dir():
        return _read_source_tree(path)
    for jars in (path, path / "libs"):
        if any(_JAR.match(jar.name) for jar in jars.glob("*.jar")):
            return _read_jars(jars)
    if any((path / module).is_dir() for module in MODULES):
        return _read_folder(path)
    raise ImportSchemasError(
        f"{path} is neither a Kafka source tree, nor a folder of schema folders"
        f" ({', '.join(MODULES)}), nor a folder of the release's jars"
    )


def _read_source_tree(root: Path) -> Source:
    messages = {}
    for module in MODULES:
        texts: dict[str, str] = {}
        for folder in _FOLDERS:
            texts |= _texts(root / module / "src/main/resources" / folder)
        if texts:
            messages[module] = texts
    properties = root / "gradle.properties"
    release = None
    if properties.is_file():
        found = re.search(r"^version=(\S+)$", properties.read_text(encoding="utf-8"), re.MULTILINE)
        release = found[1] if found else None
    java = root / "clients/src/main/java/org/apache/kafka/common"
    errors = read_errors_java(java) if (java / "protocol/Errors.java").is_file() else None
    return Source("source tree", release, messages, errors, None)


def _read_folder(root: Path) -> Source:
    messages = {module: _texts(root / module) for module in MODULES if (root / module).is_dir()}
    errors = configs = release = None
    for folder in (root, root.parent):
        if errors is None and (folder / "errors.md").is_file():
            errors = read_errors_table((folder / "errors.md").read_text(encoding="utf-8"))
        tables = sorted(folder.glob("configs-*.json"))
        if configs is None and tables:
            configs = source_json.parse(tables[-1].read_text(encoding="utf-8"))
            found = _RELEASE_IN_NAME.search(tables[-1].name)
            release = found[1] if found else None
    return Source("folder of schemas", release, messages, errors, configs)


def _read_jars(folder: Path) -> Source:
    messages: dict[str, dict[str, str]] = {}
    release = None
    for jar in sorted(folder.glob("*.jar")):
        name = _JAR.match(jar.name)
        if name is None or name["module"] not in MODULES:
            continue
        with zipfile.ZipFile(jar) as archive:
            texts = {
                Path(entry).stem: archive.read(entry).decode("utf-8")
                for entry in sorted(archive.namelist())
                if _ENTRY.fullmatch(entry)
            }
        if texts:
            messages[name["module"]] = texts
            release = name["release"]
    return Source("set of jars", release, messages, None, None)


def _texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json"))}


def read_errors_table(markdown: str) -> list[dict[str, Any]]:
    """The rows ``| code | NAME | yes or nothing |`` of a table, by code."""
    rows = re.findall(
        r"^\|\s*(-?\d+)\s*\|\s*([A-Z0-9_]+)\s*\|\s*(yes)?\s*\|$", markdown, re.MULTILINE
    )
    table = [
        {"code": int(code), "name": name, "retriable": retriable == "yes"}
        for code, name, retriable in rows
    ]
    return sorted(table, key=lambda row: int(row["code"]))


def facts(value: Any) -> Any:
    """The same schema without prose."""
    if isinstance(value, dict):
        return {key: facts(item) for key, item in value.items() if key not in PROSE}
    if isinstance(value, list):
        return [facts(item) for item in value]
    return value


def render_messages(source: Source) -> dict[str, str]:
    """Path below ``schemas/`` -> text, for every message of the source."""
    rendered = {}
    for module, texts in source.messages.items():
        for stem, text in texts.items():
            try:
                schema = facts(source_json.parse(text))
                message = parse_message(schema, module)
            except (SchemaError, ValueError, KeyError) as error:
                raise ImportSchemasError(f"{module}/{stem}.json: {error}") from error
            folder = "api" if message.type in API_TYPES else f"internal_records/{module}"
            rendered[f"{folder}/{message.name}.json"] = source_json.render(schema) + "\n"
    return rendered


def render_errors(errors: Sequence[Mapping[str, Any]]) -> str:
    """Kafka's codes run without a gap: one that is missing was not understood."""
    codes = [row["code"] for row in errors]
    missing = sorted(set(range(min(codes), max(codes) + 1)) - set(codes)) if codes else [0]
    if missing:
        raise ImportSchemasError(f"the error table has no codes {missing}")
    return source_json.render(list(errors)) + "\n"


def render_configs(configs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Name, type, default, validator, synonyms and dynamic scope of every setting, by scope."""
    kept = ("name", "type", "default", "validator", "synonyms", "dynamic", "internal")
    table = {
        scope: [{key: row[key] for key in kept if key in row} for row in rows]
        for scope, rows in configs.items()
    }
    return source_json.render(table) + "\n"


def render_readme(source: Source, target: Path) -> str:
    """The page beside the schemas; counts what ``target`` holds."""
    folders = ("api", *(f"internal_records/{module}" for module in sorted(MODULES)))
    counts = {folder: len(list((target / folder).glob("*.json"))) for folder in folders}
    rows = "\n".join(f"| `{folder}/` | {count} |" for folder, count in counts.items() if count)
    return _README.format(release=source.release or "an unknown release", rows=rows)


_README = """# Message schemas

The facts of Apache Kafka {release}: names, types, versions, tags and defaults of every message, in
Kafka's own schema language, plus the error codes (`errors.json`) and the settings (`configs.json`).
Comments and descriptions are not kept. The originals are part of Apache Kafka (Apache License 2.0).

| folder | schemas |
|---|---:|
{rows}

`api/` holds requests, responses and headers; `internal_records/` what Kafka keeps in its own
topics and files, by the Kafka module that owns it.

To move to another release, point the importer at its source tree, its jars or a folder of schemas,
and generate again:

    python -m codegen.import_schemas PATH_TO_KAFKA
    python -m codegen

These files are written by that command; edits are lost.
"""


def write(source: Source, target: Path) -> Iterator[str]:
    """Bring ``target`` up to date; yields what is to be told to the person."""
    messages = render_messages(source)
    if not messages:
        raise ImportSchemasError("the source holds no message schema")
    errors = None if source.errors is None else render_errors(source.errors)
    for module in MODULES:
        folders = [f"internal_records/{module}", *(["api"] if module == "clients" else [])]
        there = [path for folder in folders for path in sorted((target / folder).glob("*.json"))]
        if module not in source.messages:
            if there:
                yield f"STALE: {folders[0]}/ is left as it was; the {source.kind} has no {module}"
            continue
        for path in there:
            name = path.relative_to(target).as_posix()
            if name not in messages:
                path.unlink()
                yield f"removed {name}"
    for name, text in messages.items():
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (target / "README.md").write_text(render_readme(source, target), encoding="utf-8")
    yield f"{len(messages)} schemas of Kafka {source.release or '(unknown release)'}"
    if source.errors is not None and errors is not None:
        (target / "errors.json").write_text(errors, encoding="utf-8")
        yield f"{len(source.errors)} error codes"
    else:
        yield f"STALE: errors.json is left as it was; the {source.kind} has no error table"
    if source.configs is not None:
        (target / "configs.json").write_text(render_configs(source.configs), encoding="utf-8")
        yield f"{sum(map(len, source.configs.values()))} settings"
    else:
        yield f"STALE: configs.json is left as it was; the {source.kind} has no settings table"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m codegen.import_schemas", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--target", type=Path, default=SCHEMAS, help="default: schemas/")
    options = parser.parse_args(arguments)
    try:
        for line in write(read_source(options.source), options.target):
            print(line)
    except ImportSchemasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
