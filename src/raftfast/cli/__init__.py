"""The command line: one group, one file a command, and the one place where an error becomes a line and an exit code.

Floor 6. A command raises; it never prints an error or exits by itself. Exit codes: 0 done, 1 it failed, 2 it was asked
wrongly, 3 a running node's disk failed, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from .. import COMPILED, __version__
from ..errors import RaftError
from .text import one_line

__all__ = ["commands", "run", "version"]

_COMMANDS = ("backup", "demo", "inspect", "recover", "restore", "serve")


def version() -> str:
    """The version and which leaves are in use: `0.1.0 (compiled)` or `0.1.0 (pure)`."""
    return f"{__version__} ({'compiled' if COMPILED else 'pure'})"


class _Commands(click.Group):
    """Loads a command's file when it is asked for: to read a file needs no server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"{__name__}.{cmd_name}").command
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), message="raftfast %(version)s")
def commands() -> None:
    """Raft consensus with log compaction and snapshots: Valkey's Raft cluster bus, and Raft for Python services."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. Every foreseen error is one line on standard error."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = commands.main(args=given, prog_name="raftfast", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "raftfast"
        return _fail(f"{where}: {error.format_message()}", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return _fail("raftfast: interrupted", 130)
    except OSError as error:
        named = isinstance(error.filename, str) and error.strerror is not None
        return _fail(f"raftfast: {error.filename}: {error.strerror}" if named else f"raftfast: {error}", 1)
    except RaftError as error:
        return _fail(f"raftfast: {error}", 1)
    return code if isinstance(code, int) else 0


def _fail(text: str, code: int) -> int:
    click.echo(one_line(text), err=True)
    return code
