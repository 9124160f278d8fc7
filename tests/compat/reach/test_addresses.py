"""The address that a client is told is one that it can reach.

By default it is the one the client dialled: on loopback, IPv4 and IPv6, and across network
namespaces, which stand for hosts and containers. Behind a forwarder it is what --advertise says or
what a PROXY v2 header names.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.peers.kbroker_process import KbrokerProcess
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.wire.connection import Conn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
ASK = (
    "import json, sys; from tests.wire.connection import Conn; "
    "c = Conn(sys.argv[1], int(sys.argv[2])); c.send('Metadata', 12, {'Topics': []}); "
    "b = c.recv(20)[4]['Brokers'][0]; print(json.dumps([b['Host'], b['Port']]))"
)


def told(host: str, port: int, *, first: bytes = b"") -> tuple[str, int]:
    """What a client that dials host:port is told to connect to."""
    connection = Conn(host, port)
    try:
        if first:
            connection.send_bytes(first)
        connection.send("Metadata", 12, {"Topics": []})
        broker = connection.recv(20)[4]["Brokers"][0]
        return broker["Host"], broker["Port"]
    finally:
        connection.close()


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KbrokerProcess]:
    process = KbrokerProcess(tmp_path, arguments=getattr(request, "param", ()))
    process.start()
    yield process
    process.stop()


class Forwarder:
    """What docker -p, ssh -L and kubectl port-forward do: another address in front."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            upstream = socket.create_connection(self.target)
            for source, sink in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        source.close()

    def close(self) -> None:
        self._server.close()


def test_loopback(broker):
    assert told("127.0.0.1", broker.port) == ("127.0.0.1", broker.port)


@pytest.mark.parametrize("broker", [("--host", "0.0.0.0")], indirect=True)
def test_every_address_answers_with_itself(broker):
    assert told("127.0.0.1", broker.port) == ("127.0.0.1", broker.port)
    assert told("127.0.0.2", broker.port) == ("127.0.0.2", broker.port)


@pytest.mark.parametrize("broker", [("--host", "::1")], indirect=True)
def test_ipv6(broker):
    assert told("::1", broker.port) == ("::1", broker.port)


def test_several_listeners(tmp_path):
    command = [
        *(sys.executable, "-m", "kbroker", "serve", "--memory"),
        *("--set", "listeners=A://127.0.0.1:0,B://[::1]:0"),
        *("--set", "listener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT"),
        *("--set", "advertised.listeners=B://b.example:1234"),
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as broker:
        ready = broker.stdout.readline()
        first, second = ready.split()[2].removeprefix("bootstrap=").split(",")
        assert told("127.0.0.1", int(first.rpartition(":")[2]))[0] == "127.0.0.1"
        assert told("::1", int(second.rpartition(":")[2])) == ("b.example", 1234)
        broker.terminate()


@pytest.mark.parametrize("broker", [("--advertise", "kafka.example:19092")], indirect=True)
def test_behind_a_forwarder(broker):
    forwarder = Forwarder(("127.0.0.1", broker.port))
    try:
        assert told("127.0.0.1", forwarder.port) == ("kafka.example", 19092)
    finally:
        forwarder.close()


@pytest.mark.parametrize("broker", [("--set", "kbroker.proxy.protocol=true")], indirect=True)
def test_a_proxy_header_names_what_was_dialled(broker):
    addresses = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.7")
    body = addresses + struct.pack(">HH", 50000, 9999)
    header = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack(">H", len(body)) + body
    assert told("127.0.0.1", broker.port, first=header) == ("198.51.100.7", 9999)
    local = b"\r\n\r\n\0\r\nQUIT\n" + b"\x20\x00" + struct.pack(">H", 0)
    assert told("127.0.0.1", broker.port, first=local) == ("127.0.0.1", broker.port)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable: (server's, client's); 10.203.0.1 and .2."""
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        skip_or_fail(PeerUnavailable("netns", "it takes root and iproute2"))
    suffix = f"{os.getpid() % 100000}"
    server, client = f"kbs{suffix}", f"kbc{suffix}"
    try:
        run("ip", "netns", "add", server)
        run("ip", "netns", "add", client)
    except subprocess.CalledProcessError as error:
        skip_or_fail(PeerUnavailable("netns", f"ip netns: {error.stderr.decode().strip()}"))
    try:
        run("ip", "link", "add", f"vs{suffix}", "type", "veth", "peer", "name", f"vc{suffix}")
        for name, link, address in (
            (server, f"vs{suffix}", "10.203.0.1/24"),
            (client, f"vc{suffix}", "10.203.0.2/24"),
        ):
            run("ip", "link", "set", link, "netns", name)
            run("ip", "-n", name, "addr", "add", address, "dev", link)
            run("ip", "-n", name, "link", "set", link, "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield server, client
    finally:
        run("ip", "netns", "delete", server)
        run("ip", "netns", "delete", client)


def test_two_hosts(two_hosts, tmp_path):
    server, client = two_hosts
    broker = subprocess.Popen(
        [
            *("ip", "netns", "exec", server, sys.executable, "-m", "kbroker", "serve"),
            *("--host", "0.0.0.0", "--port", "9092", "--memory"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert broker.stdout.readline().startswith("kbroker ready")
        for namespace, host in ((client, "10.203.0.1"), (server, "127.0.0.1")):
            command = ["ip", "netns", "exec", namespace, sys.executable, "-c", ASK, host, "9092"]
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
            )
            assert json.loads(done.stdout) == [host, 9092]
    finally:
        broker.terminate()
        broker.communicate(timeout=30)
