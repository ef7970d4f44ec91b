"""Steps that the named tests of the core take often."""

from __future__ import annotations

from raft_world import World

from raftfast.messages import AppendEntries, Message


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
