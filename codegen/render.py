"""Everything that `python -m codegen` writes: path below the package -> text."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from codegen.lines import Lines
from codegen.module_plan import module_name, plan_module
from codegen.names import constant, snake_case
from codegen.schema import Message, load_folder

API_TYPES = ("request", "response", "header")
COORDINATORS: Mapping[str, str] = {
    "group-coordinator": "GROUP_RECORDS",
    "transaction-coordinator": "TRANSACTION_RECORDS",
    "share-coordinator": "SHARE_RECORDS",
}
OTHER_RECORDS: Mapping[str, str] = {
    "metadata": "METADATA_RECORDS",
    "storage": "REMOTE_LOG_METADATA_RECORDS",
}


class CodegenError(Exception):
    """The schemas contradict each other."""


def environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render_message(
    message: Message, source: str, templates: jinja2.Environment, *, native: bool = False
) -> str:
    """The module of one message."""
    module = plan_module(message, source, native=native)
    return _tidy(templates.get_template("message.py.j2").render(module=module))


def render_all(schemas: Path, *, native: bool = False) -> dict[str, str]:
    """Every generated file of ``kbroker/protocol``; ``native``: messages as mypyc likes them."""
    templates = environment()
    rendered: dict[str, str] = {}
    api_messages = list(load_folder(schemas / "api"))
    record_messages = list(load_folder(schemas / "internal_records"))
    for folder, group in (("messages", api_messages), ("internal_records", record_messages)):
        for message in group:
            if message.removed:
                continue
            path = f"{folder}/{module_name(message)}.py"
            if path in rendered:
                raise CodegenError(f"two schemas are called {message.name}")
            below = "api" if folder == "messages" else f"{folder}/{message.module}"
            source = f"schemas/{below}/{message.name}.json"
            rendered[path] = render_message(message, source, templates, native=native)
    errors = json.loads((schemas / "errors.json").read_text(encoding="utf-8"))
    rendered["error_codes.py"] = _tidy(
        templates.get_template("error_codes.py.j2").render(errors=errors)
    )
    rendered["api_keys.py"] = _tidy(
        templates.get_template("api_keys.py.j2").render(keys=_keys(api_messages))
    )
    rendered["registry.py"] = _tidy(
        templates.get_template("registry.py.j2").render(**_registry(api_messages))
    )
    rendered["internal_records/registry.py"] = _tidy(
        templates.get_template("internal_registry.py.j2").render(**_records(record_messages))
    )
    return rendered


def _tidy(text: str) -> str:
    """No trailing spaces, no more than two empty lines, one newline at the end."""
    lines: list[str] = []
    for line in (line.rstrip() for line in text.splitlines()):
        if not line and lines[-2:] == ["", ""]:
            continue
        lines.append(line)
    return "\n".join(lines).strip() + "\n"


def _api_name(message: Message) -> str:
    return message.name.removesuffix("Request")


def _requests(messages: Sequence[Message]) -> list[Message]:
    found = [message for message in messages if message.type == "request"]
    return sorted(found, key=lambda message: message.api_key or 0)


def _keys(messages: Sequence[Message]) -> list[tuple[str, int | None]]:
    return [(constant(_api_name(message)), message.api_key) for message in _requests(messages)]


def _registry(messages: Sequence[Message]) -> dict[str, Any]:
    responses = {message.api_key: message for message in messages if message.type == "response"}
    apis = Lines(2)
    reserved = []
    listener_sets: dict[tuple[str, ...], str] = {}
    for request in _requests(messages):
        key = request.api_key
        response = responses.get(key)
        if key is None or response is None:
            raise CodegenError(f"{request.name} has no key or no response")
        if (request.valid, request.flexible_from) != (response.valid, response.flexible_from):
            raise CodegenError(f"{request.name} and its response differ in versions")
        if request.removed:
            reserved.append(key)
            continue
        members = tuple(sorted(request.listeners))
        listeners = listener_sets.setdefault(members, "_" + "_AND_".join(members).upper())
        values = [
            str(key),
            f'"{_api_name(request)}"',
            f'"{snake_case(_api_name(request))}"',
            str(request.valid.lowest),
            str(request.valid.highest - request.latest_version_unstable),
            str(request.latest_version_unstable),
            str(request.flexible_from),
            listeners,
        ]
        apis.call(f"{key}: ApiInfo(", values, "),")
    return {
        "apis": apis.lines,
        "reserved": _set_literal([str(key) for key in reserved]),
        "listener_sets": [
            (name, _set_literal([f'"{member}"' for member in members]))
            for members, name in sorted(listener_sets.items())
        ],
    }


def _set_literal(members: Sequence[str]) -> str:
    return f"{{{', '.join(members)}}}" if members else "()"


def _records(messages: Sequence[Message]) -> dict[str, Any]:
    tables = []
    for module, name in COORDINATORS.items():
        keys = _by_type(messages, module, "coordinator-key")
        values = _by_type(messages, module, "coordinator-value")
        if keys.keys() != values.keys():
            raise CodegenError(f"{module}: record types of keys and values differ")
        lines = Lines(2)
        for number in sorted(keys):
            arguments = [str(number), keys[number], values[number]]
            lines.call(f"{number}: CoordinatorRecordInfo(", arguments, "),")
        tables.append({"name": name, "type": "CoordinatorRecordInfo", "lines": lines.lines})
    for module, name in OTHER_RECORDS.items():
        found = _by_type(messages, module, "metadata")
        lines = Lines(2)
        for number in sorted(found):
            lines.add(f"{number}: {found[number]},")
        tables.append({"name": name, "type": "RecordInfo", "lines": lines.lines})
    return {"tables": tables}


def _by_type(messages: Sequence[Message], module: str, kind: str) -> dict[int, str]:
    """Record type -> the source of its RecordInfo."""
    found: dict[int, str] = {}
    for message in messages:
        if message.module == module and message.type == kind and not message.removed:
            if message.api_key is None or message.api_key in found:
                raise CodegenError(f"{message.name}: record type missing or used twice")
            versions = f"{message.valid.lowest}, {message.valid.highest}"
            found[message.api_key] = f'RecordInfo("{module_name(message)}", {versions})'
    return found
