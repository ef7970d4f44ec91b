"""Every system call of every kind of storing fails once: nothing is acknowledged, nothing goes on, nothing is lost."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from storage_disks import MY_ID, OTHER_ID, Facts, FaultyDisk, QuickDisk, facts_of, line, state_of

from raftfast.errors import StorageError
from raftfast.records import HardState
from raftfast.storage import Storage

OLD_VOTE, NEW_VOTE = HardState(2, MY_ID), HardState(3, OTHER_ID)
OLD_LINES = (line(1, "a"), line(2, "b"), line(2, "c"))


def base(folder: Path, disk: QuickDisk, *, vote_behind: bool) -> Storage:
    """S = 0 with the app state `old`, three lines, term 2; the vote stands before or behind the lines."""
    storage, _ = Storage.open(folder, disk=disk)
    app = storage.write_app(0, [b"old"])
    first = HardState(2, None) if vote_behind else OLD_VOTE
    storage.rewrite(state_of(0, app=app), None, hard_state=first)
    storage.append(None, None, 1, list(OLD_LINES))
    storage.append(OLD_VOTE, None, 4, [])
    return storage


def rewritten(storage: Storage) -> None:
    storage.rewrite(state_of(2, 2, app=storage._stored.app), 2, hard_state=NEW_VOTE)


def installed(storage: Storage) -> None:
    app = storage.write_app(7, [b"new"])
    storage.rewrite(state_of(7, 2, app=app), None, hard_state=NEW_VOTE)


def appended(storage: Storage) -> None:
    storage.append(NEW_VOTE, None, 4, [line(3, "d"), line(3, "e")])


def cut(storage: Storage) -> None:
    storage.append(NEW_VOTE, 2, 2, [line(3, "n")])


CASES: dict[str, tuple[Callable[[Storage], None], bool, Facts]] = {
    "append": (appended, True, (NEW_VOTE, 0, 0, b"old", (*OLD_LINES, line(3, "d"), line(3, "e")))),
    "vote": (lambda storage: storage.append(NEW_VOTE, None, 4, []), True, (NEW_VOTE, 0, 0, b"old", OLD_LINES)),
    "cut in place": (cut, False, (NEW_VOTE, 0, 0, b"old", (*OLD_LINES[:1], line(3, "n")))),
    "cut by rewrite": (cut, True, (NEW_VOTE, 0, 0, b"old", (*OLD_LINES[:1], line(3, "n")))),
    "rewrite": (rewritten, True, (NEW_VOTE, 2, 2, b"old", OLD_LINES[2:])),
    "install": (installed, True, (NEW_VOTE, 7, 2, b"new", ())),
}
OLD_FACTS: Facts = (OLD_VOTE, 0, 0, b"old", OLD_LINES)


def between(old: Facts, new: Facts, found: Facts) -> bool:
    """Whether what was found is the old state, the new one, or a step of an append or cut from one to the other."""
    if found in (old, new):
        return True
    if old is None or new is None or found is None or found[1:4] != old[1:4] or old[1:4] != new[1:4]:
        return False
    same = [mine == theirs for mine, theirs in zip(old[4], new[4], strict=False)]
    common = same.index(False) if False in same else len(same)
    if found[0] == old[0] and found[4] == old[4][:common]:
        return True
    return found[0] == new[0] and len(found[4]) >= common and found[4] == new[4][: len(found[4])]


FAULTS = {
    "full": ("before", errno.ENOSPC),
    "broken": ("before", errno.EIO),
    "quota": ("before", errno.EDQUOT),
    "done, then broken": ("after", errno.EIO),
    "short write": ("short", errno.ENOSPC),
}
HARMLESS = ("unlink", "names", "close")
"""What fails here leaves a stray file, or a descriptor, and nothing else."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", CASES)
def test_every_call_fails_once(tmp_path, tally, case, fault):
    step, vote_behind, new_facts = CASES[case]
    failed_calls = []
    for number in range(200):
        folder = tmp_path / str(number)
        disk = FaultyDisk(*FAULTS[fault])
        storage = base(folder, disk, vote_behind=vote_behind)
        disk.arm(number)
        error = None
        try:
            step(storage)
        except StorageError as raised:
            error = raised
        failed_call = disk.failed_call
        disk.arm(-1)
        if error is None:
            assert failed_call in ("", *HARMLESS), f"{failed_call} failed and the step was acknowledged"
            storage.check()
        else:
            assert str(folder) in str(error), "it says where"
            assert "\n" not in str(error)
        if failed_call:
            failed_calls.append(failed_call)
        if error is not None:
            if storage.failed is not None:
                assert_refuses_everything(storage, disk)
            else:
                assert (case, facts_while_open(storage)) == ("install", OLD_FACTS[1])
        storage.close()
        assert disk.retried == [], "a sync that had failed was tried again on its descriptor"
        found = facts_of(folder)
        if error is None:
            assert found == new_facts
        else:
            assert between(OLD_FACTS, new_facts, found), f"after {failed_call} failed: {found}"
        assert len(list(folder.glob("app-*"))) == 1
        assert list(folder.glob("*.tmp-*")) == []
        if failed_call == "":
            break
    assert failed_calls
    assert failed_call == "", "the step makes more calls than this test expects"
    assert set(failed_calls) & {"fsync", "fdatasync"}
    assert "pwrite" in failed_calls
    tally.add(f"errors of storing, {fault}", {"calls failed": len(failed_calls)}, Counter(failed_calls))


