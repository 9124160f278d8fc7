"""``python -m tests.peers``: runs an Apache Kafka until interrupted and prints its address.

For a look at what Kafka really does, and for ``KBROKER_COMPAT_BOOTSTRAP``.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from pathlib import Path

from tests.peers.apache_kafka import ApacheKafka
from tests.peers.require import PeerUnavailable


def main() -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="apache-kafka-") as folder:
        try:
            kafka = ApacheKafka(Path(folder) / "node")
        except PeerUnavailable as error:
            print(error, file=sys.stderr)
            return 1
        with kafka:
            print(f"apache-kafka ready bootstrap={kafka.bootstrap} pid={kafka.pid}", flush=True)
            stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
