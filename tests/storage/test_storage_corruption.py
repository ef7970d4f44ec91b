"""Bytes that change on the disk: a folder gives exactly the state that was stored, or is refused, saying where and why.

Each byte of a small folder's files is changed in turn, in several ways, and sampled bytes of a larger one. What a node
would begin with is compared: cluster state, term and vote, log, app state.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest
from memory_disk import MemoryDisk
from storage_disks import MY_ID, OTHER_ID, QuickDisk, line, state_of

from raftfast.cluster.snapshot import node_lines
from raftfast.errors import StorageError
from raftfast.member import Origin
from raftfast.records import Address, HardState
from raftfast.storage import Storage
from tally import Tally

Found = tuple[object, ...]


def small(folder: Path) -> None:
    """A file with all that can be in it: an app state, log lines before and behind an appended vote."""
    storage, _ = Storage.open(folder, disk=QuickDisk())
    app = storage.write_app(2, [b"the app state\n", bytes(range(256))])
    storage.rewrite(state_of(2, 1, cluster_id="c" * 40, app=app), None, hard_state=HardState(3, MY_ID))
    storage.append(None, None, 3, [line(1, "first"), line(2, "two  blanks"), line(3, r"a\nb")])
    storage.append(HardState(4, OTHER_ID), None, 6, [])
    storage.append(None, None, 6, [line(4, "behind the vote"), line(4, "the last one")])
    storage.close()


def ending_in_a_vote(folder: Path) -> None:
    storage, _ = Storage.open(folder, disk=QuickDisk())
    storage.rewrite(state_of(0), None, hard_state=HardState(1, None))
    storage.append(None, None, 1, [line(1, "one")])
    storage.append(HardState(9, OTHER_ID), None, 2, [])
    storage.close()


def without_a_log(folder: Path) -> None:
    storage, _ = Storage.open(folder, disk=QuickDisk())
    storage.rewrite(state_of(0), None, hard_state=HardState(1, MY_ID))
    storage.close()


def large(folder: Path) -> None:
    storage, _ = Storage.open(folder, disk=QuickDisk())
    app = storage.write_app(5, [os.urandom(1 << 16)] * 4)
    storage.rewrite(state_of(5, 1, app=app), None, hard_state=HardState(2, MY_ID))
    for start in range(6, 2006, 100):
        storage.append(None, None, start, [line(2, f"{number} {'x' * 50}") for number in range(start, start + 100)])
    storage.close()


def found_on(disk: MemoryDisk) -> Found:
    """All that a node begins with. Raises StorageError where it would not start."""
    storage, loaded = Storage.open(disk.path, disk=disk)
    try:
        assert loaded.conf is not None, "a folder that was in use is not fresh"
        origin = Origin.of_file(loaded.conf, Address("127.0.0.1", 7000, 17000, "", {"tls-port": "0"}))
        app = None if loaded.app is None else b"".join(storage.read_app(loaded.app))
        return (
            origin.identity.node_id,
            origin.standing,
            node_lines(origin.state),
            loaded.hard_state,
            origin.last_applied,
            origin.snapshot_term,
            origin.cluster_id,
            origin.entries,
            app,
        )
    finally:
        storage.close()


def changes(data: bytes, rng: random.Random, sample: int | None) -> list[tuple[int, int]]:
    """(offset, xor) to try: one bit of each byte, or all, or to a NUL or a line end; line ends in all ways."""
    offsets = range(len(data)) if sample is None else sorted(rng.sample(range(len(data)), min(sample, len(data))))
    found = []
    for offset in offsets:
        byte = data[offset]
        ways = [1 << rng.randrange(8), 0x20, 0xFF, byte, byte ^ 0x0A]
        found += [(offset, xor) for xor in (dict.fromkeys(ways) if byte == 0x0A else [rng.choice(ways)]) if xor]
    return found


def outcomes(made: Path, seed: int, sample: int | None) -> tuple[int, int]:
    """How many changes were tried, and after how many of them the folder was refused."""
    rng = random.Random(seed)
    files = {path.name: path.read_bytes() for path in made.iterdir() if path.name != "raftfast.lock"}
    right = found_on(MemoryDisk(files))
    tried = refused = 0
    for name, data in files.items():
        for offset, xor in changes(data, rng, sample):
            changed = data[:offset] + bytes([data[offset] ^ xor]) + data[offset + 1 :]
            disk = MemoryDisk({**files, name: changed})
            tried += 1
            where = f"byte {offset} of {name}, {data[offset]:#04x} became {changed[offset]:#04x}"
            try:
                found = found_on(disk)
            except StorageError as error:
                refused += 1
                text = str(error)
                assert name in text, f"{where}: {text!r} does not name the file"
                if name == "nodes.conf":
                    assert re.search(r"line \d+: .", text) or "no line" in text or "no currentTerm" in text, text
                assert disk.files[name] == changed, f"{where}: the file was touched"
            else:
                assert found == right, f"{where}: another state"
    return tried, refused


@pytest.mark.parametrize("make", [small, ending_in_a_vote, without_a_log], ids=lambda make: make.__name__)
def test_each_byte_of_a_small_folder(tmp_path: Path, tally: Tally, shown_seed: int, make) -> None:
    make(tmp_path / "made")
    tried, refused = outcomes(tmp_path / "made", shown_seed, None)
    tally.add("changed bytes, all of small folders", {"tried": tried, "refused": refused})
    assert refused > tried * 0.8


def test_sampled_bytes_of_a_larger_folder(tmp_path: Path, tally: Tally, shown_seed: int) -> None:
    large(tmp_path / "made")
    tried, refused = outcomes(tmp_path / "made", shown_seed, 40)
    tally.add("changed bytes, sampled of a large folder", {"tried": tried, "refused": refused})
    assert refused > tried * 0.8