def test_a_sync_that_is_tried_again_would_be_noticed(tmp_path):
    disk = FaultyDisk()
    fd = disk.open(str(tmp_path / "file"), os.O_RDWR | os.O_CREAT)
    disk.arm(0)
    with pytest.raises(OSError, match="error"):
        disk.fdatasync(fd)
    disk.fdatasync(fd)
    assert disk.retried == [fd]
    disk.close(fd)


def facts_while_open(storage: Storage) -> int:
    storage.check()
    return storage.stored_index


def assert_refuses_everything(storage: Storage, disk: FaultyDisk) -> None:
    """After a failure each further call raises, and makes no call on the disk."""
    disk.arm(-1)
    calls: list[Callable[[], object]] = [
        lambda: storage.append(None, None, storage.last_index + 1, [line(1)]),
        lambda: storage.append(None, None, 1, []),
        lambda: storage.rewrite(state_of(9, 2), 9),
        lambda: storage.write_app(9, [b"x"]),
        lambda: storage.incoming(9, 9),
        lambda: storage.write_outgoing(b""),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="failed"):
            call()
    assert disk.count == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_of_opening_fails_once(tmp_path, tally, fault):
    """The error names the folder or the file; what was stored is still there."""
    base(tmp_path, QuickDisk(), vote_behind=True).close()
    failed_calls = []
    for number in range(100):
        disk = FaultyDisk(*FAULTS[fault])
        disk.arm(number)
        try:
            storage, _ = Storage.open(tmp_path, disk=disk)
            storage.close()
        except StorageError as error:
            if str(tmp_path) not in str(error):
                pytest.fail(f"{error} does not say where")
            assert disk.failed_call
        else:
            assert disk.failed_call in ("", *HARMLESS)
        assert disk.retried == []
        assert facts_of_unchanged(tmp_path) == OLD_FACTS
        if disk.failed_call == "":
            break
        failed_calls.append(disk.failed_call)
    assert disk.failed_call == ""
    assert {"open", "lock", "pread", "pwrite", "fsync", "rename", "fsync_folder", "size"} <= set(failed_calls)
    tally.add(f"errors of opening, {fault}", {"calls failed": len(failed_calls)}, Counter(failed_calls))


@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_of_founding_fails_once(tmp_path, tally, fault):
    """An absent folder is made, and holds its first state or nothing; either way it can be used afterwards."""
    failed_calls = []
    for number in range(100):
        folder = tmp_path / str(number)
        disk = FaultyDisk(*FAULTS[fault])
        disk.arm(number)
        error = None
        try:
            storage, _ = Storage.open(folder, disk=disk)
            try:
                storage.rewrite(state_of(0), None, hard_state=OLD_VOTE)
            finally:
                storage.close()
        except StorageError as raised:
            error = raised
            assert str(folder) in str(error)
        assert disk.retried == []
        call = disk.failed_call
        founded: Facts = (OLD_VOTE, 0, 0, None, ())
        assert facts_of(folder) in ((founded,) if error is None else (founded, None))
        if call == "":
            break
        assert error is not None or call in HARMLESS
        failed_calls.append(call)
    assert {"mkdir", "is_folder", "open", "pwrite", "fsync", "rename", "fsync_folder"} <= set(failed_calls)
    tally.add(f"errors of founding, {fault}", {"calls failed": len(failed_calls)}, Counter(failed_calls))


def facts_of_unchanged(folder: Path) -> Facts:
    """As `facts_of`, of a copy."""
    copy = folder / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    found = facts_of(copy)
    for path in copy.iterdir():
        path.unlink()
    copy.rmdir()
    return found


def test_an_interrupt_in_the_middle_of_a_write_stops_the_storage_too(tmp_path):
    class Interrupting(QuickDisk):
        def fdatasync(self, fd: int) -> None:
            raise KeyboardInterrupt

    storage = base(tmp_path, QuickDisk(), vote_behind=True)
    storage.close()
    storage, _ = Storage.open(tmp_path, disk=Interrupting())
    with pytest.raises(KeyboardInterrupt):
        storage.append(None, None, 4, [line(2)])
    with pytest.raises(StorageError, match="append failed"):
        storage.append(None, None, 4, [line(2)])
    storage.close()


def test_a_stray_that_can_not_be_removed_is_met_again(tmp_path):
    disk = FaultyDisk()
    storage = base(tmp_path, disk, vote_behind=True)
    old = storage._stored.app
    assert old is not None
    disk.unlink = lambda path: (_ for _ in ()).throw(OSError(5, "no"))  # type: ignore[method-assign]
    storage.rewrite(state_of(0), 0)
    assert storage.failed is None
    assert (tmp_path / old.name).exists()
    del disk.unlink
    storage.rewrite(state_of(0), 0)
    assert not (tmp_path / old.name).exists()
    storage.close()
