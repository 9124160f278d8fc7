"""``kbroker serve``: one broker in this process, until a signal ends it.

stdout carries exactly one line, when connections are accepted; everything else goes to stderr.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

from kbroker.config.broker_config import PROFILES, BrokerConfig, merge
from kbroker.config.config_def import ConfigError
from kbroker.config.listeners import parse_address
from kbroker.config.server_properties import environment_properties, parse_properties

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from kbroker.broker.trace import Tracer

    Options = Namespace | SimpleNamespace

DEFAULT_DATA_DIRECTORY = "kbroker-data"
EXIT_FAILED = 1
EXIT_USAGE = 2


def add_arguments(parser: "ArgumentParser") -> None:
    """The options of ``kbroker serve``."""
    add = parser.add_argument
    add(
        "properties",
        nargs="?",
        metavar="server.properties",
        help="a settings file; Apache Kafka's own works as it is",
    )
    add("--host", help="address to listen on (default 127.0.0.1; 0.0.0.0 or :: is every address)")
    add("--port", type=int, help="port to listen on (default 9092; 0 takes a free one)")
    add("--advertise", metavar="HOST:PORT", help="what clients are told to connect to")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--data-dir",
        metavar="DIR",
        help=f"where the data is kept (default ./{DEFAULT_DATA_DIRECTORY})",
    )
    where.add_argument("--memory", action="store_true", help="keep everything in memory")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="assignments",
        help="a setting under Kafka's name; may be repeated",
    )
    add("--profile", choices=sorted(PROFILES), default="dev", help="which defaults (default dev)")
    add("--log-format", choices=("text", "json"), default="text", help="default text")
    add(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="default info",
    )
    add(
        "--trace",
        nargs="?",
        const="",
        metavar="API,...",
        help="print each request and answer, decoded, to stderr: all, or those of the named APIs "
        "(--trace=Produce,Fetch)",
    )
    add("--trace-format", choices=("text", "json"), help="default: that of the log")
    add("--trace-full", action="store_true", help="cut no line of the trace")
    add(
        "--api-versions",
        metavar="RELEASE|FILE",
        help="pose as an older broker: a release of Apache Kafka such as 2.8 or 3.9, or a file of "
        'lines such as Produce = "3-9"',
    )
    add(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="serve /metrics (Prometheus), /health/live and /health/ready on this port of --host "
        "(0 takes a free one)",
    )
    add(
        "--stop-with-stdin",
        action="store_true",
        help="end when standard input is closed, as when the program that started this one ends",
    )
    add("--print-config", action="store_true", help="print the settings in force and exit")


def quick_options(words: Sequence[str]) -> SimpleNamespace | None:
    """What the parser would make of the usual options, each written in full before its value.

    None for everything else, errors included. Without the parser a broker starts 4 % sooner.
    """
    options = SimpleNamespace(
        properties=None,
        host=None,
        port=None,
        advertise=None,
        data_dir=None,
        memory=False,
        assignments=[],
        profile="dev",
        log_format="text",
        log_level="info",
        trace=None,
        trace_format=None,
        trace_full=False,
        api_versions=None,
        metrics_port=None,
        stop_with_stdin=False,
        print_config=False,
    )
    left = iter(words)
    for word in left:
        if word in ("--memory", "--stop-with-stdin"):
            setattr(options, word[2:].replace("-", "_"), True)
            continue
        value = next(left, "-")
        if value.startswith("-"):
            return None
        if word == "--port" and value.isdecimal() and value.isascii():
            options.port = int(value)
        elif word == "--set":
            options.assignments.append(value)
        elif word in ("--host", "--advertise", "--data-dir"):
            setattr(options, word[2:].replace("-", "_"), value)
        else:
            return None
    return None if options.memory and options.data_dir is not None else options


def run(options: "Options") -> int:
    """Serve until SIGTERM or SIGINT; 0 then, 1 when it cannot start, 2 for bad settings."""
    try:
        config = load_config(options, os.environ)
        tracer = make_tracer(options) if options.trace is not None else None
        problems = config.problems()
    except (ConfigError, OSError, ValueError) as error:
        return _refuse(options, str(error))
    if options.print_config:
        print_config(config)
        return 0
    if not problems and config.kbroker_api_versions:
        problems = _pose_problems(config)
    if problems:
        return _refuse(options, f"cannot start: {'; '.join(problems)}")
    gc.disable()  # until everything is imported and loaded
    from kbroker.cli.log_format import configure_logging
    from kbroker.cli.serving import serve

    configure_logging(options.log_format, options.log_level)
    return serve(
        config, memory=options.memory, tracer=tracer, stop_with_stdin=options.stop_with_stdin
    )


def _refuse(options: "Options", text: str) -> int:
    """Say why not, as the log says things."""
    if options.log_format == "json":
        from kbroker.cli.log_format import configure_logging

        configure_logging(options.log_format, options.log_level)
    print(f"kbroker: {text}", file=sys.stderr)
    return EXIT_USAGE


def _pose_problems(config: BrokerConfig) -> list[str]:
    """What is wrong with --api-versions, before anything is touched."""
    from kbroker.handlers.pose import load_pose

    try:
        load_pose(config.kbroker_api_versions)
    except ConfigError as error:
        return [str(error)]
    return []


def make_tracer(options: "Options") -> "Tracer":
    """What --trace asks for. Raises ValueError for the name of an API that is not there."""
    from kbroker.broker.trace import Tracer, parse_api_names

    return Tracer(
        apis=parse_api_names(options.trace),
        style=options.trace_format or options.log_format,
        full=options.trace_full,
        write=lambda line: print(line, file=sys.stderr),
    )


def load_config(options: "Options", environment: Mapping[str, str]) -> BrokerConfig:
    """Default < profile < file < KAFKA_... environment < --set < option."""
    from_file: dict[str, str] = {}
    if options.properties is not None:
        with open(options.properties, encoding="utf-8") as file:
            from_file = parse_properties(file.read())
    assigned: dict[str, str] = {}
    for assignment in options.assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {assignment}: expected NAME=VALUE")
        assigned[name.strip()] = value.strip()
    layers = merge((from_file, environment_properties(environment), assigned))
    _apply_options(layers, options)
    return BrokerConfig.from_properties(layers, profile=options.profile)


def _apply_options(layers: dict[str, str], options: "Options") -> None:
    if options.host is not None or options.port is not None:
        if options.port is not None and not 0 <= options.port <= 65535:
            raise ConfigError(f"--port {options.port}: expected 0 to 65535")
        host = options.host if options.host is not None else "127.0.0.1"
        port = options.port if options.port is not None else 9092
        address = f"[{host}]" if ":" in host else host
        layers["listeners"] = f"PLAINTEXT://{address}:{port}"
        layers.pop("advertised.listeners", None)  # it named the address that is replaced
    if options.advertise is not None:
        try:
            host, port = parse_address(options.advertise)
        except ValueError as error:
            raise ConfigError(f"--advertise: {error}") from error
        address = f"[{host}]" if ":" in host else host
        name = layers.get("listeners", "PLAINTEXT").partition(":")[0]
        layers["advertised.listeners"] = f"{name}://{address}:{port}"
    if options.metrics_port is not None:
        host = options.host or "127.0.0.1"
        address = f"[{host}]" if ":" in host else host
        layers["kbroker.metrics.address"] = f"{address}:{options.metrics_port}"
    if options.api_versions is not None:
        layers["kbroker.api.versions"] = options.api_versions
    if options.data_dir is not None:
        layers["log.dirs"] = options.data_dir
    elif "log.dirs" not in layers and "log.dir" not in layers:
        layers["log.dirs"] = DEFAULT_DATA_DIRECTORY


def print_config(config: BrokerConfig) -> None:
    """Every setting in force, as a properties file; secrets are masked."""
    from kbroker.config.describe import describe_broker

    for entry in sorted(describe_broker(config)):
        value = "********" if entry.is_sensitive and entry.name in config.static else entry.value
        if value is not None:
            print(f"{entry.name}={value}")
