"""`raftfast serve` up to the node: flags and settings, each fault one line, nothing made before all are right."""

from __future__ import annotations

import asyncio
import os
import signal

import click
import pytest

from raftfast.cli import run
from raftfast.cli.serve import _stop_on_signals, load_config
from raftfast.config import Config


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
