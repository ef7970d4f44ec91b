"""A crash at every call, with every fate of what was not synced: what was acknowledged is there, and nothing else.

The storage runs on a disk that records; each prefix of the record gives the folders that a crash may leave; each of
them is opened and compared. Disks that are deaf for one kind of call show that the comparison would notice its absence.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from storage_disks import MY_ID, OTHER_ID, Facts, Image, RecordingDisk, crash_images, facts_of, lay, line, state_of

from raftfast.errors import StorageError
from raftfast.records import HardState
from raftfast.storage import AppFile, Storage


@dataclass
class Run:
    """A storage on a recording disk, and what it was told: the states before and after each step, and where they end.

    `steps` are (number of notes at the end, state after it, states that may be found while it is under way).
    """

    folder: Path
    deaf: frozenset[str] = frozenset()
    steps: list[tuple[int, Facts, list[Facts]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disk = RecordingDisk(self.deaf)
        self.storage, _ = Storage.open(self.folder, disk=self.disk)
        self.hard = HardState(0, None)
        self.index = self.term = 0
        self.body: bytes | None = None
        self.app: AppFile | None = None
        self.lines: tuple[bytes, ...] = ()
        self.facts: Facts = None

    def _done(self, under_way: list[Facts]) -> None:
        self.steps.append((len(self.disk.notes), self._told(), [self.facts, *under_way, self._told()]))
        self.facts = self._told()

    def _told(self) -> Facts:
        return self.hard, self.index, self.term, self.body, self.lines

    def append(self, hard: HardState | None, cut: int | None, names: str) -> None:
        """Appends one line a letter, after dropping what stands from the `cut`-th line behind S on."""
        old_hard, hard = self.hard, hard or self.hard
        kept = self.lines if cut is None else self.lines[:cut]
        new = tuple(line(hard.current_term, name) for name in names)
        first = self.index + len(kept) + 1
        self.storage.append(None if hard == old_hard else hard, None if cut is None else first, first, list(new))
        self.hard, self.lines = hard, kept + new
        at = (self.index, self.term, self.body)
        parts: list[Facts] = [(old_hard, *at, kept)]
        parts += [(hard, *at, kept + new[:count]) for count in range(len(new) + 1)]
        self._done(parts)

    def rewrite(self, advance: int | None, hard: HardState | None = None, body: bytes | None = None) -> None:
        """Moves S by `advance` lines and keeps the rest; None: an install above all lines."""
        self.hard = hard or self.hard
        if advance is None:
            self.index, self.lines = self.index + len(self.lines) + 3, ()
        else:
            self.index, self.lines = self.index + advance, self.lines[advance:]
        self.term = self.term or self.hard.current_term
        if body is not None:
            self.app, self.body = self.storage.write_app(self.index, [body[:1], body[1:]]), body
        state = state_of(self.index, self.term, app=self.app)
        self.storage.rewrite(state, None if advance is None else self.index, hard_state=hard)
        self._done([])

    def allowed(self, count: int) -> list[Facts]:
        """The states that may be found after a crash once `count` notes were made."""
        before: Facts = None
        for end, after, under_way in self.steps:
            if count < end:
                return under_way
            before = after
        return [before]


@pytest.fixture(autouse=True)
def tmp_in_memory_is_small(tmp_path):
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


def faults(run: Run, scratch: Path, counts: list[int] | None = None) -> Iterator[str]:
    """What is wrong with the folders that crashes leave, one sentence each; none is good."""
    run.storage.check()
    run.storage.close()
    seen: dict[tuple[bytes, ...], Facts | StorageError] = {}
    cuts = range(len(run.disk.notes) + 1) if counts is None else counts
    for count in cuts:
        allowed = run.allowed(count)
        for image in crash_images(run.disk.notes[:count]):
            key = tuple(part for name in sorted(image) for part in (name.encode(), image[name]))
            if key not in seen:
                seen[key] = outcome(image, scratch / f"image{len(seen)}")
            facts = seen[key]
            if isinstance(facts, StorageError):
                yield f"after {count} notes: {facts}"
            elif facts not in allowed:
                yield f"after {count} notes: {facts} is found, {allowed} may be"
    print(f"{len(cuts)} cut points, {len(seen)} different folders opened")


def outcome(image: Image, folder: Path) -> Facts | StorageError:
    """What comes of opening a folder of this image."""
    lay(image, folder)
    try:
        return facts_of(folder)
    except StorageError as error:
        return error
    finally:
        shutil.rmtree(folder)


def votes_and_lines(run: Run) -> None:
    run.rewrite(0, HardState(1, MY_ID))
    run.append(None, None, "ab")
    run.append(HardState(2, None), None, "")
    run.append(HardState(2, OTHER_ID), None, "c")
    run.append(None, None, "d")


def cut_in_place(run: Run) -> None:
    run.rewrite(0, HardState(1, MY_ID))
    run.append(HardState(2, OTHER_ID), None, "a")
    run.append(None, None, "bcd")
    run.append(HardState(3, MY_ID), 2, "xy")
    run.append(None, 3, "")


def cut_behind_the_vote(run: Run) -> None:
    run.rewrite(0, HardState(1, MY_ID))
    run.append(None, None, "abc")
    run.append(HardState(2, OTHER_ID), None, "")
    run.append(None, 1, "n")
    run.append(HardState(3, None), None, "o")
    run.append(HardState(4, OTHER_ID), 1, "")


def growth(run: Run) -> None:
    run.rewrite(0, HardState(1, MY_ID))
    run.append(None, None, "abc")
    run.append(HardState(2, OTHER_ID), None, "d")
    run.rewrite(2, body=b"first state")
    run.append(None, None, "e")
    run.rewrite(1, body=b"second state")


def install(run: Run) -> None:
    run.rewrite(0, HardState(1, MY_ID), body=b"old")
    run.append(None, None, "abc")
    run.rewrite(None, HardState(2, None), body=b"installed")
    run.append(HardState(2, OTHER_ID), None, "d")


SCENARIOS = [votes_and_lines, cut_in_place, cut_behind_the_vote, growth, install]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_crash_at_every_call(tmp_path, scenario):
    run = Run(tmp_path / "live")
    scenario(run)
    assert list(faults(run, tmp_path)) == []


@pytest.mark.parametrize(
    ("call", "scenario"),
    [
        ("fdatasync", votes_and_lines),
        ("fdatasync", cut_in_place),
        ("fsync", growth),
        ("fsync", cut_behind_the_vote),
        ("fsync", install),
        ("fsync_folder", growth),
        ("fsync_folder", install),
    ],
)
def test_a_sync_that_is_left_out_is_noticed(tmp_path, call, scenario: Callable[[Run], None]):
    run = Run(tmp_path / "live", frozenset({call}))
    scenario(run)
    assert any(faults(run, tmp_path))


def test_a_cut_that_takes_the_vote_along_is_noticed(tmp_path, monkeypatch):
    """The rule of `Storage._cut` taken out: always cut in place, and append the vote again behind it."""

    def cut(self, conf, index, hard, text):
        conf.cut(index)
        conf.pairs = [pair for pair in conf.pairs if pair[1] <= conf.size]
        conf.add(hard, text)
        conf.disk.fdatasync(conf.fd)
        self._hard = hard
        return True

    monkeypatch.setattr(Storage, "_cut", cut)
    run = Run(tmp_path / "live")
    cut_behind_the_vote(run)
    assert any("is found" in fault for fault in faults(run, tmp_path))


def test_a_cut_that_is_not_synced_before_the_append_is_noticed(tmp_path, monkeypatch):
    """New bytes may reach the disk and the shorter size not: then they stand in front of old ones."""
    run = Run(tmp_path / "live")
    run.rewrite(0, HardState(1, MY_ID))
    run.append(HardState(2, OTHER_ID), None, "a")
    run.append(None, None, "bcdefghi")
    monkeypatch.setattr(run.disk, "fdatasync", lambda fd: None)
    run.append(HardState(3, MY_ID), 1, "x")
    assert any("line" in fault for fault in faults(run, tmp_path))


def test_an_app_file_removed_before_the_commit_is_noticed(tmp_path, monkeypatch):
    run = Run(tmp_path / "live")
    run.rewrite(0, HardState(1, MY_ID), body=b"old")
    old = run.app
    assert old is not None
    rename = RecordingDisk.rename

    def early(self, source, target):
        self.unlink(run.storage.app_path(old))
        rename(self, source, target)

    monkeypatch.setattr(RecordingDisk, "rename", early)
    run.rewrite(0, body=b"new")
    assert any("app state file" in fault for fault in faults(run, tmp_path))


# Sequences.

TERMS = st.integers(0, 2)
VOTES = st.sampled_from([None, MY_ID, OTHER_ID])
NAMES = st.text("abcdef", max_size=3)
STEPS = st.one_of(
    st.tuples(st.just("append"), TERMS, VOTES, st.none() | st.integers(0, 4), NAMES),
    st.tuples(st.just("rewrite"), TERMS, VOTES, st.none() | st.integers(0, 4), st.none() | st.binary(max_size=5)),
)


def play(run: Run, steps: list[tuple]) -> None:
    """Plays the steps, bent so that each of them is allowed."""
    run.rewrite(0, HardState(1, None))
    for kind, more, vote, position, what in steps:
        term = run.hard.current_term + more
        hard = HardState(term, vote if more or run.hard.voted_for is None else run.hard.voted_for)
        position = None if position is None else min(position, len(run.lines))
        if kind == "append":
            run.append(hard, position, what)
        else:
            run.rewrite(position, hard, what)
        run.storage.check()


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, max_size=8), seed=st.integers(0, 1 << 32))
def test_sequences_with_a_crash_anywhere(tmp_path_factory, steps, seed):
    folder = tmp_path_factory.mktemp("crash")
    run = Run(folder / "live")
    play(run, steps)
    notes = run.disk.notes
    counts = sorted(random.Random(seed).sample(range(len(notes) + 1), min(4, len(notes))))
    note(f"seed {seed}, crash after notes {counts}")
    assert list(faults(run, folder, [*counts, len(notes)])) == []
    assert facts_of(folder / "live") == run.facts
    shutil.rmtree(folder)
