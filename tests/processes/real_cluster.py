"""A cluster of real processes, and what a test wants to know of it, asked only by the client port."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from raftfast.cli.load import missing, write_batch
from raftfast.cli.node_process import HOST, NodeProcess, ProcessFailed, poll
from raftfast.cli.resp_client import Argument

PATIENCE = 90.0
"""Seconds for anything: far more than it takes, so that a slow machine is no failure."""

NODE_TIMEOUT_MS = 2000
"""On a busy machine there may be an election at any time: what is refused for it is asked again, as users do."""

SLOTS = 16384


class Cluster:
    """The nodes that a test made, in the order made."""

    def __init__(self, folder: Path, *, node_timeout_ms: int = NODE_TIMEOUT_MS) -> None:
        self.folder = folder
        self.nodes: list[NodeProcess] = []
        self.members: list[NodeProcess] = []
        self.written: list[str] = []
        self._flags = ["--node-timeout", str(node_timeout_ms)]

    def new_node(self, *, extra: Sequence[str] = (), ports: tuple[int, int] | None = None) -> NodeProcess:
        """A node that is not started yet."""
        directory = self.folder / f"node-{len(self.nodes) + 1}"
        node = NodeProcess(directory, extra=[*self._flags, *extra], ports=ports, answer_timeout=PATIENCE)
        self.nodes.append(node)
        return node

    def start(self, count: int = 1) -> list[NodeProcess]:
        """`count` more nodes, started and ready."""
        made = [self.new_node() for _ in range(count)]
        for node in made:
            node.start()
        for node in made:
            node.wait_ready(within=PATIENCE)
        return made

    def form(self, count: int) -> None:
        """A cluster of `count` voters with all slots assigned to the first."""
        first, *others = self.start(count)
        for other in others:
            self.meet(first, other)

        def assigned() -> bool:  # an earlier try that was answered with TIMEOUT may have done it
            done = first.info()["cluster_slots_assigned"] == str(SLOTS)
            return done or first.call("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1) == "OK"

        self.until(assigned, f"{first.name} takes all slots")
        self.until_all(lambda node: node.info().get("cluster_state") == "ok", "the cluster's state is ok")

    def meet(self, member: NodeProcess, newcomer: NodeProcess) -> None:
        """Brings a node in and waits until every member counts it as a voter."""
        if member not in self.members:
            self.members.append(member)
        self.ask(member, "CLUSTER", "MEET", HOST, newcomer.port, newcomer.bus_port)
        self.members.append(newcomer)
        size = len(self.members)
        for node in self.members:
            self.until(lambda node=node: node.number("cluster_size") == size, f"{node.name} counts {size} voters")

    def restart(self, node: NodeProcess) -> None:
        """A graceful stop, then a start; returns once the node follows a leader again."""
        assert node.stop(within=PATIENCE) == 0, node.last_line()
        self.revive(node)

    def revive(self, node: NodeProcess) -> None:
        node.start()
        node.wait_ready(within=PATIENCE)
        self.leader()

    def live(self) -> list[NodeProcess]:
        return [node for node in self.nodes if node.running and not node.paused]

    def leader(self, above: int = -1) -> NodeProcess:
        """The node that all live ones take for their leader, in a term above `above`."""
        found: list[NodeProcess] = []

        def agreed() -> bool:
            facts = [(node, node.info()) for node in self.live()]
            found[:] = [node for node, info in facts if info.get("cluster_raft_role") == "leader"]
            named = {info.get("cluster_raft_leader") for _, info in facts}
            return len(found) == 1 and named == {found[0].node_id} and term(found[0]) > above

        self.until(agreed, "all live nodes agree on a leader")
        return found[0]

    def write(self, node: NodeProcess, count: int) -> None:
        """`count` writes of new keys through `node`, each acknowledged."""
        keys = [f"w:{len(self.written) + number}" for number in range(count)]
        left = list(keys)

        def written() -> bool:
            with node.client() as client:
                replies = write_batch(client, left)
            done = [key for key, reply in zip(left, replies, strict=False) if reply == "OK"]
            left[:] = [key for key in left if key not in done]
            return not left

        self.until(written, f"{node.name} acknowledges {count} writes")
        self.written += keys

    def ask(self, node: NodeProcess, *command: Argument) -> None:
        """A command that may be said again, until it is answered with OK."""
        self.until(lambda: node.call(*command) == "OK", f"{node.name}: {' '.join(map(str, command))}")

    def write_until_trimmed(self, leader: NodeProcess, past: int) -> None:
        """Writes until `leader` has dropped the entry at index `past` from its log."""

        def trimmed() -> bool:
            if boundary(leader) > past:
                return True
            self.write(leader, 25)
            return False

        self.until(trimmed, f"{leader.name} trims its log past {past}")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        poll(condition, within=PATIENCE, what=what)

    def until_all(self, condition: Callable[[NodeProcess], bool], what: str) -> None:
        for node in self.live():
            self.until(lambda node=node: condition(node), f"{node.name}: {what}")

    def until_same(self) -> None:
        """All live nodes have applied the same entries and have the same state."""

        def same() -> bool:
            return len({(applied(node), node.text("DEBUG", "DIGEST")) for node in self.live()}) == 1

        self.until(same, "all live nodes have one state")

    def lost(self, keys: Sequence[str]) -> dict[str, list[str]]:
        """Which of `keys` a live node lacks, by its name; empty where all have all."""
        found = {node.name: lacks(node, keys) for node in self.live()}
        return {name: gone for name, gone in found.items() if gone}

    def until_follows(self, node: NodeProcess) -> None:
        """It takes part as any member does: it follows a leader, or leads."""
        self.until(lambda: node.info()["cluster_raft_role"] in ("follower", "leader"), f"{node.name} is a member")

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def logs(self) -> Iterator[tuple[str, str]]:
        """What each node wrote on standard error, its end if it is long."""
        for node in self.nodes:
            if node.log_path.exists():
                yield node.name, node.log_path.read_text(encoding="utf-8", errors="replace")[-20_000:]


def lacks(node: NodeProcess, keys: Sequence[str]) -> list[str]:
    """Which of `keys` the node lacks, asked until it answers."""
    found: list[list[str]] = []

    def asked() -> bool:
        with node.client() as client:
            found.append(missing(client, keys))
        return True

    poll(asked, within=PATIENCE, what=f"{node.name} answers what it holds")
    return found[-1]


def term(node: NodeProcess) -> int:
    return node.number("cluster_raft_current_term")


def applied(node: NodeProcess) -> int:
    return node.number("cluster_raft_last_applied")


def boundary(node: NodeProcess) -> int:
    return node.number("raft_boundary_index")


def snapshots_installed(node: NodeProcess) -> int:
    return node.number("raft_snapshots_installed")


__all__ = [
    "PATIENCE",
    "Cluster",
    "ProcessFailed",
    "applied",
    "boundary",
    "lacks",
    "snapshots_installed",
    "term",
]
