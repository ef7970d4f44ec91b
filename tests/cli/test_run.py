"""What the command line as a whole does: exit codes, one line for every foreseen error, the version."""

from __future__ import annotations

import logging
import re

import click
import pytest

from raftfast import cli
from raftfast.cli import logs, run
from raftfast.cli.text import one_line, printable
from raftfast.errors import StorageError
from raftfast.hot import COMPILED


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["frobnicate"], "raftfast: No such command 'frobnicate'."),
        (["inspect"], "raftfast inspect: Missing argument 'FILE'."),
        (["inspect", "--nope", "x"], "raftfast inspect: No such option"),
        (["demo", "--node-timeout", "5"], "raftfast demo: Invalid value for '--node-timeout'"),
    ],
)
def test_a_wrong_question_is_one_line_and_exit_code_2(arguments, line, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_no_command_is_answered_by_the_help_and_exit_code_2(capsys):
    assert run([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: raftfast")
    for name in ("demo", "inspect", "serve"):
        assert re.search(rf"^  {name} ", err, re.M)


def test_version_says_whether_the_leaves_are_compiled(capsys):
    assert run(["--version"]) == 0
    kind = "compiled" if COMPILED else "pure"
    assert re.fullmatch(rf"raftfast \S.* \({kind}\)\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (StorageError("d/nodes.conf: line 3:\n bad"), 1, "raftfast: d/nodes.conf: line 3: bad\n"),
        (PermissionError(13, "Permission denied", "d"), 1, "raftfast: d: Permission denied\n"),
        (OSError("cannot listen on 127.0.0.1:1: in use"), 1, "raftfast: cannot listen on 127.0.0.1:1: in use\n"),
        (click.ClickException("said by itself"), 1, "said by itself\n"),
        (click.UsageError("asked wrongly"), 2, "raftfast: asked wrongly\n"),
        (click.Abort(), 130, "raftfast: interrupted\n"),
    ],
)
def test_every_foreseen_error_is_one_line(monkeypatch, capsys, error, code, line):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(cli.commands, "main", fails)
    assert run(["inspect"]) == code
    assert capsys.readouterr() == ("", line)


def test_a_fault_of_ours_is_not_dressed_up(monkeypatch):
    def fails(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(cli.commands, "main", fails)
    with pytest.raises(ZeroDivisionError):
        run(["inspect"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain é 中", "plain é 中"), ("\x1b[2J", "\\x1b[2J"), ("\udcff\n", "\\xff\\x0a"), ("\u202e", "\\u202e")],
)
def test_printable(text, shown):
    assert printable(text) == shown


def test_one_line():
    assert one_line("  a\r\n\tb \x07 ") == "a b \\x07"


@pytest.fixture
def own_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("own_logging")
def test_plain_records_are_one_line_each(capsys):
    logs.configure("plain", "info")
    logging.getLogger("raftfast.x").info("two\nlines %d", 1)
    logging.getLogger("raftfast.x").debug("not shown")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO raftfast\.x: two\\x0alines 1\n", capsys.readouterr().err
    )


@pytest.mark.usefixtures("own_logging")
def test_json_records_are_one_object_a_line(capsys):
    import json

    logs.configure("json", "debug")
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("raftfast.x").exception("two\nlines")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    record = json.loads(err)
    assert (record["level"], record["logger"], record["message"]) == ("error", "raftfast.x", "two\nlines")
    assert "ValueError: inner" in record["exception"]
