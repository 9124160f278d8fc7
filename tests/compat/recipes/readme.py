"""The code blocks of README.md."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(heading: str, language: str) -> list[str]:
    """The blocks in that language of the section with that heading (without its #)."""
    text = (ROOT / "README.md").read_text()
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    if found is None:
        raise LookupError(f"README.md has no section {heading!r}")
    section = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", _without_code(section), re.MULTILINE)
    if following is not None:
        section = section[: following.start()]
    return [match["code"] for match in _BLOCK.finditer(section) if match["language"] == language]


def block(heading: str, language: str) -> str:
    """The only such block."""
    (only,) = blocks(heading, language)
    return only


def put_file(heading: str, language: str, folder: Path) -> Path:
    """Write the section's only block to the file that its first line names, below ``folder``."""
    code = block(heading, language)
    named = re.match(r"(?:#|//) (\S+)\n", code)
    if named is None:
        raise LookupError(f"{heading}: the first line names no file")
    path = folder / named[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return path


def _without_code(text: str) -> str:
    """The same length, code blanked out: a comment in a script is no heading."""
    return _BLOCK.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
