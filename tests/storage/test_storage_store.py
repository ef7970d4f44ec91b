"""The store over restarts: appends, votes, cuts, rewrites, app state files, the lock, damaged folders."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from storage_disks import (
    MY_ID,
    NODES,
    OTHER_ID,
    THIRD_ID,
    CountingDisk,
    QuickDisk,
    facts_of,
    line,
    node,
    state_of,
)

from raftfast.errors import InvariantViolation, ParseError, SnapshotError, StorageError
from raftfast.hot import nodesconf
from raftfast.records import HardState, NodeRecord, NodesConf
from raftfast.storage import AppFile, Storage, StoredState, app_of, inspect
from raftfast.storage.disk import Disk
from raftfast.storage.folder import Folder

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "nodesconf"
FIRST = HardState(1, MY_ID)


def opened(folder: Path, disk: QuickDisk | None = None) -> Storage:
    """A storage over a folder that holds a state of index 0 (made where it is fresh)."""
    storage, loaded = Storage.open(folder, disk=disk or QuickDisk())
    if loaded.conf is None:
        storage.rewrite(state_of(0), None, hard_state=FIRST)
    return storage


def filled(folder: Path, count: int, disk: QuickDisk | None = None) -> Storage:
    storage = opened(folder, disk)
    storage.append(None, None, 1, [line(1, f"e{index}") for index in range(1, count + 1)])
    return storage


def entries(*names: str, term: int = 1) -> tuple[bytes, ...]:
    return tuple(line(term, name) for name in names)


# Fresh folders.


def test_a_fresh_folder_is_made_locked_and_empty(tmp_path):
    storage, loaded = Storage.open(tmp_path / "new")
    assert (loaded.conf, loaded.stored, loaded.app, loaded.hard_state) == (None, None, None, HardState(0, None))
    assert (storage.last_index, storage.stored_index, storage.log_bytes, storage.state_bytes) == (0, 0, 0, 0)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["nodes.conf", "raftfast.lock"]
    assert (tmp_path / "new" / "raftfast.lock").read_text() == f"{os.getpid()}\n"
    storage.close()
    again, loaded = Storage.open(tmp_path / "new")
    assert loaded.conf is None
    again.close()


def test_nothing_is_appended_before_there_is_a_state(tmp_path):
    storage, _ = Storage.open(tmp_path)
    with pytest.raises(InvariantViolation):
        storage.append(FIRST, None, 1, [line(1)])
    assert storage.failed is None
    assert (tmp_path / "nodes.conf").read_bytes() == b""
    storage.close()


def test_only_the_last_level_of_a_path_is_made(tmp_path):
    with pytest.raises(StorageError, match="the folder above it does not exist"):
        Storage.open(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "raftfast.lock", "app-1", "."])
def test_names_that_the_file_can_not_have(tmp_path, name):
    with pytest.raises(StorageError, match="can't be the name"):
        Storage.open(tmp_path, name=name)


def test_the_file_can_have_another_name(tmp_path):
    storage, _ = Storage.open(tmp_path, name="other.conf", disk=QuickDisk())
    storage.rewrite(state_of(0), None, hard_state=FIRST)
    storage.close()
    assert inspect(tmp_path / "other.conf").vars["currentTerm"] == 1
    assert not (tmp_path / "nodes.conf").exists()


def test_a_path_that_is_a_file_and_a_file_that_is_a_folder(tmp_path):
    (tmp_path / "plain").write_text("x")
    with pytest.raises(StorageError, match="is not a folder"):
        Storage.open(tmp_path / "plain")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "nodes.conf").mkdir()
    with pytest.raises(StorageError, match=r"nodes\.conf: Is a directory"):
        Storage.open(tmp_path / "d")


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "nodes.conf")
    with pytest.raises(StorageError, match="not a regular file"):
        Storage.open(tmp_path)


# Appending.


def test_a_turn_is_one_write_and_one_fdatasync(tmp_path):
    disk = CountingDisk()
    storage = opened(tmp_path, disk)
    disk.calls.clear()
    storage.append(HardState(2, None), None, 1, [line(2, f"e{n}") for n in range(100)])
    assert disk.calls == ["pwrite", "fdatasync"]
    storage.check()
    storage.close()


def test_a_turn_with_nothing_new_touches_nothing(tmp_path):
    disk = CountingDisk()
    storage = opened(tmp_path, disk)
    disk.calls.clear()
    storage.append(None, None, 1, [])
    storage.append(FIRST, 1, 1, [])
    assert disk.calls == []
    storage.close()


def test_entries_votes_and_terms_survive_a_restart(tmp_path):
    storage = opened(tmp_path)
    storage.append(None, None, 1, entries("a", "b"))
    storage.append(HardState(3, None), None, 3, [])
    storage.append(HardState(3, OTHER_ID), None, 3, [line(3, "c")])
    storage.append(HardState(4, None), None, 4, [])
    storage.check()
    assert (storage.last_index, storage.stored_index) == (3, 0)
    storage.close()
    assert facts_of(tmp_path) == (HardState(4, None), 0, 0, None, (*entries("a", "b"), line(3, "c")))


def test_after_a_load_the_file_is_folded_into_one_vars_line(tmp_path):
    storage = opened(tmp_path)
    for term in range(2, 9):
        storage.append(HardState(term, OTHER_ID), None, 1, [])
    storage.close()
    assert (tmp_path / "nodes.conf").read_bytes().count(b"vars ") == 8
    storage, loaded = Storage.open(tmp_path, disk=QuickDisk())
    assert loaded.hard_state == HardState(8, OTHER_ID)
    assert (tmp_path / "nodes.conf").read_bytes().count(b"vars ") == 1
    assert storage.log_bytes == 0
    storage.check()
    storage.close()


def test_app_data_of_any_bytes_comes_back_as_it_was(tmp_path):
    data = bytes(byte for byte in range(256) if byte not in b"\n\\") + b"\\\\ \\n  log vars\r"
    storage = opened(tmp_path)
    storage.append(None, None, 1, [b"1 APP - " + data, b"1 NOOP"])
    storage.check()
    storage.close()
    facts = facts_of(tmp_path)
    assert facts is not None
    assert facts[4] == (b"1 APP - " + data, b"1 NOOP")


def test_the_sizes_for_the_rewrite_policy(tmp_path):
    storage = opened(tmp_path)
    head = (tmp_path / "nodes.conf").stat().st_size
    assert (storage.log_bytes, storage.state_bytes) == (0, head)
    app = storage.write_app(0, [b"12345"])
    storage.rewrite(state_of(0, app=app), 0)
    head = (tmp_path / "nodes.conf").stat().st_size
    storage.append(None, None, 1, [line(1)])
    assert storage.log_bytes == (tmp_path / "nodes.conf").stat().st_size - head
    assert storage.state_bytes == head + 5
    storage.close()


def test_what_moving_the_state_gives_back_and_what_it_copies(tmp_path):
    storage, loaded = Storage.open(tmp_path / "fresh", disk=QuickDisk())
    assert loaded.conf is None
    assert storage.bytes_up_to(0) == (0, 0)
    storage.close()
    storage = filled(tmp_path, 3)
    sizes = [0]
    sizes += [len(nodesconf.log_line(index, line(1, f"e{index}"))) for index in (1, 2, 3)]
    assert [storage.bytes_up_to(index) for index in range(5)] == [
        (0, 0),
        (sizes[1], sizes[2] + sizes[3]),
        (sizes[1] + sizes[2], sizes[3]),
        (sum(sizes), 0),
        (sum(sizes), 0),  # the disk is behind what is applied
    ]
    storage.append(HardState(2, OTHER_ID), None, 4, [line(2, "e4")])
    gone, kept = storage.bytes_up_to(3)
    assert kept == len(nodesconf.log_line(4, line(2, "e4")))
    assert gone + kept == storage.log_bytes  # a term and a vote among the lines are copied by no rewrite
    state_bytes, size = storage.state_bytes, (tmp_path / "nodes.conf").stat().st_size
    storage.rewrite(state_of(3), 3)
    assert (tmp_path / "nodes.conf").stat().st_size == size - gone + storage.state_bytes - state_bytes
    assert storage.bytes_up_to(3) == (0, 0)
    assert storage.bytes_up_to(4) == (kept, 0)
    storage.append(None, 4, 4, [])
    assert storage.bytes_up_to(4) == (0, 0)
    storage.close()


BAD_APPENDS = {
    "a term that goes back": (HardState(0, None), None, 4, []),
    "another vote in the term": (HardState(1, OTHER_ID), None, 4, []),
    "a vote taken back": (HardState(1, None), None, 4, []),
    "an id that is none": (HardState(2, "x"), None, 4, []),
    "a gap": (None, None, 5, [line(1)]),
    "an overlap without a cut": (None, None, 3, [line(1)]),
    "a gap behind the cut": (None, 2, 3, [line(1)]),
    "an entry before its term": (None, None, 4, [line(2)]),
}


@pytest.mark.parametrize("case", BAD_APPENDS)
def test_a_bad_append_raises_and_does_nothing(tmp_path, case):
    storage = filled(tmp_path, 3)
    before = (tmp_path / "nodes.conf").read_bytes()
    with pytest.raises(InvariantViolation):
        storage.append(*BAD_APPENDS[case])
    assert storage.failed is None
    assert (tmp_path / "nodes.conf").read_bytes() == before
    storage.append(None, None, 4, [line(1, "e4")])
    storage.check()
    storage.close()


@pytest.mark.parametrize("bad", [b"1 NOOP\n", b"x NOOP", b""])
def test_a_line_that_would_break_the_file_is_refused_before_anything_is_written(tmp_path, bad):
    storage = filled(tmp_path, 1)
    before = (tmp_path / "nodes.conf").read_bytes()
    with pytest.raises(ValueError):
        storage.append(HardState(2, None), None, 2, [bad])
    assert storage.failed is None
    assert (tmp_path / "nodes.conf").read_bytes() == before
    storage.close()


# Cutting.


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_cut_with_the_vote_before_it_cuts_the_file(tmp_path, index):
    disk = CountingDisk()
    storage = opened(tmp_path, disk)
    storage.append(HardState(2, OTHER_ID), None, 1, [])
    storage.append(None, None, 1, entries("a", "b", "c"))
    disk.calls.clear()
    storage.append(HardState(3, THIRD_ID), index, index, [line(3, "n"), line(3, "m")])
    assert "rename" not in disk.calls
    assert [call for call in disk.calls if call != "pread"] == ["ftruncate", "fdatasync", "pwrite", "fdatasync"]
    storage.check()
    storage.append(HardState(4, None), index + 2, index + 2, [line(4, "o")])
    storage.check()
    storage.close()
    kept = entries("a", "b", "c")[: index - 1]
    assert facts_of(tmp_path) == (HardState(4, None), 0, 0, None, (*kept, line(3, "n"), line(3, "m"), line(4, "o")))


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_cut_that_would_lose_the_vote_is_a_rewrite(tmp_path, index):
    disk = CountingDisk()
    storage = filled(tmp_path, 3, disk)
    storage.append(HardState(2, OTHER_ID), None, 4, [])
    disk.calls.clear()
    storage.append(None, index, index, [line(2, "n")])
    assert "rename" in disk.calls
    assert "ftruncate" not in disk.calls
    storage.check()
    storage.close()
    kept = entries("e1", "e2", "e3")[: index - 1]
    assert facts_of(tmp_path) == (HardState(2, OTHER_ID), 0, 0, None, (*kept, line(2, "n")))


def test_cuts_past_the_end_and_to_nothing(tmp_path):
    storage = filled(tmp_path, 3)
    storage.append(None, 4, 4, entries("d"))
    storage.append(None, 3, 3, [])
    assert storage.last_index == 2
    storage.append(None, 1, 1, [])
    assert (storage.last_index, storage.log_bytes) == (0, 0)
    storage.check()
    storage.close()


def test_a_cut_of_what_is_applied_is_refused(tmp_path):
    storage = filled(tmp_path, 3)
    storage.rewrite(state_of(2, 1), 2)
    with pytest.raises(InvariantViolation, match="stored as applied"):
        storage.append(None, 2, 2, [line(1)])
    storage.close()


# Rewriting.


def test_a_rewrite_keeps_the_lines_above_s_and_those_appended_since(tmp_path):
    storage = filled(tmp_path, 3)
    storage.append(HardState(2, OTHER_ID), None, 4, [line(2, "e4")])
    state = state_of(2, 1, cluster_id=THIRD_ID, joining=True, raft_leader=OTHER_ID, extra={"newName": "7"})
    storage.append(HardState(3, None), None, 5, [line(3, "e5")])
    storage.rewrite(state, 2)
    assert (storage.stored_index, storage.last_index) == (2, 5)
    storage.check()
    storage.append(None, None, 6, [line(3, "e6")])
    storage.append(None, 5, 5, [line(3, "f5")])
    storage.check()
    storage.close()
    storage, loaded = Storage.open(tmp_path, disk=QuickDisk())
    assert loaded.stored == state
    assert loaded.hard_state == HardState(3, None)
    assert loaded.conf is not None
    assert [(index, entry) for index, _, entry in loaded.conf.entries] == [
        (3, line(1, "e3")),
        (4, line(2, "e4")),
        (5, line(3, "f5")),
    ]
    storage.close()


def test_each_cut_and_each_kept_tail_after_votes_between_lines(tmp_path):
    """Lines and votes in turn; then every rewrite and every cut gives what it should, and a sound file."""
    for number, (keep, cut) in enumerate(combinations(range(8), 2)):
        storage = opened(tmp_path / str(number))
        for index in range(1, 7):
            storage.append(HardState(index, MY_ID), None, index, [line(index, f"e{index}")])
            storage.append(HardState(index + 1, None), None, index + 1, [])
        storage.rewrite(state_of(keep, keep), keep)
        storage.check()
        storage.append(HardState(9, OTHER_ID), cut, cut, [line(9, "n")])
        storage.check()
        storage.close()
        wanted = (*(line(index, f"e{index}") for index in range(keep + 1, cut)), line(9, "n"))
        assert facts_of(tmp_path / str(number)) == (HardState(9, OTHER_ID), keep, keep, None, wanted)


def test_an_install_drops_all_lines(tmp_path):
    storage = filled(tmp_path, 5)
    app = storage.write_app(3, [b"state"])
    storage.rewrite(state_of(3, 2, app=app), None, hard_state=HardState(2, None))
    assert (storage.stored_index, storage.last_index) == (3, 3)
    storage.append(None, None, 4, [line(2, "n")])
    storage.close()
    assert facts_of(tmp_path) == (HardState(2, None), 3, 2, b"state", (line(2, "n"),))


def test_a_state_ahead_of_the_own_disk_covers_the_lines_that_come_late(tmp_path):
    """Apply does not wait for the own disk (PROTOCOL 5.5)."""
    storage = filled(tmp_path, 2)
    storage.rewrite(state_of(4, 1), 4)
    storage.append(None, 3, 3, entries("e3", "e4"))
    assert storage.last_index == 4
    storage.append(None, None, 4, entries("e4", "e5"))
    storage.check()
    storage.close()
    assert facts_of(tmp_path) == (FIRST, 4, 1, None, entries("e5"))


BAD_REWRITES = {
    "S goes back": (state_of(1, 1), 1, {}),
    "lines that do not follow": (state_of(3, 1), 4, {}),
    "lines that are gone": (state_of(3, 1), 2, {}),
    "a term that goes back": (state_of(3, 1), 3, {"hard_state": HardState(0, None)}),
    "a state above the term": (state_of(3, 2), 3, {}),
    "a reset that keeps lines": (state_of(3, 1), 3, {"reset": True}),
    "no line of ours": (StoredState((node(OTHER_ID, "master"),), 3, 1), 3, {}),
    "two lines of ours": (StoredState((NODES[0], node(OTHER_ID, "myself", "master")), 3, 1), 3, {}),
    "a name that is ours": (state_of(3, 1, extra={"lastApplied": 7}), 3, {}),
    "an app file that is not there": (state_of(3, 1, app=AppFile("app-3-0123456789abcdef", 0, 0)), 3, {}),
}


@pytest.mark.parametrize("case", BAD_REWRITES)
def test_a_bad_rewrite_raises_and_does_nothing(tmp_path, case):
    storage = filled(tmp_path, 3)
    storage.rewrite(state_of(2, 1), 2)
    before = (tmp_path / "nodes.conf").read_bytes()
    state, keep_above, more = BAD_REWRITES[case]
    with pytest.raises(InvariantViolation):
        storage.rewrite(state, keep_above, **more)
    assert storage.failed is None
    assert (tmp_path / "nodes.conf").read_bytes() == before
    storage.append(None, None, 4, [line(1, "e4")])
    storage.check()
    storage.close()


def test_a_reset_lets_all_go_back(tmp_path):
    storage = filled(tmp_path, 3)
    storage.rewrite(state_of(2, 1), 2, hard_state=HardState(5, OTHER_ID))
    storage.rewrite(state_of(0, joining=True), None, hard_state=HardState(0, None), reset=True)
    assert (storage.hard_state, storage.stored_index, storage.last_index) == (HardState(0, None), 0, 0)
    storage.check()
    storage.close()
    assert facts_of(tmp_path) == (HardState(0, None), 0, 0, None, ())


# App state files.


def app_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("app-")}


def test_app_files_have_new_names_and_the_old_one_goes_after_the_commit(tmp_path):
    storage = opened(tmp_path)
    first = storage.write_app(0, [b"a", b"", b"bc" * 700_000])
    assert first == AppFile(first.name, 1_400_001, nodesconf.crc64(b"a" + b"bc" * 700_000))
    storage.rewrite(state_of(0, app=first), 0)
    second = storage.write_app(0, [])
    assert second == AppFile(second.name, 0, 0)
    assert app_names(tmp_path) == {first.name, second.name}
    storage.rewrite(state_of(0, app=second), 0)
    assert app_names(tmp_path) == {second.name}
    storage.rewrite(state_of(0, app=second), 0)
    assert app_names(tmp_path) == {second.name}
    storage.close()
    storage, loaded = Storage.open(tmp_path, disk=QuickDisk())
    assert loaded.app == second
    assert b"".join(storage.read_app(second)) == b""
    storage.rewrite(state_of(0), 0)
    assert app_names(tmp_path) == set()
    storage.close()


def test_an_app_file_being_written_outlives_a_rewrite(tmp_path):
    storage = opened(tmp_path)
    begun, go_on = threading.Event(), threading.Event()
    written: list[AppFile] = []

    def pieces():
        yield b"x" * (1 << 20)
        begun.set()
        go_on.wait(120)
        yield b"y"

    writer = threading.Thread(target=lambda: written.append(storage.write_app(0, pieces())))
    writer.start()
    assert begun.wait(120)
    storage.rewrite(state_of(0), 0)
    assert len(app_names(tmp_path)) == 1
    go_on.set()
    writer.join(120)
    storage.rewrite(state_of(0), 0)
    assert app_names(tmp_path) == {written[0].name}
    storage.rewrite(state_of(0, app=written[0]), 0)
    storage.close()
    facts = facts_of(tmp_path)
    assert facts is not None
    assert facts[3] == b"x" * (1 << 20) + b"y"


def test_a_failing_cancelled_or_wrong_source_leaves_no_file(tmp_path):
    storage = opened(tmp_path)

    def failing():
        yield b"x" * (2 << 20)
        raise KeyError("the service's own")

    with pytest.raises(KeyError):
        storage.write_app(1, failing())
    with pytest.raises(SnapshotError, match="cancelled"):
        storage.write_app(1, [b"a"], lambda: True)
    with pytest.raises(TypeError):
        storage.write_app(1, ["text"])  # type: ignore[list-item]
    assert app_names(tmp_path) == set()
    assert storage.failed is None
    storage.close()


def test_pins_and_discards(tmp_path):
    storage = opened(tmp_path)
    app = storage.write_app(0, [b"abc"])
    storage.pin(app)
    storage.pin(app)
    storage.discard_app(app)
    storage.unpin(app)
    assert app_names(tmp_path) == {app.name}
    storage.unpin(app)
    assert app_names(tmp_path) == set()
    with pytest.raises(StorageError, match="no longer kept"):
        storage.pin(app)
    with pytest.raises(InvariantViolation, match="not pinned"):
        storage.unpin(app)
    storage.close()


def test_a_file_that_others_let_go_while_it_is_stored_stays(tmp_path):
    class LettingGo(QuickDisk):
        def rename(self, source: str, target: str) -> None:
            storage.unpin(app)
            super().rename(source, target)

    opened(tmp_path).close()
    storage, _ = Storage.open(tmp_path, disk=QuickDisk())
    app = storage.write_app(0, [b"abc"])
    storage.pin(app)
    storage.discard_app(app)
    storage._disk = LettingGo()
    storage.rewrite(state_of(0, app=app), 0)
    assert app_names(tmp_path) == {app.name}
    storage.close()
    facts = facts_of(tmp_path)
    assert facts is not None
    assert facts[3] == b"abc"


def test_reading_keeps_the_file(tmp_path):
    storage = opened(tmp_path)
    app = storage.write_app(0, [b"a" * (1 << 20), b"b"])
    storage.rewrite(state_of(0, app=app), 0)
    reading = storage.read_app(app)
    assert next(reading) == b"a" * (1 << 20)
    storage.rewrite(state_of(0), 0)
    assert app_names(tmp_path) == {app.name}
    assert list(reading) == [b"b"]
    assert app_names(tmp_path) == set()
    storage.close()


def test_strays_go_only_once_something_is_committed(tmp_path):
    strays = ["app-1-0123456789abcdef", "nodes.conf.tmp-1-2"]
    others = ["app-1-xyz", "app-1-0123456789abcdef.bak", "nodes.conf.tmp", "notes.txt", "nodes.conf.tmp-a-2"]
    for name in strays + others:
        (tmp_path / name).write_text("x")
    storage, _ = Storage.open(tmp_path, disk=QuickDisk())
    assert {path.name for path in tmp_path.iterdir()} >= {*strays, *others}
    storage.rewrite(state_of(0), None, hard_state=FIRST)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "nodes.conf", "raftfast.lock"}
    storage.close()
    for name in strays:
        (tmp_path / name).write_text("x")
    Storage.open(tmp_path, disk=QuickDisk())[0].close()
    assert {path.name for path in tmp_path.iterdir()} == {*others, "nodes.conf", "raftfast.lock"}


# Folders that are refused; nothing in them changes.


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "raftfast.lock"}


def refused(folder: Path, pattern: str) -> None:
    before = folder_bytes(folder)
    with pytest.raises(StorageError, match=pattern):
        Storage.open(folder, disk=QuickDisk())
    assert folder_bytes(folder) == before


def test_a_missing_changed_or_cut_app_file_is_refused(tmp_path):
    storage = opened(tmp_path)
    app = storage.write_app(0, [b"abcdef"])
    storage.rewrite(state_of(0, app=app), 0)
    storage.close()
    path = tmp_path / app.name
    path.write_bytes(b"abcdeg")
    refused(tmp_path, f"{app.name}: the app state file has the checksum")
    path.write_bytes(b"abcde")
    refused(tmp_path, "has 5 bytes, nodes.conf says 6")
    path.unlink()
    refused(tmp_path, "No such file")
    path.write_bytes(b"abcdef")
    assert facts_of(tmp_path) is not None


def test_a_checksum_of_zero_is_checked_like_any_other(tmp_path):
    storage = opened(tmp_path)
    app = storage.write_app(0, [b"\0" * 9])
    assert app.crc == 0
    storage.rewrite(state_of(0, app=app), 0)
    storage.close()
    (tmp_path / app.name).write_bytes(b"\0" * 8 + b"\1")
    refused(tmp_path, "has the checksum")


@pytest.mark.parametrize("name", ["07_raft_corrupt_middle", "08_raft_index_gap", "x12_raft_snapshot_crc_mismatch"])
def test_a_damaged_file_is_refused_with_its_line(tmp_path, name):
    data = (VECTORS / f"{name}.conf").read_bytes()
    (tmp_path / "nodes.conf").write_bytes(data)
    with pytest.raises(ParseError) as parsed:
        inspect(tmp_path / "nodes.conf")
    assert parsed.value.lineno > 0
    refused(tmp_path, rf"nodes\.conf: line {parsed.value.lineno}: .*left as it is")


def test_a_gossip_file_is_refused_and_says_what_to_do(tmp_path):
    (tmp_path / "nodes.conf").write_bytes((VECTORS / "01_small_valid.conf").read_bytes())
    refused(tmp_path, r"gossip cluster.*move the file away.*MEET")


def test_a_file_without_a_term_is_refused(tmp_path):
    (tmp_path / "nodes.conf").write_bytes(nodesconf.format_node_line(NODES[0]) + b"\n")
    refused(tmp_path, "no currentTerm")


def file_of(*nodes: NodeRecord, state: str = "lastApplied 5 snapshotTerm 2") -> bytes:
    lines = b"".join(nodesconf.format_node_line(record) + b"\n" for record in nodes or NODES)
    return lines + f"vars currentTerm 3 {state}\n".encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (file_of(NODES[0], node(OTHER_ID, "master", "handshake")), f"node {OTHER_ID} is in handshake, no member"),
        (
            file_of(replace(NODES[0], flags=("myself", "slave"), primary_id=OTHER_ID), node(OTHER_ID, "handshake")),
            f"node {OTHER_ID} is in handshake, no member",
        ),
        (file_of(state="lastApplied 5"), "lastApplied without snapshotTerm: the term of the stored state is not known"),
        (file_of(state="lastApplied 18446744073709551615 snapshotTerm 2"), "lastApplied 1844.* no room for a log"),
        (file_of(state="lastApplied 9223372036854775808 snapshotTerm 2"), "lastApplied 9223.* no room for a log"),
    ],
)
def test_a_file_that_says_too_little_or_that_a_rewrite_would_change_is_refused(tmp_path, data, reason):
    (tmp_path / "nodes.conf").write_bytes(data)
    for _ in range(2):
        refused(tmp_path, rf"nodes\.conf: {reason}.*; the file was left as it is")
    assert inspect(tmp_path / "nodes.conf").vars["currentTerm"] == 3  # to be read all the same


@pytest.mark.parametrize("state", ["lastApplied 9223372036854775807 snapshotTerm 2", "lastApplied 0", ""])
def test_what_is_just_not_refused(tmp_path, state):
    (tmp_path / "nodes.conf").write_bytes(file_of(state=state))
    assert facts_of(tmp_path) is not None


@pytest.mark.parametrize("name", ["06_raft_torn_last_line", "x11_raft_zero_checksums", "x14_raft_no_final_newline"])
def test_a_file_of_a_server_that_stores_no_snapshot_term_can_be_read_and_is_not_started_on(tmp_path, name):
    (tmp_path / "nodes.conf").write_bytes((VECTORS / f"{name}.conf").read_bytes())
    assert inspect(tmp_path / "nodes.conf").vars["lastApplied"] == 42
    refused(tmp_path, "lastApplied without snapshotTerm")


def test_who_opens_can_refuse_before_anything_is_written(tmp_path):
    filled(tmp_path, 2).close()
    with open(tmp_path / "nodes.conf", "ab") as file:
        file.write(b"log 0123")  # what a rewrite would drop
    before = folder_bytes(tmp_path)

    def check(conf: NodesConf) -> None:
        assert [index for index, _, _ in conf.entries] == [1, 2]
        assert folder_bytes(tmp_path) == before
        raise KeyError("not mine")

    with pytest.raises(KeyError, match="not mine"):
        Storage.open(tmp_path, disk=QuickDisk(), check=check)
    assert folder_bytes(tmp_path) == before
    assert facts_of(tmp_path) is not None  # the lock is free


def test_a_file_of_blank_lines_is_refused_and_an_empty_one_is_fresh(tmp_path):
    (tmp_path / "nodes.conf").write_bytes(b"\n\n\n")
    refused(tmp_path, "myself")
    (tmp_path / "nodes.conf").write_bytes(b"")
    assert facts_of(tmp_path) is None


def test_a_torn_tail_is_dropped_and_told(tmp_path):
    storage = filled(tmp_path, 2)
    storage.close()
    with open(tmp_path / "nodes.conf", "ab") as file:
        file.write(b"log 0123456789abcdef 3 1 AP")
    storage, loaded = Storage.open(tmp_path, disk=QuickDisk())
    assert any("27 bytes" in warning for warning in loaded.warnings)
    assert b"0123456789abcdef" not in (tmp_path / "nodes.conf").read_bytes()
    storage.check()
    storage.close()
    assert facts_of(tmp_path) == (FIRST, 0, 0, None, entries("e1", "e2"))


def test_a_full_raft_file_of_another_server_loads_and_goes_on(tmp_path):
    data = (VECTORS / "05_raft_full.conf").read_bytes()
    (tmp_path / "nodes.conf").write_bytes(data)
    storage, loaded = Storage.open(tmp_path, disk=QuickDisk())
    assert (loaded.hard_state.current_term, storage.stored_index, storage.last_index) == (8, 42, 53)
    folded, original = inspect(tmp_path / "nodes.conf"), nodesconf.parse(data)
    assert (folded.vars, folded.entries) == (original.vars, original.entries)
    assert folded.nodes == tuple(sorted(original.nodes, key=lambda record: record.id))
    storage.check()
    storage.close()


# The lock.

HOLDER = """
import sys
from raftfast.storage import Storage
storage, _ = Storage.open(sys.argv[1])
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.processes
def test_two_processes_can_not_share_a_folder(tmp_path):
    opened(tmp_path).close()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StorageError, match=rf"in use by another process \(pid {holder.pid}\)"):
            Storage.open(tmp_path)
        holder.stdin.close()
        assert holder.wait(120) == 0
    assert facts_of(tmp_path) is not None


