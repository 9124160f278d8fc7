"""Records as ``kbroker consume`` writes them: values, a template, or JSON; anywhere."""

import argparse
import base64
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from kbroker.cli.cluster import UsageError
from kbroker.cli.progress import Progress
from kbroker.client.reader import FetchedRecord

_FIELDS: Final = ("topic", "partition", "offset", "timestamp", "time", "key", "value", "headers")
_NUMBERS: Final = ("partition", "offset", "timestamp")


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """``--format``, ``--output``."""
    parser.add_argument(
        "--format",
        metavar="TEMPLATE",
        help=f"with {{value}} and the like: {', '.join(_FIELDS)} (default: the value alone)",
    )
    parser.add_argument("--output", metavar="FILE", help="write there, not to standard output")


class RecordOutput:
    """``with RecordOutput(...) as output``; raises UsageError for options that cannot be meant."""

    def __init__(
        self,
        topic: str,
        *,
        template: str | None,
        as_json: bool,
        file: str | None,
        count: int | None,
    ) -> None:
        """``count``: how many records are wanted at most."""
        if count is not None and count < 1:
            raise UsageError(f"--count {count}: expected 1 or more")
        _check_template(template)
        self._topic = topic
        self._template = template
        self._as_json = as_json
        self._file_name = file
        self._left = count
        self._stream: BinaryIO = sys.stdout.buffer
        self._progress = Progress(shown=file is not None or not sys.stdout.isatty())

    @property
    def is_complete(self) -> bool:
        """Whether as many records as wanted are written."""
        return self._left == 0

    def __enter__(self) -> Self:
        if self._file_name is not None:
            try:
                self._stream = open(self._file_name, "wb")
            except OSError as error:
                raise UsageError(f"--output {self._file_name}: {error.strerror}") from error
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.__exit__()
        if self._file_name is not None:
            self._stream.close()

    def write(
        self, fetched: Sequence[FetchedRecord], *, ends: Mapping[int, int] | None = None
    ) -> dict[int, int]:
        """Write and flush as many as are wanted; partition -> offset behind the last written.

        Records from ``ends`` on (partition -> offset) are left out.
        """
        written: dict[int, int] = {}
        size = count = 0
        for each in fetched:
            if self._left == 0:
                break
            if ends is not None and each.record.offset >= ends.get(each.partition, 0):
                continue
            size += self._stream.write(self._render(each) + b"\n")
            count += 1
            written[each.partition] = each.record.offset + 1
            if self._left is not None:
                self._left -= 1
        self._stream.flush()
        self._progress.advance(records=count, input_bytes=size)
        return written

    def _render(self, fetched: FetchedRecord) -> bytes:
        if self._as_json:
            return json.dumps(self._as_object(fetched), ensure_ascii=False).encode()
        if self._template is not None:
            return self._fill(self._template, fetched).encode("utf-8", "surrogateescape")
        return fetched.record.value or b""

    def _as_object(self, fetched: FetchedRecord) -> dict[str, Any]:
        record = fetched.record
        return {
            "topic": self._topic,
            "partition": fetched.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            **_json_bytes("key", record.key),
            **_json_bytes("value", record.value),
            "headers": [
                {"name": name, **_json_bytes("value", value)} for name, value in record.headers
            ],
        }

    def _fill(self, template: str, fetched: FetchedRecord) -> str:
        record = fetched.record
        moment = datetime.fromtimestamp(max(record.timestamp, 0) / 1000, UTC)
        return (
            template.replace("\\t", "\t")
            .replace("\\n", "\n")
            .format(
                topic=self._topic,
                partition=fetched.partition,
                offset=record.offset,
                timestamp=record.timestamp,
                time=moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                key=_text(record.key),
                value=_text(record.value),
                headers=",".join(f"{name}={_text(value)}" for name, value in record.headers),
            )
        )


def _check_template(template: str | None) -> None:
    try:
        (template or "").format(**dict.fromkeys(_FIELDS, "") | dict.fromkeys(_NUMBERS, 0))
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise UsageError(
            f"--format {template}: {error}; the fields are {', '.join(_FIELDS)}"
        ) from None


def _text(data: bytes | None) -> str:
    """Bytes that are no UTF-8 come out as they went in; null is nothing."""
    return "" if data is None else data.decode("utf-8", "surrogateescape")


def _json_bytes(name: str, data: bytes | None) -> dict[str, Any]:
    """Text where it is UTF-8, else ``NAME_base64``."""
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data or b"").decode()}
