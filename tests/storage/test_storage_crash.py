"""A crash at every call, with every fate of what was not synced: what was acknowledged is there, and nothing else.

The storage runs on a disk that records; each prefix of the record gives the folders that a crash may leave; each of
them is opened and compared. Disks that are deaf for one kind of call show that the comparison would notice its absence.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from storage_disks import (
    MY_ID,
    OTHER_ID,
    Facts,
    Image,
    RecordingDisk,
    crash_images,
    facts_of,
    facts_of_image,
    line,
    state_of,
)

from raftfast.errors import StorageError
from raftfast.hot import nodesconf
from raftfast.records import HardState
from raftfast.storage import AppFile, Storage
from tally import Tally


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

    def reset(self, hard: HardState) -> None:
        """All is given up: CLUSTER RESET, and a joiner's step-down."""
        self.hard, self.index, self.term, self.body, self.app, self.lines = hard, 0, 0, None, None, ()
        self.storage.rewrite(state_of(0), None, hard_state=hard, reset=True)
        self._done([])

    def install(self, pieces: int, hard: HardState | None = None) -> None:
        """A snapshot that comes in pieces, with an append while it comes; installed above all lines."""
        body = b"%d bytes that came in pieces" % pieces
        snapshot = MY_ID.encode() + b" a node line\napp %d %016x\n" % (len(body), nodesconf.crc64(body)) + body
        incoming = self.storage.incoming(self.index + 100, len(snapshot))
        size = len(snapshot) // pieces + 1
        for start in range(0, len(snapshot), size):
            incoming.write(start, snapshot[start : start + size])
            self.append(None, None, "i")
        _, app = incoming.finish()
        self.hard, self.index, self.term = hard or self.hard, self.index + 100, self.hard.current_term
        self.app, self.body, self.lines = app, body, ()
        self.storage.rewrite(state_of(self.index, self.term, app=app), None, hard_state=hard)
        self._done([])

    def rewrite_meanwhile(self, advance: int, body: bytes) -> None:
        """Moves S; between the pieces of the app state lines are appended, which must be in the new file too."""
        index = self.index + advance

        def pieces() -> Iterator[bytes]:
            for number in range(len(body)):
                self.append(None, None, "m")
                yield body[number : number + 1]

        app = self.storage.write_app(index, pieces())
        self.append(HardState(self.hard.current_term + 1, OTHER_ID), None, "v")
        self.index, self.lines = index, self.lines[advance:]
        self.app, self.body = app, body
        self.storage.rewrite(state_of(index, self.term, app=app), index)
        self._done([])

    def reopen(self) -> None:
        """A graceful end, and a start: the file is folded."""
        self.storage.close()
        self.storage, _ = Storage.open(self.folder, disk=self.disk)
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


def faults(
    run: Run,
    tally: Tally,
    counts: list[int] | None = None,
    *,
    coarse: bool = False,
    sample: Callable[[list[Image]], list[Image]] = lambda images: images,
) -> Iterator[str]:
    """What is wrong with the folders that crashes leave, one sentence each; none is good.

    `counts`: the cut points to look at; all of them if it is None. `sample` chooses among the folders of one.
    """
    run.storage.check()
    run.storage.close()
    seen: dict[frozenset[tuple[str, bytes]], Facts | StorageError] = {}
    cuts = range(len(run.disk.notes) + 1) if counts is None else counts
    for count in cuts:
        allowed = run.allowed(count)
        for image in sample(list(crash_images(run.disk.notes[:count], coarse=coarse))):
            key = frozenset(image.items())
            if key not in seen:
                seen[key] = outcome(image)
            facts = seen[key]
            if isinstance(facts, StorageError):
                yield f"after {count} notes: {facts}"
            elif facts not in allowed:
                yield f"after {count} notes: {facts} is found, {allowed} may be"
    matrix = "crash, complete" if counts is None else "crash, sampled"
    tally.add(
        matrix, {"cut points": len(cuts), "folders opened": len(seen)}, Counter(each[0] for each in run.disk.notes)
    )


def outcome(image: Image) -> Facts | StorageError:
    """What comes of opening a folder of this image."""
    try:
        return facts_of_image(image)
    except StorageError as error:
        return error


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


