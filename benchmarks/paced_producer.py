"""Another producer's load, in a process of its own: records of 1 KiB at a steady rate."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.throughput import RECORD_SIZE, values

if TYPE_CHECKING:
    from collections.abc import Iterator

_TICK_S = 0.005
_READY = "producing"


@contextmanager
def paced_producer(bootstrap: str, topic: str, *, records_per_s: int) -> Iterator[None]:
    """Such a producer, at its rate on entry. Raises RuntimeError when it could not keep it."""
    command = [sys.executable, "-m", __name__, bootstrap, topic, str(records_per_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().decode().strip() != _READY:
                raise RuntimeError("the other producer did not start")
            yield
            output, _ = process.communicate(timeout=60)  # the end of its input ends it
            share = float(output)
            if share < 0.9:
                raise RuntimeError(f"the other producer reached {share:.0%} of its rate")
        finally:
            process.kill()


def main() -> int:
    """Produce until standard input ends, then print the share of the rate that was reached."""
    import threading

    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("records_per_s", type=int)
    options = parser.parse_args()
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    _produce(options.bootstrap, options.topic, options.records_per_s, ended)
    return 0


def _produce(bootstrap: str, topic: str, records_per_s: int, ended: object) -> None:
    import threading

    from confluent_kafka import Producer

    assert isinstance(ended, threading.Event)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "1"})
    producer.list_topics(topic)
    sent_values = values(RECORD_SIZE)
    started, sent, is_announced = time.monotonic(), 0, False
    while not ended.is_set():
        due = int((time.monotonic() - started) * records_per_s)
        for number in range(sent, due):
            producer.produce(topic, sent_values[number % len(sent_values)])
        sent = max(sent, due)
        producer.poll(0)
        if not is_announced and time.monotonic() - started > 1.0:
            print(_READY, flush=True)
            is_announced = True
        time.sleep(_TICK_S)
    left = producer.flush(10)
    print((sent - left) / ((time.monotonic() - started) * records_per_s), flush=True)


if __name__ == "__main__":
    sys.exit(main())
