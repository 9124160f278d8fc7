"""``python -m codegen [--check]``: write the generated part of kbroker/protocol, or compare it."""

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from codegen.render import render_all

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "schemas"
TARGET = ROOT / "kbroker" / "protocol"
OWNED_FOLDERS = ("messages", "internal_records")  # every other module in them is a stray


def strays(rendered: Mapping[str, str], target: Path) -> list[Path]:
    """Modules in the generated folders that no schema stands behind any more."""
    return [
        path
        for folder in OWNED_FOLDERS
        for path in sorted((target / folder).glob("*.py"))
        if path.name != "__init__.py" and f"{folder}/{path.name}" not in rendered
    ]


def differences(rendered: Mapping[str, str], target: Path) -> Iterator[str]:
    """A unified diff from what is there to what should be; nothing when they are the same."""
    for name, text in rendered.items():
        path = target / name
        current = path.read_text(encoding="utf-8") if path.is_file() else ""
        if current != text:
            yield from difflib.unified_diff(
                current.splitlines(keepends=True),
                text.splitlines(keepends=True),
                f"{name} (committed)",
                f"{name} (generated)",
            )
    for path in strays(rendered, target):
        yield f"stray file: {path.relative_to(target)}\n"


def write(rendered: Mapping[str, str], target: Path) -> int:
    """Bring ``target`` up to date; returns how many files changed."""
    changed = 0
    for name, text in rendered.items():
        path = target / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        changed += 1
    for path in strays(rendered, target):
        path.unlink()
        changed += 1
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m codegen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; fail with the diff")
    parser.add_argument("--schemas", type=Path, default=SCHEMAS)
    parser.add_argument("--target", type=Path, default=TARGET)
    options = parser.parse_args(arguments)
    rendered = render_all(options.schemas)
    if options.check:
        diff = list(differences(rendered, options.target))
        sys.stdout.writelines(diff)
        if diff:
            print("generated code is out of date: run `python -m codegen`", file=sys.stderr)
        return 1 if diff else 0
    changed = write(rendered, options.target)
    print(f"{len(rendered)} files, {changed} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
