"""`raftfast backup HOST:PORT --out FILE`: a consistent snapshot of a live node, checksummed.

Floor 6. Asks the node by its client port, piece by piece; what the file looks like is `storage`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from ..errors import SnapshotError, StorageError
from ..storage import BackupHead, BackupWriter
from .resp_client import ReplyError, RespClient
from .text import printable

__all__ = ["command", "endpoint", "fetch"]

_PIECE_BYTES = 1 << 20
_PATIENCE = 60.0
"""Seconds that the node may take for any one answer; the first waits for the state to be written."""


@click.command("backup")
@click.argument("address", metavar="HOST:PORT")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write; it must not be there.")
def command(address: str, out: Path) -> int:
    """Write a backup of the node whose client port is HOST:PORT.

    It holds all that was acknowledged before the command began. `raftfast inspect` tells what is in it, and `raftfast
    restore` makes a cluster of it.
    """
    host, port = endpoint(address)
    try:
        with RespClient(host, port, timeout=_PATIENCE) as client:
            head, size = fetch(client, str(out))
    except ReplyError as error:
        raise click.ClickException(f"{address}: {error}") from None
    except (StorageError, SnapshotError) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{address}: {error.strerror or error}") from None
    click.echo(f"{printable(str(out))}: {size} bytes, the state of index {head.index}, term {head.term}")
    return 0


def endpoint(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, IPv6 hosts in brackets. Raises click.UsageError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise click.UsageError(f"{address!r} is no HOST:PORT")
    return host, int(port)


def fetch(client: RespClient, path: str) -> tuple[BackupHead, int]:
    """Read a backup from a node into a new file; its head and size. Raises ReplyError, OSError, or as BackupWriter."""
    writer = None
    try:
        with _begun(client) as (name, head):
            writer = BackupWriter(path, head)
            offset = 0
            while offset < head.total:
                size = min(_PIECE_BYTES, head.total - offset)
                piece = client.call("RAFTFAST", "BACKUP", "READ", name, offset, size)
                if not isinstance(piece, bytes) or not piece:
                    raise SnapshotError("the node gave no bytes of the backup")
                writer.write(piece)
                offset += len(piece)
        return head, writer.finish()
    finally:
        if writer is not None:
            writer.abandon()


@contextmanager
def _begun(client: RespClient) -> Iterator[tuple[bytes, BackupHead]]:
    """A backup that the node has begun: its name and head. It is ended whatever comes of it."""
    match client.call("RAFTFAST", "BACKUP", "BEGIN"):
        case [bytes(name), int(total), bytes(line)]:
            try:
                head = BackupHead.decode(line)
                if head.total != total:
                    raise SnapshotError("the node announces two sizes of the backup")
                yield name, head
            finally:
                with suppress(ReplyError, OSError):  # it ends by itself too, and what failed before is to be told
                    client.call("RAFTFAST", "BACKUP", "END", name)
        case _:
            raise SnapshotError("the node's answer is no beginning of a backup")
