"""Brokers in the process of the test: both forms, alone and many, and what they must not touch."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

import kbroker
from kbroker import Broker, BrokerThread, embedded
from kbroker.config.config_def import ConfigError
from kbroker.embedded import StartError
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.sizes import size

API_VERSIONS_V0 = bytes.fromhex("0000001000120000000000070006" + b"tester".hex())
"""A whole frame: API key 18, version 0, correlation id 7, client id."""


def run_python(program, *flags, timeout=50):
    """A program in a process of its own, so that nothing of this one is seen or spoilt."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_open(port):
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def broker_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("kbroker")]


def exchange(port):
    """One request of a client that blocks; the correlation id of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(API_VERSIONS_V0)
        head = client.recv(8)
        return int.from_bytes(head[4:8], "big")


# In the caller's loop


async def _tour_of_a_broker():
    async with Broker() as broker:
        port = broker.port
        assert broker.bootstrap_servers == f"127.0.0.1:{port}"
        assert len(broker.cluster_id) == 22
        assert await asyncio.to_thread(exchange, port) == 7
        await broker.create_topic("orders", partitions=3, config={"retention.ms": 1000})
        with pytest.raises(KafkaError) as caught:
            await broker.create_topic("orders")
        assert caught.value.error_code is ErrorCode.TOPIC_ALREADY_EXISTS
        first = await broker.produce(
            "orders", "v", key="k", headers=[("h", b"1")], timestamp=1_700_000_000_000
        )
        assert first == (first[0], 0)
        assert await broker.produce("orders", b"w", key=b"k") == (first[0], 1)
        records = await broker.consume("orders")
        assert [(r.topic, r.partition, r.offset, r.key, r.value) for r in records] == [
            ("orders", first[0], 0, b"k", b"v"),
            ("orders", first[0], 1, b"k", b"w"),
        ]
        assert records[0].headers == [("h", b"1")]
        assert records[0].timestamp == 1_700_000_000_000
        assert await broker.consume("orders", count=1) == records[:1]
        with pytest.raises(TimeoutError):
            await broker.consume("orders", count=3, timeout_s=0.05)
    assert not is_open(port)
    assert broker_threads() == []
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others


def test_a_tour_of_a_broker():
    asyncio.run(_tour_of_a_broker())


def test_waiting_for_records_that_come():
    async def main():
        async with Broker() as broker:
            waiting = asyncio.create_task(broker.consume("later", count=2))
            await asyncio.sleep(0)
            await broker.produce("later", "a", partition=0)
            await broker.produce("later", "b", partition=0)
            return [record.value for record in await waiting]

    assert asyncio.run(main()) == [b"a", b"b"]


def test_waiting_for_a_topic_that_comes():
    with BrokerThread() as broker:
        assert broker.consume("late") == []
        later = threading.Timer(0.05, broker.produce, ("late", b"x"))
        later.start()
        (record,) = broker.consume("late", count=1, timeout_s=30)
        later.join()
        assert record.value == b"x"


def test_started_in_one_task_and_stopped_in_another():
    """As fixtures of asyncio test plugins do it."""

    async def main():
        broker = Broker()
        await asyncio.create_task(broker.start())
        await broker.produce("t", "v")
        port = broker.port
        await asyncio.create_task(broker.stop())
        await broker.stop()
        assert not is_open(port)

    asyncio.run(main())


def test_stopping_is_finished_though_cancelled():
    async def main():
        broker = Broker()
        await broker.start()
        port = broker.port
        stopping = asyncio.create_task(broker.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert not is_open(port)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_starting_can_be_cancelled():
    async def main():
        starting = asyncio.create_task(Broker().start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_an_error_in_the_block_stops_the_broker_and_goes_on():
    async def main():
        async with Broker() as broker:
            ports.append(broker.port)
            raise LookupError("mine")

    ports = []
    with pytest.raises(LookupError, match="mine"):
        asyncio.run(main())
    assert not is_open(ports[0])


def test_plain_code_is_told_the_form_to_use():
    with pytest.raises(TypeError, match="BrokerThread"), Broker():
        pass


# In a thread


def test_a_tour_of_a_broker_thread():
    with BrokerThread() as broker:
        (thread,) = broker_threads()
        assert thread.daemon
        assert thread.name == f"kbroker-{broker.port}"
        assert exchange(broker.port) == 7
        broker.create_topic("orders", partitions=2)
        assert broker.produce("orders", "v", partition=1) == (1, 0)
        (record,) = broker.consume("orders", count=1)
        assert (record.partition, record.value, record.key) == (1, b"v", None)
        with pytest.raises(KafkaError):
            broker.create_topic("orders")
        with pytest.raises(KafkaError) as caught:
            broker.produce("orders", "v", partition=7)
        assert caught.value.error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        with pytest.raises(TimeoutError, match="1 records"):
            broker.consume("orders", count=2, timeout_s=0.05)
        assert str(broker.port) in repr(broker)
    assert broker_threads() == []
    assert not is_open(int(thread.name.rpartition("-")[2]))
    broker.stop()


def test_blocking_clients_and_other_threads_may_use_it_at_once():
    with BrokerThread() as broker:
        seen = []
        threads = [
            threading.Thread(target=lambda n=n: seen.append(broker.produce("t", str(n))))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == [(0, offset) for offset in range(8)]
        assert {r.value for r in broker.consume("t")} == {b"%d" % n for n in range(8)}


def test_a_broker_thread_inside_a_running_loop():
    async def main():
        with BrokerThread() as broker:
            assert exchange(broker.port) == 7  # blocks this loop, not the broker's
            broker.produce("t", "v")
            return broker.consume("t", count=1)[0].value

    assert asyncio.run(main()) == b"v"


@pytest.mark.parametrize("form", [Broker, BrokerThread])
def test_what_is_not_running_says_so(form):
    broker = form()
    assert "not running" in repr(broker)
    with pytest.raises(RuntimeError, match="not running"):
        _ = broker.bootstrap_servers
    with pytest.raises(RuntimeError, match="not running"):
        called = broker.consume("t")
        asyncio.run(called)


def test_starting_twice():
    with BrokerThread() as broker, pytest.raises(RuntimeError, match="already"):
        broker.start()


def test_a_broker_can_be_started_again():
    broker = BrokerThread()
    for _ in range(2):
        with broker:
            assert broker.produce("t", "v") == (0, 0)


# Where and how


@pytest.mark.parametrize("form", [Broker, BrokerThread])
def test_a_directory_keeps_the_data(form, tmp_path):
    async def in_loop(work):
        async with Broker(data_dir=tmp_path) as broker:
            return await work(broker)

    def run(verb, *arguments):
        if form is Broker:
            return asyncio.run(in_loop(lambda broker: getattr(broker, verb)(*arguments)))
        with BrokerThread(data_dir=str(tmp_path)) as broker:
            return getattr(broker, verb)(*arguments)

    assert run("produce", "t", "one") == (0, 0)
    assert run("produce", "t", "two") == (0, 1)
    assert [record.value for record in run("consume", "t")] == [b"one", b"two"]


def test_memory_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with BrokerThread() as broker:
        broker.produce("t", "v")
    assert list(tmp_path.iterdir()) == []


def test_settings_act():
    with BrokerThread(settings={"num.partitions": 4, "auto.create.topics.enable": True}) as broker:
        offsets = {broker.produce("auto", str(n))[0] for n in range(8)}
    assert offsets == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"num.partitions": "many"}, ConfigError),
        ({"num.partitions": -5}, ConfigError),
        ({"authorizer.class.name": "x.Y"}, StartError),
    ],
)
def test_impossible_settings(settings, error):
    for form in (Broker, BrokerThread):
        with pytest.raises(error):
            form(settings=settings)


def test_ipv6():
    with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback here")
    with BrokerThread(host="::1") as broker:
        assert broker.bootstrap_servers == f"[::1]:{broker.port}"
        with socket.create_connection(("::1", broker.port), timeout=5):
            pass


def test_a_taken_port_is_a_start_error():
    async def main(port):
        async with Broker(port=port):
            pass

    with BrokerThread() as first:
        with pytest.raises(StartError, match=str(first.port)):
            BrokerThread(port=first.port).start()
        with pytest.raises(StartError, match=str(first.port)):
            asyncio.run(main(first.port))
        assert len(broker_threads()) == 1


def test_a_locked_directory_is_a_start_error(tmp_path):
    with BrokerThread(data_dir=tmp_path), pytest.raises(StartError, match="in use"):
        BrokerThread(data_dir=tmp_path).start()


def test_twenty_side_by_side():
    async def ten():
        async with contextlib.AsyncExitStack() as stack:
            brokers = [await stack.enter_async_context(Broker()) for _ in range(10)]
            for number, broker in enumerate(brokers):
                await broker.produce("t", str(number))
            return [[r.value for r in await broker.consume("t")] for broker in brokers]

    with contextlib.ExitStack() as stack:
        threads = [stack.enter_context(BrokerThread()) for _ in range(10)]
        for number, broker in enumerate(threads):
            broker.produce("t", str(number))
        assert asyncio.run(ten()) == [[b"%d" % n] for n in range(10)]
        assert [[r.value for r in broker.consume("t")] for broker in threads] == [
            [b"%d" % n] for n in range(10)
        ]
        assert len({broker.bootstrap_servers for broker in threads}) == 10
        assert len({broker.cluster_id for broker in threads}) == 10
    assert broker_threads() == []


# What must stay as it was

STATE = """
    import asyncio, gc, logging, os, signal, sys, threading, warnings

    def state():
        umask = os.umask(0)
        os.umask(umask)
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        found = {
            "gc": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count(), gc.get_debug()),
            "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
            "wakeup": wakeup,
            "logging": (logging.root.level, list(logging.root.handlers), logging.raiseExceptions,
                        logging.lastResort, logging.getLogger("kbroker").handlers),
            "policy": asyncio.get_event_loop_policy(),
            "umask": umask,
            "warnings": list(warnings.filters),
            "environment": dict(os.environ),
            "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.gettrace()),
            "switching": sys.getswitchinterval(),
            "recursion": sys.getrecursionlimit(),
            "directory": os.getcwd(),
            "path": list(sys.path),
        }
        try:
            import resource
        except ImportError:
            return found
        limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
        found["limits"] = {n: resource.getrlimit(getattr(resource, n)) for n in limits}
        return found

    before = state()
    from kbroker import Broker, BrokerThread

    def check(before, when):
        after = state()
        changed = {k: (before[k], after[k]) for k in before if before[k] != after[k]}
        assert not changed, (when, changed)

    async def in_loop():
        before = state()  # asyncio.run has a signal handler of its own
        async with Broker() as broker:
            await broker.produce("t", "v")
            check(before, "while it runs")
        check(before, "after it")

    asyncio.run(in_loop())
    check(before, "after the loop")
    with BrokerThread() as broker:
        broker.produce("t", "v")
        check(before, "while the thread runs")
    check(before, "after the thread")
