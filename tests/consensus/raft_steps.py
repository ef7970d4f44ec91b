"""Steps that the named tests of the core take often."""

from __future__ import annotations

from typing import Any

from raft_world import Same, World

from raftfast.config import Config
from raftfast.consensus import Raft, Standing, Update
from raftfast.messages import AppendEntries, AppendEntriesAck, Message, Role
from raftfast.records import HardState


def led(log_class: type, count: int = 3, **knobs: float) -> World:
    """A cluster that node 1 leads in term 1, its NOOP committed everywhere, heard for 300 ms."""
    world = World(log_class, count, **knobs)
    world.elect("1")
    world.pass_time(300, deliver=True)
    return world


def append(prev: tuple[int, int], commit: int, *lines: bytes, term: int = 1, sender: str = "1") -> AppendEntries:
    terms = [int(line.split(b" ")[0]) for line in lines]
    return AppendEntries(sender, term, *prev, commit, tuple(terms), tuple(lines), 1)


def ask(world: World, sender: str, to: str, message: Message) -> list[Message]:
    """Hands over one message; what the receiver sends back to the sender, taken off the bag."""
    before = len(world.under_way(to, sender))
    world.send(sender, to, message)
    world.deliver(sender, to, last=True)
    answers = world.under_way(to, sender)[before:]
    world.bag = [flight for flight in world.bag if flight not in answers]
    return [flight.message for flight in answers]


def messages(world: World, sender: str, to: str) -> list[Message]:
    return [flight.message for flight in world.under_way(sender, to)]


def lines(world: World, node: str) -> list[bytes]:
    log = world[node].log
    found: list[bytes] = log.lines(log.first_index, log.last_index + 1)
    return found


def behind(log_class: type, terms: list[int] | None = None) -> World:
    """Node 1 leads and has compacted its log up to 9; node 3 has a log of its own, and needs a snapshot."""
    world = led(log_class)
    world.crash("3")
    world.propose("1", *"abcdefgh")
    world.stabilize()
    world["1"].log.trim_to(9)
    world.put("3", voters="123", terms=terms or [])
    world.boot("3")
    world.stabilize()
    return world


def follower(log_class: type, **kwargs: Any) -> Raft:
    """One core, a follower in a cluster of three whose storage jobs come back when the test says so."""
    raft = Raft(
        "1",
        kwargs.pop("log", log_class(0, 0)),
        kwargs.pop("config", Config(node_timeout=1.0)),
        Same(0.5),
        standing=Standing.MEMBER,
        hard_state=kwargs.pop("hard_state", HardState(1, None)),
        voters=kwargs.pop("voters", "123"),
        members=kwargs.pop("members", "123"),
        now=0.0,
    )
    assert not kwargs
    return raft


def pre_candidate(log_class: type) -> Raft:
    """A node that followed 2 in term 1 until its election timeout passed."""
    raft = follower(log_class)
    raft.receive("2", AppendEntries("2", 1, 0, 0, 0, (), (), 1), 0.1, 7)
    for tenth in range(2, 20):
        raft.tick(tenth / 10)
    assert raft.role is Role.PRE_CANDIDATE
    raft.take()
    return raft


def acks(update: Update) -> list[AppendEntriesAck]:
    return [send.message for send in update.send if isinstance(send.message, AppendEntriesAck)]
