"""Runs a story: a text of commands with what they give below `----`, in the manner of etcd's interaction tests.

A block is a few lines of commands, `----`, and all that they cause; blocks stand apart by a blank line, lines with `#`
are the story's own words. `pytest tests/consensus --rewrite` writes the answers anew. COMMANDS lists what can be said.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from raft_disk import Broken
from raft_words import short
from raft_world import World

from raftfast import messages
from raftfast.consensus import Standing
from raftfast.errors import RaftError

MARK = "----"


class Scenario:
    """One story's cluster."""

    def __init__(self, log_class: type) -> None:
        self._log_class = log_class
        self.world = World(log_class)

    def run(self, text: str) -> str:
        """The text with each block's answer as it is now."""
        blocks = [block for block in text.strip("\n").split("\n\n") if block.strip()]
        return "\n\n".join(self._block(block.split("\n")) for block in blocks) + "\n"

    def _block(self, lines: list[str]) -> str:
        commands = lines[: lines.index(MARK)] if MARK in lines else lines
        wanted = [line for line in commands if line and not line.startswith("#")]
        if not wanted:
            return "\n".join(commands)
        self.world.trace = answers = []
        for line in wanted:
            try:
                self.command(line)
            except RaftError as error:
                answers.append(f"{type(error).__name__}: {error}")
            except Broken:
                raise
            except Exception as error:
                raise ValueError(f"in {line!r}: {error!r}") from error
            self.world.check()
        return "\n".join([*commands, MARK, *(answers or ["ok"])])

    def command(self, line: str) -> None:
        name, *words = line.split(" ")
        COMMANDS[name](self, *words)

    # ------------------------------------------------------------------ nodes

    def nodes(self, count: str, *knobs: str) -> None:
        """nodes 3 [trim_keep=8 …]: so many voters of an empty log, linked with each other"""
        trace = self.world.trace
        self.world = World(self._log_class, int(count), **{k: _number(v) for k, v in _pairs(knobs)})
        self.world.trace, self.world.may_stop = trace, True

    def disk_image(self, node: str, *facts: str) -> None:
        """image 4 [terms=1,1,2] [term=2] [vote=1] [boundary=17/3] [voters=1,2] [standing=joiner]: starts it so"""
        given: dict[str, Any] = {"voters": [*sorted(set(self.world.nodes) - {node}), node]}
        for key, value in _pairs(facts):
            if key in ("voters", "members"):
                given[key] = value.split(",") if value else []
            elif key == "terms":
                given[key] = [int(term) for each in value.split(",") for term in _repeated(each)]
            elif key == "boundary":
                index, term = value.split("/")
                given[key] = (int(index), int(term))
            elif key == "standing":
                given[key] = Standing(value)
            else:
                given[key] = int(value) if key == "term" else value
        if node in self.world.nodes:
            self.world.crash(node)
        if given.get("standing") is Standing.JOINER:
            given["voters"] = sorted(set(given["voters"]) - {node})
        self.world.put(node, **given)
        self.world.boot(node)

    def crash(self, node: str) -> None:
        """crash 2: the process ends; storage jobs not done are lost"""
        self.world.crash(node)

    def restart(self, node: str) -> None:
        """restart 2: it starts from what its disk holds"""
        self.world.boot(node)
        voters = " ".join(sorted(self.world[node].voters))
        self.world.note(self.world.nodes[node], f"{_standing(self.world[node])}, voters {voters}")

    def disk(self, node: str, pace: str) -> None:
        """disk 2 slow|fast: whether storage jobs wait for `store`"""
        self.world.nodes[node].disk.slow = pace == "slow"
        self.world.turn(self.world.nodes[node])

    def store(self, node: str, count: str = "") -> None:
        """store 2 [1]: the oldest storage jobs are done, or all"""
        self.world.store(node, int(count) if count else None)

    def applying(self, node: str, switch: str) -> None:
        """apply 2 on|off: whether it applies what is committed"""
        self.world.nodes[node].applies = switch == "on"
        self.world.turn(self.world.nodes[node])

    # ------------------------------------------------------------------ time and elections

    def tick(self, node: str, ms: str = "0") -> None:
        """tick 1 [500]: time passes for one node; the others are paused meanwhile"""
        self.world.tick(node, int(ms))

    def pass_time(self, ms: str, *only: str) -> None:
        """pass 500 [1 2|nobody]: time passes for all, for these, or while all are paused; no message moves"""
        self.world.pass_time(int(ms), [node for node in only if node != "nobody"] if only else None)

    def run_time(self, ms: str) -> None:
        """run 500: time passes and messages move; they are not shown"""
        self._silently(lambda: self.world.pass_time(int(ms), deliver=True))

    def campaign(self, node: str) -> None:
        """campaign 1: its election timeout passes now"""
        self.world.campaign(node)

    def transfer(self, leader: str, to: str) -> None:
        """transfer 1 2: leadership is to be handed over; `-` is for whom the leader chooses"""
        chosen = self.world[leader].transfer_to(None if to == "-" else to, self.world.now)
        self.world.note(self.world.nodes[leader], f"hands over to {chosen}")
        self.world.turn(self.world.nodes[leader])

    # ------------------------------------------------------------------ messages

    def deliver(self, path: str, which: str = "") -> None:
        """deliver 1->2 [3|last|together]: what is under way; the first three, the newest, all in one turn"""
        sender, to = path.split("->")
        if which == "together":
            self.world.deliver_together(sender, to)
        elif not self.world.deliver(sender, to, int(which) if which.isdigit() else None, which == "last"):
            self.world.trace.append("nothing is under way")

    def stabilize(self) -> None:
        """stabilize: all that is not held is delivered until nothing is left; messages are not shown"""
        self._silently(self.world.stabilize)

    def drop(self, path: str, which: str = "") -> None:
        """drop 1->2 [3|last]: what is under way is lost; the first three, the newest"""
        flights = self.world.under_way(*path.split("->"))
        lost = flights[-1:] if which == "last" else flights[: int(which)] if which else flights
        self.world.bag = [flight for flight in self.world.bag if flight not in lost]

    def duplicate(self, path: str) -> None:
        """duplicate 1->2: what is under way is there twice, the second time behind the first"""
        self.world.bag += [dataclasses.replace(flight) for flight in self.world.under_way(*path.split("->"))]

    def hold(self, path: str) -> None:
        """hold 1->2: stabilize and run leave these messages under way"""
        sender, to = path.split("->")
        self.world.held.add((sender, to))

    def unhold(self, path: str) -> None:
        """unhold 1->2"""
        sender, to = path.split("->")
        self.world.held.discard((sender, to))

    def block(self, path: str) -> None:
        """block 1->2: a half-open link; what is sent is swallowed"""
        sender, to = path.split("->")
        self.world.blocked.add((sender, to))

    def unblock(self, path: str) -> None:
        """unblock 1->2"""
        sender, to = path.split("->")
        self.world.blocked.discard((sender, to))

    def bag(self) -> None:
        """bag: what is under way"""
        for flight in self.world.bag:
            self.world._show(flight.sender, flight.to, flight.message)

    def forge(self, path: str, kind: str, *facts: str) -> None:
        """send 3->1 VoteRequest term=9 …: a message of any making; lines are written `lines=1:x,2:NOOP`"""
        sender, to = path.split("->")
        self.world.send(sender, to, _message(sender, kind, dict(_pairs(facts))))

    def link(self, state: str, one: str, other: str) -> None:
        """link down|up 1 2: both connections between two nodes; a new one starts from nothing"""
        (self.world.mend if state == "up" else self.world.cut)(one, other)

    def isolate(self, node: str) -> None:
        """isolate 3: all its connections go"""
        self.world.isolate(node)

    def heal(self) -> None:
        """heal: all connections that went come back"""
        self.world.heal()

    # ------------------------------------------------------------------ work

    def propose(self, node: str, *texts: str) -> None:
        """propose 1 x y: commands, in one turn"""
        self.world.propose(node, *texts)

    def fill(self, node: str, count: str) -> None:
        """fill 1 100: so many commands, all delivered; messages are not shown"""
        self.world.propose(node, *(f"f{i}" for i in range(int(count))))
        self.stabilize()

    def entry(self, node: str, *words: str) -> None:
        """entry 1 ADD_VOTER 4: one entry, written out"""
        self.world.enter(node, " ".join(words))

    def read(self, node: str, token: str) -> None:
        """read 1 r: a linearizable read comes to the leader"""
        self.world[node].barrier(token, self.world.now)
        self.world.turn(self.world.nodes[node])

    def snapshot(self, path: str) -> None:
        """snapshot 1->3: what the leader has applied goes to a member"""
        self.world.snapshot(*path.split("->"))

    def trim(self, node: str, index: str) -> None:
        """trim 1 17: drops the front of its log up to there, whatever the rule says"""
        self.world[node].log.trim_to(int(index))
        self.world[node]._voters.forget_to(int(index))
        self.world.turn(self.world.nodes[node])

    # ------------------------------------------------------------------ what is there

    def show_log(self, node: str) -> None:
        """log 3: its log in memory"""
        log = self.world[node].log
        entries = [f"{log.first_index + i}: {short(line)}" for i, line in enumerate(_all_lines(log))]
        if len(entries) > 12:
            entries = [*entries[:3], f"… {len(entries) - 6} more", *entries[-3:]]
        front = f"boundary {log.boundary_index}/{log.boundary_term}"
        self.world.note(self.world.nodes[node], " | ".join([front, *entries]))

    def status(self, *nodes: str) -> None:
        """status [1]: role, term, indexes"""
        for node in nodes or list(self.world.nodes):
            if self.world.nodes[node].up:
                self.world.note(self.world.nodes[node], _standing(self.world[node]))
            else:
                self.world.note(self.world.nodes[node], "down")

    def progress(self, leader: str) -> None:
        """progress 1: what a leader knows of its members"""
        leadership = self.world[leader].leadership
        for peer, progress in leadership.peers.items() if leadership else ():
            lost = ", lost its log" if progress.lost_log else ""
            self.world.trace.append(
                f"{leader} of {peer}: {progress.state.value}, match {progress.match_index}, next {progress.next_index}"
                f"{'' if progress.linked else ', no link'}{lost}"
            )

    def check(self) -> None:
        """check: all invariants, as after every command"""
        self.world.check()

    def _silently(self, action: Callable[[], None]) -> None:
        self.world.messages_shown = False
        try:
            action()
        finally:
            self.world.messages_shown = True


