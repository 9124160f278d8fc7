import subprocess
import sys

from kbroker.record import crc


def test_known_checksums():
    assert crc.crc32c(b"") == 0
    assert crc.crc32c(b"123456789") == 0xE3069283
    assert crc.crc32c(memoryview(bytearray(b"xx123456789"))[2:]) == 0xE3069283


def test_the_package_and_what_it_imports_stay_out():
    program = (
        "import sys, kbroker.record.crc as crc\n"
        "assert crc.crc32c(b'123456789') == 0xE3069283\n"
        "print([name for name in ('crc32c', 'importlib.metadata', 'argparse') "
        "if name in sys.modules])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"


def test_the_plain_import_is_the_fallback(monkeypatch):
    monkeypatch.setattr(crc, "_load_extension", lambda: None)
    checksum, _ = crc._load()
    assert checksum(b"123456789") == 0xE3069283


def test_an_imported_package_is_used(monkeypatch):
    import crc32c

    monkeypatch.setitem(sys.modules, "crc32c", crc32c)
    assert crc._load_extension() is None