def test_the_lock_outlives_rewrites_and_goes_with_close(tmp_path):
    storage = opened(tmp_path)
    storage.rewrite(state_of(0), 0)
    with pytest.raises(StorageError, match="in use"):
        Storage.open(tmp_path)
    (tmp_path / "raftfast.lock").unlink()
    with pytest.raises(StorageError, match=r"nodes\.conf is in use"):
        Storage.open(tmp_path)
    storage.close()
    storage.close()
    with pytest.raises(StorageError, match="is closed"):
        storage.append(None, None, 1, [line(1)])
    with pytest.raises(StorageError, match="is closed"):
        storage.rewrite(state_of(0), 0)
    assert facts_of(tmp_path) is not None


# Reading without taking.


def test_inspect_changes_nothing_and_needs_no_lock(tmp_path):
    storage = filled(tmp_path, 2)
    app = storage.write_app(1, [b"q"])
    storage.rewrite(state_of(1, 1, app=app), 1)
    before = folder_bytes(tmp_path)
    conf = inspect(tmp_path / "nodes.conf")
    assert [index for index, _, _ in conf.entries] == [2]
    assert app_of(conf) == app
    assert folder_bytes(tmp_path) == before
    storage.close()
    with pytest.raises(StorageError, match="No such file"):
        inspect(tmp_path / "none")
    with pytest.raises(StorageError, match="Is a directory"):
        inspect(tmp_path)


def test_a_folder_that_another_process_made_just_now_is_taken(tmp_path: Path) -> None:
    """Of two that start at once the lock decides, not who made the folder."""

    class Late(Disk):
        looked = False

        def is_folder(self, path: str) -> bool:
            if not self.looked:
                self.looked = True
                os.mkdir(path)
                raise FileNotFoundError(path)
            return super().is_folder(path)

    folder = Folder(str(tmp_path / "node"), Late())
    with pytest.raises(StorageError, match="in use by another process"):
        Folder(str(tmp_path / "node"), Disk())
    folder.close()
