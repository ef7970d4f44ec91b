"""Snapshots as bytes: what is sent arrives, however it is cut; what does not fit is refused and leaves nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_disks import NODES, FaultyDisk, QuickDisk, facts_of, line, state_of

from raftfast.errors import SnapshotError, StorageError
from raftfast.hot import nodesconf
from raftfast.records import HardState
from raftfast.storage import IncomingSnapshot, Storage
from raftfast.storage.snapshots import SnapshotHead

HEAD = b"".join(nodesconf.format_node_line(node) + b"\n" for node in NODES)


def opened(folder: Path, disk: QuickDisk | None = None) -> Storage:
    storage, loaded = Storage.open(folder, disk=disk or QuickDisk())
    if loaded.conf is None:
        storage.rewrite(state_of(0), None, hard_state=HardState(1, None))
    return storage


def app_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("app-")}


def snapshot_of(body: bytes, head: bytes = HEAD) -> bytes:
    return head + b"app %d %016x\n" % (len(body), nodesconf.crc64(body)) + body


# Sending.


@pytest.mark.parametrize("body", [None, b"", b"state\napp 3 x\n" * 9])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_an_outgoing_snapshot_reads_as_head_app_line_and_state(tmp_path, body, size):
    storage = opened(tmp_path)
    app = None if body is None else storage.write_app(5, [body])
    outgoing = storage.write_outgoing(HEAD, app)
    wanted = HEAD if body is None else snapshot_of(body)
    assert outgoing.total == len(wanted)
    read = b"".join(outgoing.read(offset, size) for offset in range(0, outgoing.total, size))
    assert read == wanted
    assert outgoing.read(outgoing.total, size) == b""
    outgoing.close()
    outgoing.close()
    with pytest.raises(StorageError, match="closed"):
        outgoing.read(0, 1)
    storage.close()


def test_a_snapshot_being_sent_outlives_rewrites_that_drop_its_state(tmp_path):
    storage = opened(tmp_path)
    app = storage.write_app(0, [b"first"])
    storage.rewrite(state_of(0, app=app), 0)
    one, two = storage.write_outgoing(HEAD, app), storage.write_outgoing(HEAD, app)
    storage.rewrite(state_of(0), 0)
    one.close()
    assert app_names(tmp_path) == {app.name}
    assert two.read(two.total - 5, 5) == b"first"
    two.close()
    assert app_names(tmp_path) == set()
    with pytest.raises(StorageError, match="no longer kept"):
        storage.write_outgoing(HEAD, app)
    storage.close()


def test_a_state_written_to_be_sent_goes_with_the_snapshot(tmp_path):
    storage = opened(tmp_path)
    outgoing = storage.write_outgoing(HEAD, pieces=[b"ab", b"c"], index=7)
    (name,) = app_names(tmp_path)
    assert name.startswith("app-7-")
    storage.rewrite(state_of(0), 0)
    assert outgoing.read(0, 1 << 20) == snapshot_of(b"abc")
    outgoing.close()
    assert app_names(tmp_path) == set()
    storage.close()


# Taking.


def taken(incoming: IncomingSnapshot, data: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(bounds):
        assert incoming.next_offset == start
        assert incoming.write(start, data[start:stop]) == stop


@settings(max_examples=60, deadline=None)
@given(
    head=st.sampled_from([b"", HEAD, HEAD * 3]),
    body=st.binary(max_size=200) | st.just(b"\napp 1 0123456789abcdef\n"),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_a_snapshot_arrives_whole_however_it_is_cut(tmp_path_factory, head, body, cuts):
    folder = tmp_path_factory.mktemp("taken")
    storage = opened(folder)
    data = snapshot_of(body, head)
    incoming = storage.incoming(9, len(data))
    taken(incoming, data, cuts)
    got_head, app = incoming.finish()
    assert got_head == head
    assert app is not None
    assert app.name.startswith("app-9-")
    assert b"".join(storage.read_app(app)) == body
    storage.rewrite(state_of(9, 1, app=app), None)
    incoming.abandon()
    storage.append(None, None, 10, [line(1)])
    storage.close()
    assert facts_of(folder) == (HardState(1, None), 9, 1, body, (line(1),))


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_every_size_of_pieces(tmp_path, size):
    storage = opened(tmp_path)
    data = snapshot_of(b"x" * 50)
    incoming = storage.incoming(9, len(data))
    taken(incoming, data, list(range(0, len(data), size)))
    head, app = incoming.finish()
    assert (head, app.length if app else None) == (HEAD, 50)
    incoming.abandon()
    assert app_names(tmp_path) == set()
    storage.close()


def test_a_snapshot_without_app_state(tmp_path):
    storage = opened(tmp_path)
    incoming = storage.incoming(9, len(HEAD))
    taken(incoming, HEAD, [10, 20])
    assert incoming.finish() == (HEAD, None)
    with pytest.raises(SnapshotError):
        incoming.finish()
    storage.close()


BODY = b"the state"
GOOD = snapshot_of(BODY)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (GOOD[:-1] + b"X", "has the checksum"),
        (GOOD.replace(b"app 9 ", b"app 8 "), "does not fill"),
        (GOOD.replace(b"app 9 ", b"app 99999999999999999999 "), "does not fill"),
        (GOOD.replace(b"app 9 ", b"app 09 "), "bad app line"),
        (GOOD.replace(b"app 9 ", b"app +9 "), "bad app line"),
        (GOOD.replace(b"app 9 ", b"app  9 "), "bad app line"),
        (GOOD.replace(b"app 9 ", b"app 1_0 "), "bad app line"),
        (HEAD + b"app 3 " + b"0" * 400, "bad app line"),
        (HEAD + b"app 0 0000000000000001\n", "has the checksum"),
        (HEAD + b"app 9 0000000000000000\n" + BODY, "has the checksum"),
        (HEAD + b"app 3 00", "ends within a line"),
        (HEAD[:-1], "ends within a line"),
        (b"", "ends within a line"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_snapshot_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path, data, reason, size):
    storage = opened(tmp_path)
    incoming = storage.incoming(9, len(data))

    def take() -> None:
        taken(incoming, data, list(range(0, len(data), size)))
        incoming.finish()

    with pytest.raises(SnapshotError, match=reason):
        take()
    assert app_names(tmp_path) == set()
    with pytest.raises(SnapshotError, match="finished, refused or abandoned"):
        incoming.write(incoming.next_offset, b"")
    assert storage.failed is None
    storage.close()


def test_pieces_that_repeat_leave_a_gap_or_exceed_change_nothing(tmp_path):
    storage = opened(tmp_path)
    incoming = storage.incoming(9, len(GOOD))
    half = len(GOOD) // 2
    incoming.write(0, GOOD[:half])
    for offset, data in ((0, GOOD[:half]), (half + 1, b"x"), (half, b"x" * (len(GOOD) - half + 1))):
        with pytest.raises(SnapshotError):
            incoming.write(offset, data)
        assert incoming.next_offset == half
    incoming.write(half, b"")
    with pytest.raises(SnapshotError, match="were announced"):
        incoming.finish()
    assert app_names(tmp_path) == set()
    storage.close()


def test_an_announced_length_allocates_nothing(tmp_path):
    storage = opened(tmp_path)
    total = (1 << 64) - 1
    incoming = storage.incoming(9, total)
    head = HEAD + b"app %d %016x\n" % (total - len(HEAD) - 42, 1)
    assert incoming.write(0, head) == len(HEAD) + 42
    assert [path.stat().st_size for path in tmp_path.iterdir() if path.name.startswith("app-")] == [0]
    incoming.abandon()
    incoming.abandon()
    assert app_names(tmp_path) == set()
    storage.close()


def test_node_lines_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(SnapshotHead, "MAX_BYTES", 1000)
    storage = opened(tmp_path)
    incoming = storage.incoming(9, 1 << 40)
    incoming.write(0, b"a" * 1000)
    with pytest.raises(SnapshotError, match="more than 1000 bytes of node lines"):
        incoming.write(1000, b"a")
    storage.close()


def test_an_incoming_file_outlives_a_rewrite_in_between(tmp_path):
    storage = opened(tmp_path)
    incoming = storage.incoming(9, len(GOOD))
    incoming.write(0, GOOD)
    storage.rewrite(state_of(0), 0)
    _, app = incoming.finish()
    storage.rewrite(state_of(0), 0)
    assert app is not None
    storage.rewrite(state_of(9, 1, app=app), None)
    assert app_names(tmp_path) == {app.name}
    storage.close()


@pytest.mark.parametrize("how", ["before", "short"])
def test_a_disk_that_fails_while_a_snapshot_arrives(tmp_path, how):
    """Each call in turn fails: one clear error, the file is gone, and the storage itself goes on."""
    disk = FaultyDisk(how)
    storage = opened(tmp_path, disk)
    failed_calls = []
    for number in range(20):
        incoming = storage.incoming(9, len(GOOD))
        disk.arm(number)
        try:
            incoming.write(0, GOOD)
            incoming.finish()
        except StorageError:
            failed_calls.append(disk.failed_call)
            assert app_names(tmp_path) == set()
        else:
            assert disk.failed_call == ""
            break
    assert failed_calls == ["open", "pwrite", "fsync", "close", "fsync_folder"]
    disk.arm(-1)
    incoming.abandon()
    assert app_names(tmp_path) == set()
    assert storage.failed is None
    storage.append(None, None, 1, [line(1)])
    storage.close()


def test_a_large_piece_is_written_in_parts(tmp_path):
    """A state machine may give its state as one piece; no step of the worker may take as long as that is large."""

    class Sized(QuickDisk):
        sizes: ClassVar[list[int]] = []

        def pwrite(self, fd: int, data: bytes, offset: int) -> int:
            self.sizes.append(len(data))
            return super().pwrite(fd, data, offset)

    storage, _ = Storage.open(tmp_path, disk=Sized())
    pieces = [b"a" * 10, bytes(range(256)) * (20 << 10), b"z" * ((1 << 20) - 1), b"end"]
    Sized.sizes.clear()
    app = storage.write_app(0, pieces)
    assert b"".join(storage.read_app(app)) == b"".join(pieces)
    assert (app.length, app.crc) == (sum(map(len, pieces)), nodesconf.crc64(b"".join(pieces)))
    assert len(Sized.sizes) >= 5
    assert max(Sized.sizes) < 2 << 20
    storage.close()