"""


def test_process_wide_state_is_untouched():
    run_python(STATE)


LEAKS = """
    import asyncio, gc, os, socket, sys, threading
    from types import SimpleNamespace
    from kbroker import Broker, BrokerThread
    from kbroker.common.clock import SystemClock
    from kbroker.handlers.dispatch import Dispatcher

    COUNT = int({count})

    def ask(port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall({request!r})
            assert client.recv(8)[4:] == bytes((0, 0, 0, 7))

    def descriptors():
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    async def in_loop(count):
        for _ in range(count):
            async with Broker() as broker:
                await broker.produce("t", "v")
                await asyncio.get_running_loop().run_in_executor(None, ask, broker.port)
        return len(asyncio.all_tasks()) - 1

    def in_threads(count):
        for _ in range(count):
            with BrokerThread() as broker:
                broker.produce("t", "v")
                ask(broker.port)
        return 0

    def measured():
        gc.collect()
        return descriptors(), threading.active_count(), sys.getallocatedblocks()

    # What a broker that lives for half a second imports would look like a leak.
    asyncio.run(Dispatcher(SimpleNamespace(clock=SystemClock())).import_ahead())
    for run in (lambda n: asyncio.run(in_loop(n)), in_threads):
        run(5)  # what is imported and cached at first use
        before = measured()
        assert run(COUNT) == 0, "tasks"
        after = measured()
        assert after[:2] == before[:2], (before, after)
        grown = (after[2] - before[2]) / COUNT
        assert grown < 5, f"{{grown}} blocks of memory a broker"
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_in_a_row_leak_nothing():
    count = size(ci=100, full=1000)
    run_python(LEAKS.format(count=count, request=API_VERSIONS_V0), timeout=280)


FORK = """
    import os, socket, sys, time
    from kbroker import BrokerThread

    directory = sys.argv[1] if len(sys.argv) > 1 else None
    for data_dir in (None, {directory!r}):
        ask, answer = os.pipe()
        with BrokerThread(data_dir=data_dir) as broker:
            port = broker.port
            client = socket.create_connection(("127.0.0.1", port))
            broker.produce("t", "v")
            child = os.fork()
            if child == 0:
                os.close(answer)
                client.close()
                try:
                    broker.consume("t")
                except RuntimeError as error:
                    said = str(error)
                broker.stop()  # not the child's to stop
                os.read(ask, 1)  # lives on until the parent has looked
                os._exit(0 if "forked" in said else 3)
            os.close(ask)
            broker.produce("t", "w")  # the parent's is as it was
            assert len(broker.consume("t", count=2)) == 2
            time.sleep(0.05)
        # The broker is closed, the child lives: nothing of it may answer or hold the lock.
        client.settimeout(5)
        assert client.recv(1) == b"", "the child keeps a connection open"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            pass
        else:
            raise SystemExit("the child keeps the port open")
        if data_dir is not None:
            with BrokerThread(data_dir=data_dir) as again:
                assert len(again.consume("t")) == 2
        os.close(answer)
        assert os.waitpid(child, 0)[1] == 0
        print("closed")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_closes_its_copy(tmp_path):
    assert run_python(FORK.format(directory=str(tmp_path))).split() == ["closed", "closed"]


def test_the_package_imports_nothing_until_asked():
    output = run_python(
        "import sys, kbroker\n"
        "print([n for n in sys.modules if n.startswith('kbroker.')], 'asyncio' in sys.modules)"
    )
    assert output.strip() == "[] False"
    with pytest.raises(AttributeError):
        _ = kbroker.Brokers


# The watchdog


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_blocking_client_in_the_brokers_loop_is_named_once(monkeypatch, caplog):
    monkeypatch.setattr(embedded, "BLOCKED_AFTER_S", 0.1)

    async def main():
        async with Broker() as broker:
            with socket.create_connection(("127.0.0.1", broker.port), timeout=0.6) as client:
                client.sendall(API_VERSIONS_V0)
                with pytest.raises(TimeoutError):
                    client.recv(8)
                with pytest.raises(TimeoutError):
                    client.recv(8)

    asyncio.run(main())
    (message,) = warnings_of(caplog)
    assert "with BrokerThread()" in message
    assert "test_embedded.py" in message


def test_a_loop_that_is_busy_while_nobody_waits_is_not_named(monkeypatch, caplog):
    monkeypatch.setattr(embedded, "BLOCKED_AFTER_S", 0.04)

    async def main():
        async with Broker() as broker:
            assert await asyncio.to_thread(exchange, broker.port) == 7
            threading.Event().wait(0.2)

    asyncio.run(main())
    assert warnings_of(caplog) == []


def test_an_idle_loop_is_not_woken(monkeypatch):
    monkeypatch.setattr(embedded, "BLOCKED_AFTER_S", 0.02)

    async def main():
        async with Broker():
            loop = asyncio.get_running_loop()
            woken = []
            monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a: woken.append(a))
            await asyncio.sleep(0.1)
            monkeypatch.undo()
            return woken

    assert asyncio.run(main()) == []
