"""`raftfast demo`: the main job, shown with real processes on loopback, each claim checked from outside.

Floor 6. Asks nodes only by their client port. Whatever happens, no process is left, and no file but under `--dir`.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from ..records import SLOTS
from .load import Load, missing, write_batch
from .node_process import HOST, NodeProcess, ProcessFailed, poll
from .reporter import Reporter, reporter_for
from .resp_client import Argument, Reply, ReplyError

__all__ = ["Demo", "DemoFailed", "command"]

_BATCH = 25
_LOAD_WRITES = 300
_NOT_NOW = ("TIMEOUT ", "CLUSTERDOWN ")
_HEAD = ("node", "role", "term", "commit", "applied", "log", "caught up by", "checksum")


class DemoFailed(Exception):
    """A step did not hold; the text says which and why."""


@click.command("demo")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Keep the nodes' folders and logs here.")
@click.option("--node-timeout", default=1000, show_default=True, type=click.IntRange(200, 5000), help="Milliseconds.")
def command(directory: Path | None, node_timeout: int) -> int:
    """Form a cluster, trim its log, bring nodes back and in by snapshot, kill its leader; check every step.

    Exit code 0 only if every step held.
    """
    with _interruptible(), _folder(directory) as folder:
        console = Console()
        with reporter_for(console, len(Demo.STEPS)) as reporter, Demo(folder, reporter, node_timeout / 1000) as demo:
            failure = demo.run()
    if failure:
        raise click.ClickException(f"demo: {failure}")
    return 0


class Demo:
    """The run: its nodes, and one method a step. A context manager that leaves no process."""

    def __init__(self, folder: Path, reporter: Reporter, node_timeout: float) -> None:
        """`node_timeout` is T in seconds; every wait of the demo is a multiple of it, and some seconds."""
        self._folder = folder
        self._tell = reporter
        self._node_timeout = node_timeout
        self._within = 60 + 10 * node_timeout
        self._nodes: list[NodeProcess] = []
        self._written: list[str] = []

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *unused: object) -> None:
        with _uninterrupted():
            for node in self._nodes:
                node.kill()

    def run(self) -> str | None:
        """Takes the steps in order; None if all held, else one sentence on the first that did not."""
        for number, (title, step) in enumerate(self.STEPS, 1):
            self._tell.begin(title)
            try:
                step(self)
            except (DemoFailed, ProcessFailed, ReplyError, OSError) as error:
                self._tell.failed()
                return f"step {number} ({title}) did not hold: {error}"
            self._tell.held()
        return None

    def _form(self) -> None:
        """Step 1: three nodes MEET, all become voters, one leads, every slot has an owner."""
        first, *others = [self._start_node() for _ in range(3)]
        self._wait_ready(self._nodes)
        for other in others:
            self._meet(first, other)
        leader = self._leader()
        self._tell.say(f"three voters, {leader.name} leads in term {leader.number('cluster_raft_current_term')}")
        share = SLOTS // len(self._nodes)
        for number, node in enumerate(self._nodes):
            last = SLOTS - 1 if node is self._nodes[-1] else (number + 1) * share - 1
            self._ask(node, "CLUSTER", "ADDSLOTSRANGE", number * share, last, done_already="is already busy")
        for node in self._nodes:
            self._until(partial(_served, node), f"{node.name}: {SLOTS} slots assigned and the state ok")
        self._tell.say(f"{SLOTS} slots assigned, the cluster's state is ok on every node")

    def _sleep_through_a_trim(self) -> None:
        """Step 2: a follower that was paused while the leader trimmed its log catches up by InstallSnapshot."""
        leader = self._leader()
        follower = next(node for node in self._nodes if node is not leader)
        last, installed = follower.number("raft_last_index"), follower.number("raft_snapshots_installed")
        follower.pause()
        self._tell.say(f"{follower.name} paused at index {last}")
        self._write(leader)
        # What was sent before its link was given up may wait in its socket: only entries after that are lost on it.
        self._until(partial(leader.marks_failed, follower.node_id), f"{leader.name} marks {follower.name} as failed")
        self._write_until_trimmed(leader, leader.number("raft_last_index"))
        follower.resume()
        self._until_snapshot(follower, installed)
        self._until_same(self._nodes)
        self._tell.say(f"{follower.name} continued, took a snapshot, and has the leader's state")

    def _restart_all(self) -> None:
        """Step 3: all restart, which compacts their logs; a node that joins then needs a snapshot."""
        leader = self._leader()
        applied = min(self._applied(node) for node in self._nodes)
        for node in [*(node for node in self._nodes if node is not leader), leader]:
            self._restart(node)
        leader = self._leader()
        boundary = leader.number("raft_boundary_index")
        if boundary < applied:
            raise DemoFailed(f"{leader.name} kept its log from index {boundary + 1}, all had applied {applied}")
        self._tell.say(f"all restarted; {leader.name} leads, its log begins after index {boundary}")
        self._join_by_snapshot()

    def _trim_and_join(self) -> None:
        """Step 4: a log trimmed at run time; a node that joins then needs a snapshot."""
        leader = self._leader()
        self._write_until_trimmed(leader, leader.number("raft_last_index"))
        self._join_by_snapshot()

    def _kill_the_leader(self) -> None:
        """Step 5: kill -9 of the leader under load; nothing acknowledged is lost, and it comes back."""
        leader = self._leader()
        term = leader.number("cluster_raft_current_term")
        with Load("load", [node.client for node in self._nodes]) as load:
            self._reach(load, _LOAD_WRITES)
            leader.kill()
            self._tell.say(f"{leader.name} killed after {len(load.acknowledged)} acknowledged writes")
            successor = self._leader(above=term)
            self._tell.say(f"{successor.name} leads in term {successor.number('cluster_raft_current_term')}")
            self._reach(load, len(load.acknowledged) + _LOAD_WRITES)
        self._written += load.acknowledged
        self._check_written()
        self._tell.say(f"all {len(load.acknowledged)} acknowledged writes are there")
        leader.start()
        self._wait_ready([leader])
        self._until_same(self._nodes)
        self._tell.say(f"{leader.name} is back, with the same state")

    def _compare(self) -> None:
        """Step 6: every node has every write and the same state; the closing table."""
        self._leader()
        self._until_same(self._nodes)
        self._check_written()
        self._tell.say(f"all {len(self._written)} acknowledged writes are on all {len(self._nodes)} nodes")
        self._tell.table(_HEAD, [_row(node) for node in self._nodes])

    STEPS: Sequence[tuple[str, Callable[[Demo], None]]] = (
        ("three nodes meet, all vote, all slots are assigned", _form),
        ("a follower sleeps through a trim of the log and catches up by snapshot", _sleep_through_a_trim),
        ("all nodes restart; a fourth node joins by snapshot", _restart_all),
        ("the log is trimmed at run time; a fifth node joins by snapshot", _trim_and_join),
        ("the leader is killed under load; nothing acknowledged is lost", _kill_the_leader),
        ("all nodes hold the same state", _compare),
    )

    def _start_node(self) -> NodeProcess:
        timeout = round(self._node_timeout * 1000)
        node = NodeProcess(
            self._folder / f"node-{len(self._nodes) + 1}",
            extra=["--node-timeout", str(timeout)],
            answer_timeout=self._within,
        )
        self._nodes.append(node)
        node.start()
        return node

    def _wait_ready(self, nodes: Sequence[NodeProcess]) -> None:
        for node in nodes:
            node.wait_ready(within=self._within)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        poll(condition, within=self._within, what=what)

    def _live(self) -> list[NodeProcess]:
        return [node for node in self._nodes if node.running and not node.paused]

    def _leader(self, above: int = -1) -> NodeProcess:
        """The node that every live node takes for the leader, in a term greater than `above`."""
        found: list[NodeProcess] = []

        def agreed() -> bool:
            facts = {node.name: node.info() for node in self._live()}
            found[:] = [node for node in self._live() if facts[node.name].get("cluster_raft_role") == "leader"]
            named = {fact.get("cluster_raft_leader") for fact in facts.values()}
            if len(found) != 1 or named != {found[0].node_id}:
                return False
            return found[0].number("cluster_raft_current_term") > above

        self._until(agreed, "all nodes agree on a leader")
        return found[0]

    def _meet(self, member: NodeProcess, newcomer: NodeProcess) -> None:
        """Brings `newcomer` in; returns once every live node counts it as a voter."""
        size = member.number("cluster_known_nodes") + 1
        self._ask(member, "CLUSTER", "MEET", HOST, newcomer.port, newcomer.bus_port)
        members = self._nodes[:size]
        for node in members:
            self._until(partial(_counts, node, size), f"{node.name} counts {size} voters")

    def _join_by_snapshot(self) -> None:
        leader = self._leader()
        newcomer = self._start_node()
        self._wait_ready([newcomer])
        self._meet(leader, newcomer)
        self._until_snapshot(newcomer, 0)
        self._until_same(self._nodes)
        self._tell.say(f"{newcomer.name} joined, took a snapshot, votes, and has the leader's state")

    def _restart(self, node: NodeProcess) -> None:
        code = node.stop(within=self._within)
        if code != 0:
            raise DemoFailed(f"{node.name} ended with exit code {code}: {node.last_line()}")
        node.start()
        self._wait_ready([node])
        self._leader()
        self._until_same(self._nodes)

    def _write_until_trimmed(self, leader: NodeProcess, past: int) -> None:
        count = len(self._written)

        def trimmed() -> bool:
            if leader.number("raft_boundary_index") > past:
                return True
            self._write(leader)
            return False

        self._until(trimmed, f"{leader.name} trims its log past index {past}")
        boundary = leader.number("raft_boundary_index")
        self._tell.say(f"{len(self._written) - count} writes; {leader.name} trimmed its log up to index {boundary}")

    def _write(self, node: NodeProcess) -> None:
        keys = [f"demo:{len(self._written) + number}" for number in range(_BATCH)]

        def written() -> bool:
            with node.client() as client:
                replies = write_batch(client, keys)
            return all(_took(node, reply) for reply in replies) and len(replies) == len(keys)

        self._until(written, f"{node.name} takes {len(keys)} writes")
        self._written += keys

    def _ask(self, node: NodeProcess, *command: Argument, done_already: str | None = None) -> None:
        """Says a command until it is done.

        After a TIMEOUT it may have been done late: where it is refused then, `done_already` is in the refusal. None:
        it may be said again.
        """
        timed_out = False

        def done() -> bool:
            nonlocal timed_out
            try:
                return _took(node, node.call(*command))
            except ReplyError as error:
                if timed_out and done_already is not None and done_already in str(error):
                    return True
                timed_out = timed_out or str(error).startswith("TIMEOUT ")
                return _took(node, error)

        self._until(done, f"{node.name}: {' '.join(map(str, command))}")

    def _reach(self, load: Load, count: int) -> None:
        if not load.wait_for(count, within=self._within):
            raise DemoFailed(f"only {len(load.acknowledged)} of {count} writes acknowledged within {self._within:g} s")

    def _check_written(self) -> None:
        for node in self._live():
            lost = self._lost(node)
            if lost:
                raise DemoFailed(f"{node.name} lacks {len(lost)} acknowledged writes, {lost[0]} among them")

    def _lost(self, node: NodeProcess) -> list[str]:
        found: list[list[str]] = []

        def asked() -> bool:
            with node.client() as client:
                found.append(missing(client, self._written))
            return True

        self._until(asked, f"{node.name} tells what it holds")
        return found[-1]

    def _applied(self, node: NodeProcess) -> int:
        return node.number("cluster_raft_last_applied")

    def _until_snapshot(self, node: NodeProcess, before: int) -> None:
        self._until(
            lambda: node.number("raft_snapshots_installed") > before, f"{node.name} catches up by InstallSnapshot"
        )

    def _until_same(self, nodes: Sequence[NodeProcess]) -> None:
        def same() -> bool:
            return len({(self._applied(node), node.text("DEBUG", "DIGEST")) for node in nodes}) == 1

        self._until(same, f"{', '.join(node.name for node in nodes)} at one index with one checksum")


def _took(node: NodeProcess, reply: Reply | ReplyError) -> bool:
    """Whether it is done; False where it is to be said again, as users do: a busy machine has elections of its own."""
    if isinstance(reply, ReplyError) and not str(reply).startswith(_NOT_NOW):
        raise DemoFailed(f"{node.name}: {reply}")
    return reply == "OK"


def _counts(node: NodeProcess, voters: int) -> bool:
    return node.info().get("cluster_size") == str(voters)


def _served(node: NodeProcess) -> bool:
    info = node.info()
    return info.get("cluster_state") == "ok" and info.get("cluster_slots_assigned") == str(SLOTS)


def _row(node: NodeProcess) -> tuple[str, ...]:
    info = node.info()
    first, last = node.number("raft_boundary_index") + 1, node.number("raft_last_index")
    return (
        node.name,
        info.get("cluster_raft_role", ""),
        info.get("cluster_raft_current_term", ""),
        info.get("cluster_raft_commit_index", ""),
        info.get("cluster_raft_last_applied", ""),
        f"{first}-{last}" if first <= last else "empty",
        info.get("raft_caught_up_by", ""),
        node.text("DEBUG", "DIGEST")[:16],
    )


@contextmanager
def _folder(directory: Path | None) -> Iterator[Path]:
    """The folder of the run: `directory`, made if absent and refused if not empty, or one that is removed again."""
    if directory is not None:
        directory.mkdir(exist_ok=True)
        if any(directory.iterdir()):
            raise click.UsageError(f"--dir: {directory} is not empty")
        yield directory.resolve()
        return
    made = Path(tempfile.mkdtemp(prefix="raftfast-demo-"))
    try:
        yield made
    finally:
        with _uninterrupted():
            shutil.rmtree(made, ignore_errors=True)


_STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the run as Ctrl-C does, instead of ending us with the nodes left behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handlers(dict.fromkeys(_STOPPERS, stop)):
        yield


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Cleaning up is not cut short by a second Ctrl-C."""
    with _handlers(dict.fromkeys(_STOPPERS, signal.SIG_IGN)):
        yield


@contextmanager
def _handlers(
    wanted: dict[signal.Signals, Callable[[int, FrameType | None], None] | signal.Handlers],
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
