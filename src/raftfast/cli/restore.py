"""`raftfast restore FILE --dir NEW`: a new cluster of one out of a backup.

Floor 6. What it does is `raftfast.restore`'s; this file asks and tells.
"""

from __future__ import annotations

from pathlib import Path

import click

from ..restore import restore
from .text import printable

__all__ = ["command"]


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dir", "directory", required=True, type=click.Path(path_type=Path), help="An empty or absent folder.")
def command(file: Path, directory: Path) -> int:
    """Make a new cluster of one, in an empty folder, of the backup FILE.

    It has a new node id and a new cluster id, all data of the backup, and all slots that its nodes owned. Start it, and
    MEET fresh nodes to make it larger.
    """
    done = restore(str(file), str(directory))
    click.echo(f"{printable(str(directory))}: restored, the state of index {done.index}")
    click.echo(f"  node       {done.node_id}, new")
    click.echo(f"  cluster    {done.cluster_id}, new")
    click.echo(f"  slots      {done.slots}")
    return 0
