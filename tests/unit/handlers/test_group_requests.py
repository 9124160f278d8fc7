"""What the handlers of groups share."""

import pytest

from kbroker.handlers.group_requests import java_address


@pytest.mark.parametrize(
    ("host", "printed"),
    [
        ("127.0.0.1", "/127.0.0.1"),
        ("::1", "/0:0:0:0:0:0:0:1"),
        ("fe80::1:2%eth0", "/fe80:0:0:0:0:0:1:2%eth0"),
        ("2001:db8::ff00:42:8329", "/2001:db8:0:0:0:ff00:42:8329"),
        ("::ffff:10.1.2.3", "/10.1.2.3"),
    ],
)
def test_addresses_are_printed_as_java_does(host: str, printed: str) -> None:
    assert java_address(host) == printed
