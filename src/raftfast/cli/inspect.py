"""`raftfast inspect FILE|FOLDER`: what is in a `nodes.conf`, or a backup, and whether it is sound.

Floor 6. Reads only: no lock is taken and nothing is written, so it may be used on a running node's file. The exception
is `--repair-tail`, which takes the folder's lock and keeps a copy.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .. import storage
from ..errors import ParseError, StorageError
from ..records import SLOTS, NodeRecord, NodesConf
from .text import printable

__all__ = ["command", "describe", "facts"]


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--repair-tail", is_flag=True, help="Drop a last log line that is damaged; a copy of the file is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def command(file: Path, as_json: bool, repair_tail: bool) -> int:
    """Read a nodes.conf FILE, the one in a node's FOLDER, or a backup, and tell what is in it.

    Exit code 0 if it is sound; 1, and one line `FILE: line N: reason` on standard error, if it is not.
    """
    folder = file if file.is_dir() else None
    file = file / storage.CONF_NAME if folder is not None else file
    if repair_tail:
        _repair(file)
    elif storage.is_backup(file):  # where it can't be read, that is said below
        return _tell_backup(file, as_json)
    try:
        conf = storage.inspect(file)
        if app := storage.app_of(conf):
            storage.check_app(str(file.parent), app)
        size_bytes = file.stat().st_size
    except (ParseError, StorageError) as error:
        lineno, reason = (error.lineno, error.reason) if isinstance(error, ParseError) else (0, str(error))
        if as_json:
            _print_json({"file": str(file), "sound": False, "line": lineno or None, "reason": reason})
        # A storage error names the file that it is about, which may be the one beside.
        raise click.ClickException(f"{file}: {error}" if isinstance(error, ParseError) else reason) from None
    if as_json:
        _print_json({"file": str(file), "sound": True, **facts(conf, size_bytes)})
    else:
        click.echo(f"{printable(str(file))}: sound")
        for line in describe(conf, size_bytes):
            click.echo(line)
        for line in _beside(folder, conf) if folder is not None else ():
            click.echo(line)
    return 0


def _repair(file: Path) -> None:
    """The one repair that is safe, told. Raises where it is none, and nothing was changed."""
    done = storage.repair_tail(str(file.parent), file.name)
    if done is None:
        click.echo(f"{printable(str(file))}: sound, nothing to repair")
        return
    click.echo(f"{printable(str(file))}: {printable(done.reason)}")
    click.echo(
        f"  dropped    {len(done.dropped)} bytes: {printable(done.dropped[:200].decode('utf-8', 'surrogateescape'))}"
    )
    click.echo(f"  copy       {printable(done.copy)}")


def _beside(folder: Path, conf: NodesConf) -> Iterator[str]:
    """What else is in a node's folder."""
    app = storage.app_of(conf)
    for path in sorted(folder.iterdir()):
        if path.name == storage.LOCK_NAME:
            pid = path.read_text("ascii", "replace").strip()
            yield f"  lock       last taken by process {printable(pid) or '-'}"
        elif path.name.startswith(("app-", f"{storage.CONF_NAME}.tmp-")) and (app is None or path.name != app.name):
            yield f"  stray      {printable(path.name)}: being written, or left by a crash; removed by the node"
        elif path.name.startswith(f"{storage.CONF_NAME}.copy-"):
            yield f"  copy       {printable(path.name)}: kept by a repair or a recovery"


def _tell_backup(file: Path, as_json: bool) -> int:
    backup = storage.BackupFile(str(file))
    backup.close()
    if as_json:
        told = {"file": str(file), "sound": True, "backup": asdict(backup.head), "app_bytes": backup.app_length}
        _print_json(told)
        return 0
    head = backup.head
    click.echo(f"{printable(str(file))}: sound")
    click.echo(f"  backup     of index {head.index}, term {head.term}, cluster {head.cluster_id or '-'}")
    click.echo(f"  nodes      {len(backup.nodes.splitlines())}")
    click.echo(f"  app state  {backup.app_length} bytes")
    return 0


