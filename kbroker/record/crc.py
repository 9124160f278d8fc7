"""CRC-32C from crc32c's C extension, without what the package's ``__init__`` imports.

``import crc32c`` costs 17 ms of a broker's start (importlib.metadata, argparse); its extension
alone costs nothing to speak of. Where the extension is not found where a wheel puts it (a frozen
application, another version), the plain import is used.
"""

import importlib.machinery
import logging
import sys
from types import ModuleType
from typing import Protocol


class Checksum(Protocol):
    """The checksum of ``data``, carried on from ``crc``."""

    def __call__(self, data: bytes | bytearray | memoryview, crc: int = 0, /) -> int: ...


def _load_extension() -> ModuleType | None:
    """crc32c's extension module without its package, None where it cannot be found."""
    if "crc32c" in sys.modules:
        return None  # the price of the package is paid already
    package = importlib.machinery.PathFinder.find_spec("crc32c")
    if package is None or package.submodule_search_locations is None:
        return None
    name = "crc32c._crc32c"
    spec = importlib.machinery.PathFinder.find_spec(name, package.submodule_search_locations)
    if spec is None or not isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
        return None
    try:
        module: ModuleType = spec.loader.create_module(spec)
        spec.loader.exec_module(module)
    except ImportError:
        return None  # the plain import tells what is wrong
    return module if hasattr(module, "crc32c") else None


def _load() -> tuple[Checksum, bool]:
    """(the function, whether it runs on the processor's CRC instruction)."""
    module = _load_extension()
    if module is None:
        import crc32c as package

        return package.crc32c, bool(package.hardware_based)
    return module.crc32c, bool(getattr(module, "hardware_based", False))


crc32c, hardware_based = _load()
"""CRC-32C of any bytes-like object, writable views included (0 for no bytes)."""

if not hardware_based:
    logging.getLogger("kbroker.record").warning(
        "this processor or this build of crc32c has no CRC-32C instruction: "
        "checksums take ten times as long"
    )
