"""`raftfast serve`: one node and its client port in one process, until it is told to stop.

Floor 6. Turns flags and a TOML file into a `Node` and a server; what a node does is not decided here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import signal
import socket
import tomllib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

import raftfast
from raftfast import server

from ..config import BUS_PORT_OFFSET, Config
from ..errors import ConfigError, RaftError, StorageError
from ..kv import KeyValueStore
from . import logs

__all__ = ["STORAGE_FAILED", "Options", "command", "load_config"]

STORAGE_FAILED = 3
"""The exit code of a node whose disk failed, or was full, while it ran."""

_PORT = click.IntRange(1, 65535)
_TIMEOUT = click.IntRange(100, 1000 * 86400 * 365)
_HOST_NAME = re.compile("[0-9A-Za-z._-]*[A-Za-z][0-9A-Za-z._-]*")
_log = logging.getLogger("raftfast.serve")


class _Folder(click.Path):
    """A path that is not empty: an unset variable must not mean the folder that we are in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value, param, ctx) if value else self.fail("it is empty", param, ctx)


@dataclass(frozen=True)
class Options:
    """Where one node lives, what it listens on and what it announces."""

    directory: Path
    host: str
    port: int
    bus_port: int
    announce_ip: str | None
    announce_port: int | None
    announce_bus_port: int | None
    kv: bool
    config: Config


@click.command("serve")
@click.option("--dir", "directory", required=True, type=_Folder(path_type=Path), help="The node's own folder.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on, both ports.")
@click.option("--port", default=7000, show_default=True, type=_PORT, help="Client port.")
@click.option("--bus-port", type=_PORT, help="Bus port.  [default: client port + 10000]")
@click.option("--announce-ip", help="Address that others are told, where it is not the one bound.")
@click.option("--announce-port", type=_PORT, help="Client port that others are told.")
@click.option("--announce-bus-port", type=_PORT, help="Bus port that others are told.")
@click.option("--node-timeout", type=_TIMEOUT, help="Milliseconds.  [default: 15000, or the config file's]")
@click.option("--kv", is_flag=True, help="Serve the built-in replicated key-value store.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with Config's fields.")
@click.option("--log-format", type=click.Choice(logs.FORMATS), default="plain", show_default=True)
@click.option("--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True)
@click.option("--loop", type=click.Choice(["asyncio", "uvloop"]), default="asyncio", show_default=True)
def command(
    directory: Path,
    host: str,
    port: int,
    bus_port: int | None,
    announce_ip: str | None,
    announce_port: int | None,
    announce_bus_port: int | None,
    node_timeout: int | None,
    kv: bool,
    config_file: Path | None,
    log_format: str,
    log_level: str,
    loop: str,
) -> int:
    """Run one node until SIGTERM, SIGINT or the command SHUTDOWN.

    Exit code 0 after a stop that was asked for; 3 where its disk failed or was full while it ran (the last line of the
    log says which file and why), 1 where it could not start, or ended for another reason.
    """
    if announce_ip and not _is_announceable(announce_ip):
        raise click.UsageError(f"--announce-ip must be an IP address or a host name, not {announce_ip!r}")
    if bus_port is None:
        bus_port = port + BUS_PORT_OFFSET
        if bus_port > 65535:
            raise click.UsageError(f"--port {port} leaves no bus port {bus_port}: say --bus-port")
    if bus_port == port:
        raise click.UsageError(f"--port and --bus-port are both {port}")
    config = load_config(config_file, node_timeout)
    logs.configure(log_format, log_level)
    options = Options(
        directory, host, port, bus_port, announce_ip, announce_port, announce_bus_port, kv=kv, config=config
    )
    with asyncio.Runner(loop_factory=_loop_factory(loop)) as runner:
        return runner.run(_serve(options))


def _is_announceable(host: str) -> bool:
    """Whether others could make use of it: no port, no brackets, no zone."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST_NAME.fullmatch(host) is not None
    return "%" not in host


def load_config(file: Path | None, node_timeout_ms: int | None) -> Config:
    """The settings of a TOML file (all defaults without one), with the flag's node timeout above them.

    Raises:
        click.ClickException: one line that names the file and what is wrong in it.
    """
    settings: dict[str, Any] = {}
    if file is not None:
        try:
            settings = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise click.ClickException(f"{file}: {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise click.ClickException(f"{file}: no TOML: {error}") from None
        except RecursionError:
            raise click.ClickException(f"{file}: nested too deeply") from None
        known = {field.name for field in fields(Config)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise click.ClickException(f"{file}: unknown setting {', '.join(unknown)}")
    if node_timeout_ms is not None:
        settings["node_timeout"] = node_timeout_ms / 1000
    try:
        return Config(**settings)
    except ConfigError as error:
        raise click.ClickException(f"{file}: {error}" if file else str(error)) from None


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        raise click.ClickException("uvloop is not installed; run: pip install 'raftfast[uvloop]'") from None
    return uvloop.new_event_loop


async def _serve(options: Options) -> int:
    """Runs the node between a `ready:` line in the log and the first request to stop; the exit code."""
    stop = asyncio.Event()
    _stop_on_signals(stop)
    store = KeyValueStore() if options.kv else None
    node = raftfast.Node(
        options.directory,
        host=options.host,
        port=options.port,
        bus_port=options.bus_port,
        announce_ip=options.announce_ip,
        announce_port=options.announce_port,
        announce_bus_port=options.announce_bus_port,
        state_machine=store,
        config=options.config,
    )
    # The port first: where it is taken, the folder is left as it is.
    with server.bind(options.host, options.port) as sock:
        try:
            await _run(node, sock, store, options, stop)
        except RaftError:
            if not isinstance(node.failure, StorageError):
                raise
    if isinstance(node.failure, StorageError):
        return STORAGE_FAILED  # the node's last line says why
    _log.info("stopped")
    return 0


async def _run(
    node: raftfast.Node, sock: socket.socket, store: KeyValueStore | None, options: Options, stop: asyncio.Event
) -> None:
    async with node:
        front = await server.serve(node, kv=store, shutdown=stop.set, sock=sock)
        try:
            _log.info("ready: client %s:%d bus %d id %s", options.host, options.port, options.bus_port, node.node_id)
            await _first(stop.wait(), node.wait_failed())
        finally:
            await front.close()


async def _first(*waits: Coroutine[object, object, object]) -> None:
    """Returns when one of `waits` is over, or raises what it raised; the others are given up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


def _stop_on_signals(stop: asyncio.Event) -> None:
    """The first SIGTERM or SIGINT asks for a graceful stop; a second one has its usual, immediate effect."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def requested() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, requested)