COMMANDS: dict[str, Callable[..., None]] = {
    method.__doc__.split(":")[0].split(" ")[0]: method
    for method in vars(Scenario).values()
    if callable(method) and method.__doc__ and not method.__name__.startswith("_") and method.__name__ != "run"
}


def _pairs(words: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (word.partition("=") for word in words)]


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def _repeated(text: str) -> list[int]:
    """`3` is one entry of term 3, `3x40` are forty."""
    term, _, times = text.partition("x")
    return [int(term)] * int(times or 1)


def _all_lines(log: Any) -> list[bytes]:
    lines: list[bytes] = log.lines(log.first_index, log.last_index + 1)
    return lines


def _standing(raft: Any) -> str:
    role = raft.role.value if raft.standing in (Standing.MEMBER, Standing.JOINER) else raft.standing.value
    return (
        f"{role} in term {raft.current_term}, vote {raft.voted_for or '-'}, boundary {raft.log.boundary_index}, "
        f"last {raft.log.last_index}/{raft.log.last_term}, durable {raft.durable_index}, commit {raft.commit_index}, "
        f"applied {raft.last_applied}"
    )


def _message(sender: str, kind: str, facts: dict[str, str]) -> messages.Message:
    made: type[messages.Message] = getattr(messages, kind)
    hints = typing.get_type_hints(made)
    given: dict[str, Any] = {"leader_id": sender, "candidate_id": sender}
    for key, value in facts.items():
        if key == "lines":
            parts = [each.split(":", 1) for each in value.split(",")]
            given["terms"] = tuple(int(term) for term, _ in parts)
            given["lines"] = tuple(
                f"{term} {text}".encode() if text == "NOOP" else f"{term} APP - {text}".encode() for term, text in parts
            )
        else:
            given[key] = value if hints[key] is str else value == "1" if hints[key] is bool else int(value)
    return made(**{key: value for key, value in given.items() if key in hints})
