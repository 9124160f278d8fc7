"""Kafka's schema files are JSON with comments, ours are JSON: reading one, writing the other."""

import json
import re
from typing import Any

_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<comma>,)(?=\s*[}\]])',
    re.DOTALL,
)
_WIDTH = 100


def parse(text: str) -> Any:
    """JSON that may hold ``//`` and ``/* */`` comments and commas before a closing bracket."""
    without_comments = _TOKEN.sub(_keep_strings_and_commas, text)
    return json.loads(_TOKEN.sub(lambda match: match["string"] or "", without_comments))


def _keep_strings_and_commas(match: re.Match[str]) -> str:
    return match["string"] or match["comma"] or " "


def render(value: Any, indent: int = 0) -> str:
    """Stable, readable JSON: what fits on a line stands on a line."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= _WIDTH or not isinstance(value, (dict, list)) or not value:
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        items = [
            f"{inner}{json.dumps(key)}: {render(item, indent + 2)}" for key, item in value.items()
        ]
        brackets = "{}"
    else:
        items = [inner + render(item, indent + 2) for item in value]
        brackets = "[]"
    return f"{brackets[0]}\n" + ",\n".join(items) + f"\n{' ' * indent}{brackets[1]}"
