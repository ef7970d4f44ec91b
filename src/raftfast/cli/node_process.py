"""A `raftfast serve` process of our own: started, watched, asked, stopped, paused, killed; never left behind.

Floor 6. Everything is done to one process by its id. What it wrote on standard error is kept in `<name>.log` beside
its folder.
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from .resp_client import Argument, Reply, ReplyError, RespClient

__all__ = ["HOST", "NodeProcess", "ProcessFailed", "poll", "serve_command", "unused_ports"]

HOST = "127.0.0.1"
_PAUSE = 0.02
_KILL_WAIT = 60.0
_given: set[int] = set()
"""The ports that `unused_ports` gave out."""


class ProcessFailed(Exception):
    """A node's process did not do what was waited for: it ended, or time ran out."""


def poll(condition: Callable[[], bool], *, within: float, what: str) -> None:
    """Returns once `condition()` holds; raises `ProcessFailed` naming `what` after `within` seconds.

    A condition that can't be asked (the node isn't there, isn't answering, or answers an error) doesn't hold.
    """
    deadline = time.monotonic() + within
    while True:
        last = time.monotonic() >= deadline
        with suppress(OSError, ReplyError):
            if condition():
                return
        if last:
            raise ProcessFailed(f"{what}: not within {within:g} s")
        time.sleep(_PAUSE)


def unused_ports(count: int) -> list[int]:
    """Ports of the loopback address on which nothing listens now, none of which this process gave out before.

    They lie below the range that the system takes for outgoing connections: otherwise a node that is down for a
    moment could find its port taken by a connection of another. Nor must it find another node on it, or one that
    starts beside it: nothing listens yet on the ports of nodes that are not started.
    """
    candidates = random.SystemRandom().sample(range(_lowest_port(), _ephemeral_port()), 4096)
    found: list[int] = []
    for port in candidates:
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            _given.update(found)
            return found
    raise OSError(f"no {count} unused ports found")


def _ephemeral_port() -> int:
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32768
    return lowest if lowest >= 16384 else 65536


def _lowest_port() -> int:
    return min(10240, _ephemeral_port() - 4096)


def serve_command(directory: Path, port: int, bus_port: int, extra: Sequence[str]) -> list[str]:
    """The command line of one node with the built-in store, run by this Python, whatever folder we are in."""
    command = [sys.executable, "-P", "-m", "raftfast", "serve", "--kv", "--dir", str(directory), "--host", HOST]
    return [*command, "--port", str(port), "--bus-port", str(bus_port), *extra]


class NodeProcess:
    """One node: its folder, its ports, and its process where it runs. A context manager that leaves no process."""

    def __init__(
        self,
        directory: Path,
        *,
        extra: Sequence[str] = (),
        ports: tuple[int, int] | None = None,
        answer_timeout: float = 10.0,
    ) -> None:
        """`directory` is the node's folder, its last name the node's name; `extra` are further flags of serve.

        `answer_timeout` is how many seconds any one reply may take.
        """
        self.name = directory.name
        self.directory = directory
        self.log_path = directory.with_name(f"{self.name}.log")
        self.port, self.bus_port = ports or unused_ports(2)
        self.command = serve_command(directory, self.port, self.bus_port, extra)
        self.answer_timeout = answer_timeout
        self.node_id = ""
        self.paused = False
        self._process: subprocess.Popen[bytes] | None = None
        self._client: RespClient | None = None
        self._log_start = 0

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether a process of ours is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process. It has a session of its own, so that a terminal's Ctrl-C reaches only us."""
        if self.running:
            raise ProcessFailed(f"{self.name} runs already")
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.paused = False

    def wait_ready(self, *, within: float = 15.0) -> None:
        """Returns once the node has said `ready:` and answers PING."""
        poll(self._said_ready, within=within, what=f"{self.name} ready")
        poll(lambda: self.call("PING") == "PONG", within=within, what=f"{self.name} answering PING")
        self.node_id = self.text("CLUSTER", "MYID")

    def _said_ready(self) -> bool:
        said = any("ready: client" in line for line in self.log_lines())
        if not said and not self.running:
            raise ProcessFailed(f"{self.name} ended with exit code {self.exit_code()}: {self.last_line()}")
        return said

    def log_lines(self) -> list[str]:
        """What the process wrote since its last start; nothing before the first."""
        if self._process is None:
            return []
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace").splitlines()

    def last_line(self) -> str:
        lines = self.log_lines()
        return lines[-1] if lines else "it wrote nothing"

    def exit_code(self) -> int | None:
        """The exit code of the process's last run, negative for a signal; None while it runs, or before."""
        return self._process.poll() if self._process else None

    def wait_exit(self, *, within: float) -> int:
        """The exit code, once the process has ended by itself."""
        if self._process is None:
            raise ProcessFailed(f"{self.name} was never started")
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self.name} did not end within {within:g} s") from None
        finally:
            self._hang_up()

    def stop(self, *, within: float = 15.0) -> int:
        """Asks for a graceful stop (SIGTERM) and waits for it; returns the exit code."""
        self._signal(signal.SIGTERM)
        return self.wait_exit(within=within)

    def pause(self) -> None:
        """SIGSTOP: the process is there and does nothing, as on a machine that hangs."""
        self._hang_up()
        self._signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self.paused = False

    def kill(self) -> None:
        """kill -9, also of a paused process; returns once it is gone. No process: nothing is done."""
        self._hang_up()
        if self._process is None or self._process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait(_KILL_WAIT)
        self.paused = False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            raise ProcessFailed(f"{self.name} is not running: {self.last_line()}")
        self._process.send_signal(number)

    def client(self) -> RespClient:
        """A new connection to the client port; the caller closes it."""
        return RespClient(HOST, self.port, timeout=self.answer_timeout)

    def call(self, *arguments: Argument) -> Reply:
        """One command over a connection that is kept. Raises `ReplyError` or OSError."""
        if self.paused:
            raise TimeoutError(f"{self.name} is paused")
        if self._client is None:
            self._client = self.client()
        try:
            return self._client.call(*arguments)
        except OSError:
            self._hang_up()
            raise

    def text(self, *arguments: Argument) -> str:
        """A command's reply as text."""
        reply = self.call(*arguments)
        return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)

    def info(self) -> dict[str, str]:
        """The fields of INFO raftfast and of CLUSTER INFO together."""
        lines = [*self.text("INFO", "raftfast").splitlines(), *self.text("CLUSTER", "INFO").splitlines()]
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def number(self, field: str) -> int:
        """One field of `info()` as a number."""
        text = self.info().get(field, "")
        if not (text.isascii() and text.isdigit()):
            raise ProcessFailed(f"{self.name} tells no number {field}")
        return int(text)

    def marks_failed(self, node_id: str) -> bool:
        """Whether this node's CLUSTER NODES shows another one as failed."""
        rows = [line.split() for line in self.text("CLUSTER", "NODES").splitlines()]
        return any(len(row) > 2 and row[0] == node_id and "fail" in row[2].split(",") for row in rows)

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
