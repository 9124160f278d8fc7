"""Which modules are loaded when a broker is ready: each costs every start of every test run.

The list is meant to be edited: a module that the first answer needs belongs on it, one that only
some requests need is imported by its handler instead (``Dispatcher.import_ahead`` does so in the
background). Message modules are the ones to look out for: there are three hundred of them.
"""

import subprocess
import sys

LOADED_WHEN_READY = [
    "kbroker",
    "kbroker.broker",
    "kbroker.broker.broker_server",
    "kbroker.broker.coordinators",
    "kbroker.common",
    "kbroker.common.clock",
    "kbroker.common.entropy",
    "kbroker.common.faults",
    "kbroker.common.files",
    "kbroker.common.memory_files",
    "kbroker.common.named_tuple",
    "kbroker.common.offload",
    "kbroker.common.parts",
    "kbroker.common.timer",
    "kbroker.config",
    "kbroker.config.broker_config",
    "kbroker.config.broker_settings",
    "kbroker.config.config_def",
    "kbroker.config.listeners",
    "kbroker.config.topic_config",
    "kbroker.handlers",
    "kbroker.handlers.dispatch",
    "kbroker.handlers.registry",
    "kbroker.handlers.services",
    "kbroker.metadata",
    "kbroker.metadata.controller",
    "kbroker.metadata.delta",
    "kbroker.metadata.elections",
    "kbroker.metadata.image",
    "kbroker.metadata.keys",
    "kbroker.metadata.memory_store",
    "kbroker.metadata.producer_ids",
    "kbroker.metadata.publisher",
    "kbroker.metadata.store",
    "kbroker.metadata.topic_ids",
    "kbroker.metadata.topic_names",
    "kbroker.metadata.values",
    "kbroker.metadata.watch_history",
    "kbroker.network",
    "kbroker.network.connection",
    "kbroker.network.frame",
    "kbroker.network.limits",
    "kbroker.network.listener",
    "kbroker.network.output",
    "kbroker.network.protocol_shell",
    "kbroker.network.server",
    "kbroker.protocol",
    "kbroker.protocol.error_codes",
    "kbroker.protocol.errors",
    "kbroker.protocol.headers",
    "kbroker.protocol.messages",
    "kbroker.protocol.messages.request_header",
    "kbroker.protocol.registry",
    "kbroker.protocol.wire",
    "kbroker.replication",
    "kbroker.replication.cached_partition",
    "kbroker.replication.delayed_delete_records",
    "kbroker.replication.delayed_operations",
    "kbroker.replication.delayed_produce",
    "kbroker.replication.fetch_session",
    "kbroker.replication.purgatory",
    "kbroker.replication.replica_manager",
    "kbroker.request_context",
    "kbroker.storage",
    "kbroker.storage.background_jobs",
    "kbroker.storage.checkpoint_rows",
    "kbroker.storage.checkpoints",
    "kbroker.storage.data_directories",
    "kbroker.storage.io_throttle",
    "kbroker.storage.log_cleaner_manager",
    "kbroker.storage.log_directory",
    "kbroker.storage.log_environment",
    "kbroker.storage.log_manager",
    "kbroker.storage.log_moves",
    "kbroker.storage.log_startup",
    "kbroker.storage.log_state",
]

COMPILES_SOURCE = {"kbroker.replication.delayed_delete_records", "kbroker.storage.log_state"}
"""Modules that make a NamedTuple of typing's or quote a type where it is evaluated: 0.1 ms each."""

HEAVY = {"argparse", "json", "prometheus_client", "rich", "sqlite3", "typer", "uuid"}
"""What a broker that keeps everything in memory does without."""

PROGRAM = """
import sys
before = set(sys.modules)
compiled = set()

def note(event, _):
    if event == "compile":
        frame = sys._getframe(1)
        names = []
        while frame is not None:
            if frame.f_code.co_name in ("<module>", "get_code", "source_to_code"):
                names.append(frame.f_globals["__name__"])
            frame = frame.f_back
        compiled.add(names[0])  # who imports it, or the import machinery without bytecode

sys.addaudithook(note)
import anyio
from kbroker.broker.broker_server import BrokerServer
from kbroker.config.broker_config import BrokerConfig

async def main():
    config = BrokerConfig.from_properties({"listeners": "PLAINTEXT://127.0.0.1:0"})
    async with BrokerServer(config, memory=True):
        print(*sorted(set(sys.modules) - before))  # nothing has run in the background yet
        print(*sorted(compiled))

anyio.run(main)
"""


def modules_when_ready():
    """Which are loaded, and which have compiled something of their own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded, compiling = done.stdout.splitlines()
    return set(loaded.split()), set(compiling.split())


def test_what_is_loaded_when_a_broker_is_ready():
    loaded, compiling = modules_when_ready()
    ours = {name for name in loaded if name.partition(".")[0] == "kbroker"}
    assert ours == set(LOADED_WHEN_READY)
    assert not loaded & HEAVY
    assert {name for name in compiling if name.partition(".")[0] == "kbroker"} <= COMPILES_SOURCE


def test_the_list_is_sorted_and_has_one_message_module():
    assert sorted(LOADED_WHEN_READY) == LOADED_WHEN_READY
    messages = [name for name in LOADED_WHEN_READY if ".messages." in name]
    assert messages == ["kbroker.protocol.messages.request_header"]
    assert not any(".internal_records." in name for name in LOADED_WHEN_READY)
