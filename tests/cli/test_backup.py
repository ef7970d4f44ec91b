"""`raftfast backup` where the node, the link or the disk fails: the backup is ended once, and the cause is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftfast.cli.backup import fetch
from raftfast.cli.resp_client import ReplyError
from raftfast.errors import RaftError, SnapshotError, StorageError
from raftfast.hot import nodesconf
from raftfast.storage import BackupFile, BackupHead, BackupWriter

APP = b"state" * 300_000
NODES = b"a node line\n"
GOOD = NODES + b"app %d %016x\n" % (len(APP), nodesconf.crc64(APP)) + APP
NAME = b"name"


class ScriptedNode:
    """In place of a client: a node that serves `data`; what a verb is to meet instead is in `faults`."""

    def __init__(self, data: bytes = GOOD, **faults: object) -> None:
        self.data = data
        self.faults = faults
        self.verbs: list[str] = []

    def call(self, *words: object) -> object:
        verb = str(words[2])
        self.verbs.append(verb)
        fault = self.faults.get(verb)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            return fault
        if verb == "BEGIN":
            return [NAME, len(self.data), BackupHead(9, 2, 4, None, len(self.data)).encode()]
        assert words[3] == NAME
        return "OK" if verb == "END" else self.data[words[4] : words[4] + words[5]]


ENDED = ReplyError("ERR no such backup: it was ended, or not read for a minute")
LINK = ConnectionError("the node closed the connection")


@pytest.mark.parametrize("end", [None, ENDED, LINK], ids=["ended", "ended already", "dead link"])
def test_a_backup_is_ended_once_after_its_last_read(tmp_path: Path, end):
    node = ScriptedNode(END=end)
    head, size = fetch(node, str(tmp_path / "b"))
    assert node.verbs == ["BEGIN", "READ", "READ", "END"]
    assert (head.index, size) == (9, (tmp_path / "b").stat().st_size)
    BackupFile(str(tmp_path / "b")).close()


@pytest.mark.parametrize("end", [None, ENDED, LINK], ids=["ended", "ended already", "dead link"])
@pytest.mark.parametrize(
    ("faults", "reason", "verbs"),
    [
        ({"READ": LINK}, "closed the connection", ["BEGIN", "READ", "END"]),
        ({"READ": ReplyError("ERR it went wrong")}, "it went wrong", ["BEGIN", "READ", "END"]),
        ({"READ": b""}, "gave no bytes", ["BEGIN", "READ", "END"]),
        ({"BEGIN": [NAME, 7, BackupHead(9, 2, 4, None, 8).encode()]}, "two sizes", ["BEGIN", "END"]),
        ({"BEGIN": [NAME, 7, b"no head\n"]}, "no backup of raftfast", ["BEGIN", "END"]),
        ({"BEGIN": "OK"}, "no beginning", ["BEGIN"]),
        ({"BEGIN": ReplyError("ERR a backup is being read already")}, "already", ["BEGIN"]),
    ],
)
def test_what_failed_first_is_told_and_nothing_is_left(tmp_path: Path, end, faults, reason, verbs):
    node = ScriptedNode(END=end, **faults)
    with pytest.raises((RaftError, ReplyError, OSError), match=reason):
        fetch(node, str(tmp_path / "b"))
    assert node.verbs == verbs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [None, ENDED, LINK], ids=["ended", "ended already", "dead link"])
def test_a_disk_that_fails_at_the_end_is_told(tmp_path: Path, monkeypatch, end):
    def full(self) -> int:
        raise StorageError("b: No space left on device")

    monkeypatch.setattr(BackupWriter, "finish", full)
    node = ScriptedNode(END=end)
    with pytest.raises(StorageError, match="No space left"):
        fetch(node, str(tmp_path / "b"))
    assert node.verbs == ["BEGIN", "READ", "READ", "END"]
    assert list(tmp_path.iterdir()) == []


def test_more_than_was_announced_is_refused_and_ended(tmp_path: Path):
    node = ScriptedNode(READ=b"x" * (len(GOOD) + 1))
    with pytest.raises(SnapshotError, match="more than it announced"):
        fetch(node, str(tmp_path / "b"))
    assert node.verbs == ["BEGIN", "READ", "END"]
    assert list(tmp_path.iterdir()) == []
