"""A broker that is stopped while connections come and go."""

from __future__ import annotations

import socket

from kbroker import BrokerThread
from tests.sizes import size


def test_a_connection_that_comes_and_goes_while_the_broker_stops():
    """uvloop forgets a connection whose start is cancelled; the broker then waited for its end."""
    for _ in range(size(ci=40, full=600)):
        with BrokerThread() as broker:
            port = int(broker.bootstrap_servers.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                pass