def facts(conf: NodesConf, size_bytes: int) -> dict[str, Any]:
    """Everything in `conf` as plain values for JSON; bytes are text with surrogate escapes.

    Log lines are told by span, terms, types and bytes, not one by one.
    """
    entries = conf.entries
    return {
        "bytes": size_bytes,
        "dialect": _dialect(conf),
        "vars": conf.vars,
        "nodes": [asdict(node) for node in conf.nodes],
        "slots_assigned": sum(_slot_count(node) for node in conf.nodes),
        "log": {
            "entries": len(entries),
            "first_index": entries[0][0] if entries else None,
            "last_index": entries[-1][0] if entries else None,
            "first_term": entries[0][1] if entries else None,
            "last_term": entries[-1][1] if entries else None,
            "bytes": sum(len(line) for _, _, line in entries),
            "types": dict(sorted(_types(conf).items())),
        },
        "torn_tail": conf.torn_tail.decode("utf-8", "surrogateescape"),
        "warnings": list(conf.warnings),
    }


def describe(conf: NodesConf, size_bytes: int) -> Iterator[str]:
    """The same for people, line by line."""
    known = conf.vars
    yield f"  file       {size_bytes} bytes, {_dialect(conf)}"
    yield f"  term       {known.get('currentTerm', '-')}, voted for {_text(known.get('votedFor'))}"
    yield f"  state      of index {known.get('lastApplied', '-')}, term {known.get('snapshotTerm', '-')}"
    yield f"  log        {_log_span(conf)}"
    if "appSnapshot" in known:
        yield f"  app state  {_text(known['appSnapshot'])}, {known.get('appLength')} bytes, checksum right"
    named = ("currentTerm", "votedFor", "lastApplied", "snapshotTerm", "appSnapshot", "appLength", "appCrc")
    rest = [f"{printable(name)} {_text(value)}" for name, value in known.items() if name not in named]
    yield f"  vars       {', '.join(rest) if rest else 'no others'}"
    voters = sum("learner" not in node.flags for node in conf.nodes)
    slots = sum(_slot_count(node) for node in conf.nodes)
    yield f"  nodes      {len(conf.nodes)}, of which voters {voters}; slots {slots} of {SLOTS}"
    for node in conf.nodes:
        yield f"    {_node_line(node)}"
    yield f"  torn tail  {f'{len(conf.torn_tail)} bytes, dropped' if conf.torn_tail else 'none'}"
    for warning in conf.warnings:
        yield f"  warning    {printable(warning)}"


def _dialect(conf: NodesConf) -> str:
    if "currentTerm" in conf.vars:
        return "raft"
    return "gossip" if conf.nodes else "empty"


def _log_span(conf: NodesConf) -> str:
    entries = conf.entries
    if not entries:
        return "no entries"
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(_types(conf).items()))
    return f"{entries[0][0]} to {entries[-1][0]}, terms {entries[0][1]} to {entries[-1][1]}: {kinds}"


def _types(conf: NodesConf) -> Counter[str]:
    return Counter(line.split(b" ", 2)[1].decode("ascii", "backslashreplace") for _, _, line in conf.entries)


def _slot_count(node: NodeRecord) -> int:
    return sum(last - first + 1 for first, last in node.slots)


def _node_line(node: NodeRecord) -> str:
    name = f" {node.hostname}" if node.hostname else ""
    flags = ",".join(node.flags) or "noflags"
    primary = f" of {node.primary_id}" if node.primary_id else ""
    address = printable(f"{node.ip}:{node.port}@{node.cport}{name}")
    return f"{node.id} {address} {flags}{primary} epoch {node.epoch} slots {_slot_count(node)}"


def _text(value: int | str | None) -> str:
    return "nobody" if value is None else printable(str(value))


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2))