def appends_meanwhile(run: Run) -> None:
    run.rewrite(0, HardState(1, MY_ID), body=b"old")
    run.append(None, None, "abc")
    run.rewrite_meanwhile(2, b"new")
    run.append(None, None, "z")


def taken_in_pieces(run: Run) -> None:
    run.rewrite(0, HardState(1, MY_ID))
    run.append(None, None, "ab")
    run.install(3, HardState(4, None))
    run.append(HardState(4, OTHER_ID), None, "c")


def reset(run: Run) -> None:
    run.rewrite(0, HardState(5, MY_ID), body=b"old")
    run.append(None, None, "ab")
    run.reset(HardState(0, None))
    run.append(HardState(1, OTHER_ID), None, "c")
    run.reset(HardState(1, None))


def started_again(run: Run) -> None:
    run.rewrite(0, HardState(1, MY_ID), body=b"state")
    run.append(HardState(2, OTHER_ID), None, "ab")
    run.append(HardState(3, None), None, "")
    run.reopen()
    run.append(HardState(3, MY_ID), 1, "c")
    run.reopen()


SCENARIOS = [
    votes_and_lines,
    cut_in_place,
    cut_behind_the_vote,
    growth,
    install,
    appends_meanwhile,
    taken_in_pieces,
    reset,
    started_again,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_crash_at_every_call(tmp_path, tally, scenario):
    """Complete: each prefix of the calls, each byte at which a write may be torn, each fate of a name."""
    run = Run(tmp_path / "live")
    scenario(run)
    assert list(faults(run, tally)) == []


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
    assert any(faults(run, Tally(), coarse=True))


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
    assert any("is found" in fault for fault in faults(run, Tally(), coarse=True))


def test_a_cut_that_is_not_synced_before_the_append_is_noticed(tmp_path, monkeypatch):
    """New bytes may reach the disk and the shorter size not: then they stand in front of old ones."""
    run = Run(tmp_path / "live")
    run.rewrite(0, HardState(1, MY_ID))
    run.append(HardState(2, OTHER_ID), None, "a")
    run.append(None, None, "bcdefghi")
    monkeypatch.setattr(run.disk, "fdatasync", lambda fd: None)
    run.append(HardState(3, MY_ID), 1, "x")
    assert any("line" in fault for fault in faults(run, Tally(), coarse=True))


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
    assert any("app state file" in fault for fault in faults(run, Tally(), coarse=True))


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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=8), seed=st.integers(0, 1 << 32))
def test_sequences_with_a_crash_anywhere(tmp_path_factory, tally, steps, seed):
    folder = tmp_path_factory.mktemp("crash")
    run = Run(folder / "live")
    play(run, steps)
    notes = run.disk.notes
    counts = sorted(random.Random(seed).sample(range(len(notes) + 1), min(4, len(notes))))
    note(f"seed {seed}, crash after notes {counts}")
    assert list(faults(run, tally, [*counts, len(notes)], coarse=True)) == []
    assert facts_of(folder / "live") == run.facts
    shutil.rmtree(folder)


def test_a_long_run_with_crashes_at_sampled_calls(tmp_path, tally, shown_seed):
    """Large: hundreds of lines a write, states that are large; the cut points and the folders of each are sampled."""
    rng = random.Random(shown_seed)
    run = Run(tmp_path / "live")
    run.rewrite(0, HardState(1, None), body=b"")
    for number in range(30):
        run.append(HardState(run.hard.current_term + rng.randint(0, 1), None), None, "x" * rng.randint(0, 300))
        if rng.random() < 0.3 and run.lines:
            run.append(None, rng.randrange(len(run.lines)), "y")
        if number % 7 == 6:
            run.rewrite(rng.randint(0, len(run.lines)), body=rng.randbytes(9) * 20_000)
    counts = sorted(rng.sample(range(len(run.disk.notes) + 1), 25))

    def sample(images: list[Image]) -> list[Image]:
        return rng.sample(images, min(20, len(images)))

    assert list(faults(run, tally, counts, coarse=True, sample=sample)) == []
