"""`raftfast serve` up to the node: flags and settings, each fault one line, nothing made before all are right."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from pathlib import Path

import click
import pytest

from raftfast import Node, server
from raftfast.cli import run
from raftfast.cli.node_process import unused_ports
from raftfast.cli.serve import _stop_on_signals, load_config
from raftfast.config import Config


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """The command points the root logger at a standard error that is gone with its test."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "Missing option '--dir'."),
        (["--dir", "d", "--port", "0"], "Invalid value for '--port'"),
        (["--dir", "d", "--port", "60000"], "--port 60000 leaves no bus port 70000: say --bus-port"),
        (["--dir", "d", "--port", "7000", "--bus-port", "7000"], "--port and --bus-port are both 7000"),
        (["--dir", "d", "--node-timeout", "99"], "Invalid value for '--node-timeout'"),
        (["--dir", "d", "--announce-port", "x"], "Invalid value for '--announce-port'"),
        (["--dir", "d", "--log-format", "xml"], "Invalid value for '--log-format'"),
        (["--dir", ""], "Invalid value for '--dir': it is empty"),
        (["--dir", "d", "--node-timeout", "9" * 400], "Invalid value for '--node-timeout'"),
        (["--dir", "d", "--announce-ip", "1.2.3.4:5"], "--announce-ip must be an IP address or a host name"),
        (["--dir", "d", "--announce-ip", "[::1]"], "--announce-ip must be an IP address or a host name"),
        (["--dir", "d", "--announce-ip", "fe80::1%eth0"], "--announce-ip must be an IP address or a host name"),
        (["--dir", "d", "--announce-ip", "300.1.1.1"], "--announce-ip must be an IP address or a host name"),
        (["--dir", "d", "--announce-ip", "a b\n"], "--announce-ip must be an IP address or a host name"),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_code_2(flags, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["serve", *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"raftfast serve: {line}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("node_timeout = ", "no TOML: "),
        ("max_voter = 3\nnodes = 2", "unknown setting max_voter, nodes"),
        ("max_voters = 0", "max_voters must be from 1 to 1024, not 0"),
        ("max_voters = true", "max_voters must be an int, not True"),
        ("node_timeout = 'long'", "node_timeout must be a number, not 'long'"),
        ("[node_timeout]", "node_timeout must be a number, not {}"),
        ("a = " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_config_file_is_one_line_and_exit_code_1(text, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "raftfast.toml"
    file.write_text(text)
    assert run(["serve", "--dir", "d", "--config", str(file)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"{file}: {reason}")
    assert list(tmp_path.iterdir()) == [file]


def test_a_config_file_that_cannot_be_read_is_one_line(tmp_path, capsys):
    assert run(["serve", "--dir", str(tmp_path / "d"), "--config", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/none: No such file or directory\n"
    tmp_path.joinpath("binary").write_bytes(b"\xff")
    with pytest.raises(click.ClickException, match="no TOML"):
        load_config(tmp_path / "binary", None)


def test_settings_come_from_the_file_and_the_flag_is_above_it(tmp_path):
    file = tmp_path / "raftfast.toml"
    file.write_text("node_timeout = 2\nmax_voters = 5\nrequire_full_coverage = false\n")
    assert load_config(file, None) == Config(node_timeout=2, max_voters=5, require_full_coverage=False)
    assert load_config(file, 1500).node_timeout == 1.5
    assert load_config(None, None) == Config()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_has_its_usual_effect(number):
    before = signal.getsignal(number)

    async def waits() -> None:
        stop = asyncio.Event()
        _stop_on_signals(stop)
        os.kill(os.getpid(), number)
        await stop.wait()
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        assert signal.getsignal(number) == usual

    try:
        asyncio.run(waits())
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("what", ["client", "bus"])
@pytest.mark.parametrize("made", [False, True], ids=["new", "used"])
def test_a_port_in_use_is_one_line_and_leaves_the_folder_as_it_is(what, made, tmp_path, capsys):
    """A bus port that was taken left a folder with a lock file in it, or a file that was written anew."""
    folder = tmp_path / "node"
    if made:
        asyncio.run(_start_and_stop(folder))
    before = _contents(folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, (free,) = taken.getsockname()[1], unused_ports(1)
        ports = (port, free) if what == "client" else (free, port)
        flags = ["--dir", str(folder), "--port", str(ports[0]), "--bus-port", str(ports[1])]
        assert run(["serve", *flags]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"raftfast: cannot listen on 127.0.0.1:{port}: Address already in use\n")
    assert _contents(folder) == before


async def _start_and_stop(folder: Path) -> None:
    async with Node(folder, port=1, bus_port=0):
        pass


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {file.name: (file.stat().st_ino, file.read_bytes()) for file in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("::g", "cannot listen on [::g]:7000: Name or service not known"),
        ("a..b", "cannot listen on a..b:7000: "),
        ("x" * 70, "cannot listen on " + "x" * 70 + ":7000: "),
        ("192.0.2.1", "cannot listen on 192.0.2.1:7000: Cannot assign requested address"),
    ],
)
def test_a_host_that_is_not_here_is_one_line(host, line, tmp_path, capsys):
    assert run(["serve", "--dir", str(tmp_path / "d"), "--host", host, "--announce-ip", "127.0.0.1"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"raftfast: {line}")
    assert "attempting" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_ipv6_alone_can_be_listened_on(monkeypatch):
    """The client port was looked for among addresses of IPv4 only."""
    asked = []

    def resolve(host, port, **options):
        asked.append(host)
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))]

    monkeypatch.setattr("raftfast.server.listener.socket.getaddrinfo", resolve)
    with server.bind("six.example", 0) as sock:
        assert (sock.family, sock.getsockname()[0]) == (socket.AF_INET6, "::1")
    assert asked == ["six.example"]
