"""`raftfast recover --dir D`: a cluster of one out of a survivor, where a cluster lost its majority for good.

Floor 6. Loud, and deliberate: without the long flag it tells what it would do, and does nothing. The plan is
`raftfast.restore`'s.
"""

from __future__ import annotations

from pathlib import Path

import click

from ..restore import Recovery, plan_of_folder, recover
from .text import printable

__all__ = ["command"]

_FLAG = "--i-understand-that-acknowledged-writes-may-be-lost"


@click.command("recover")
@click.option("--dir", "directory", required=True, type=click.Path(path_type=Path), help="The survivor's folder.")
@click.option(_FLAG, "understood", is_flag=True, help="Do it. Without this flag it is only told.")
def command(directory: Path, understood: bool) -> int:
    """Make a new cluster of one out of the folder of a member whose cluster lost its majority FOR GOOD.

    All other members are forgotten, their slots move to this node, and the cluster gets a new id. What the others
    acknowledged and this node doesn't hold is lost. Never use it while a majority may come back: there would be two
    clusters, each with its own truth. The node must not run.
    """
    if not understood:
        plan, _ = plan_of_folder(str(directory))
        _tell(directory, plan, "would become a cluster of one; nothing was changed")
        raise click.ClickException(f"nothing was changed; to do it, add {_FLAG}")
    plan, copy = recover(str(directory))
    _tell(directory, plan, "is a cluster of one now")
    click.echo(f"  copy       {printable(copy)}: the file as it was")
    click.echo(
        "  next       start it, write a backup, and MEET fresh nodes; the others must never start again as they are"
    )
    return 0


def _tell(directory: Path, plan: Recovery, what: str) -> None:
    click.echo(f"{printable(str(directory))}: {what}")
    click.echo(f"  node       {plan.node_id}{', a learner until now' if plan.learner else ''}")
    click.echo(
        f"  log        ends at index {plan.last_index}, term {plan.last_term}: what was acknowledged above is lost"
    )
    click.echo(f"  uncertain  {plan.uncertain} entries that may not have been committed count as committed")
    for node_id in plan.left_behind:
        click.echo(f"  forgotten  {node_id}")
