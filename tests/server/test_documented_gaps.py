"""What docs/differences.md says is not there is not there: who adds it takes the name out of the document."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from server_site import Site, run

import raftfast
from raftfast import blocking, cli
from raftfast.server.listener import command_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "differences.md"
SECTION = "## Names that are not there yet"


def _names(beginning: str) -> list[str]:
    """The names in a bullet of the section, up to its first full stop."""
    section = DOCUMENT.read_text(encoding="utf-8").split(SECTION)[1]
    bullet = next(part for part in section.split("\n- ") if part.startswith(beginning))
    return re.findall(r"`([^`]+)`", bullet.removeprefix(beginning).split(".\n")[0].split(". ")[0])


def test_calls_of_a_node() -> None:
    names = _names("`raftfast.Node` and `raftfast.blocking.Node`:")
    assert names == ["replicate", "failover", "publish", "subscribe"]
    assert not [name for name in names if hasattr(raftfast.Node, name) or hasattr(blocking.Node, name)]


def test_commands_of_the_command_line() -> None:
    names = _names("The command line:")
    assert names == ["raftfast top", "raftfast bench"]
    there = cli.commands.list_commands(click.Context(cli.commands))
    assert "serve" in there
    assert not {name.split()[1] for name in names} & set(there)


def test_commands_of_the_client_port() -> None:
    names = _names("The client port:")
    assert {"PUBLISH", "SUBSCRIBE"} <= set(names)
    assert not {name.encode() for name in names} & command_table(with_store=True).keys()


@pytest.mark.parametrize("name", ["SETSLOT", "REPLICATE", "FAILOVER", "SLOT-STATS"])
def test_subcommands_of_cluster(name: str) -> None:
    assert name in _names("Of `CLUSTER`:")
    refusal = b"-ERR Cluster subcommand not implemented for the current protocol: "

    async def body(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(f"CLUSTER {name} 1 2\r\n".encode(), refusal + name.encode() + b"\r\n")

    run(body)


def test_the_node_timeout_can_not_be_set_while_a_node_runs() -> None:
    assert "`CONFIG SET\ncluster-node-timeout` is refused" in DOCUMENT.read_text(encoding="utf-8")

    async def body(site: Site) -> None:
        raw = await site.connect()
        refusal = (
            b"-ERR CONFIG SET failed (possibly related to argument 'cluster-node-timeout') - can't set immutable config"
        )
        await raw.ask(b"CONFIG SET cluster-node-timeout 5000\r\n", refusal + b"\r\n")
        assert site.node.config.node_timeout == 15.0

    run(body)
