"""What a node is after it was started again: closed or killed, alone or in a cluster, joining, on another port."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest
from node_cluster import CONFIG, ELECTIONS, HOST, PATIENCE, Journal, cluster_of, error_of, meet

from loop_turns import cancelled_after, turns
from raftfast import Node, NodeClosed, StateMachine, StorageError, nodesconf
from raftfast.engine import Engine
from raftfast.messages import Role


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"c%d" % number for number in range(start, start + count)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


# ---------------------------------------------------------------------- state that stays


@pytest.mark.parametrize("how", ["close", "kill"])
def test_all_nodes_start_again_with_all_that_was_answered(run_on_both, tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3, node_timeout=ELECTIONS) as cluster:
            await cluster[1].propose_many(numbered(300))
            await cluster[0].add_slots(range(100))
            before = {number: node.node_id for number, node in cluster.nodes.items()}
            digest = cluster[0].state_digest()
            await cluster.converge()
            term = max(node.status().term for node in cluster.live)
            if how == "close":
                await cluster.close()
            else:
                await asyncio.gather(*(cluster.kill(number) for number in before))
            await cluster.start(*before)
            assert {number: node.node_id for number, node in cluster.nodes.items()} == before
            leader = await cluster.leader()
            assert leader.status().term > term
            await cluster[2].barrier()
            assert cluster.journals[2].commands == numbered(300)
            # whoever was slow to come back may have been marked as failed meanwhile
            await cluster.until(lambda: cluster[2].state_digest() == digest, "the same state")
            assert await cluster[2].propose(b"on it goes") == b"301"
            await cluster.converge()

    run_on_both(main())


def test_after_a_close_everything_is_in_the_stored_state(run, tmp_path: Path) -> None:
    """The file of a closed node holds no log line: what is applied is in the state, and is restored, not applied."""

    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            await cluster[0].propose_many(numbered(10))
            applied = cluster[0].status().last_applied
            await cluster[0].close()
            conf = nodesconf.parse((tmp_path / "node-0" / "nodes.conf").read_bytes())
            assert conf.vars["lastApplied"] == applied
            assert not conf.entries
            await cluster.start(0)
            assert cluster.journals[0].restored == 1
            assert cluster.journals[0].commands == numbered(10)
            assert cluster.journals[0].applied == []
            await cluster.leader()
            assert await cluster[0].propose(b"more") == b"11"

    run(main())


def test_after_a_kill_the_log_is_applied_again(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            await cluster[0].propose_many(numbered(10))
            await cluster.kill(0)
            conf = nodesconf.parse((tmp_path / "node-0" / "nodes.conf").read_bytes())
            lines = [line for _, _, line in conf.entries if b" APP " in line]
            assert [line.split(b" ")[-1] for line in lines][1:] == numbered(10)
            await cluster.start(0)
            await cluster[0].barrier()
            assert [command for _, command in cluster.journals[0].applied] == numbered(10)

    run(main())


def test_a_file_that_grows_is_rewritten_and_loses_nothing(run, tmp_path: Path) -> None:
    """Small limits: the stored state moves many times under load, and a kill at any time leaves all of it."""

    async def main() -> None:
        limits = {"node_timeout": ELECTIONS, "rewrite_min_bytes": 2000, "trim_keep": 4}
        async with cluster_of(tmp_path, 3, **limits) as cluster:
            for part in range(5):
                await cluster[part % 3].propose_many(numbered(200, 200 * part))
                victim = (part + 1) % 3
                storage = cluster[victim]._engine.storage
                await cluster.until(lambda storage=storage: storage.stored_index > 0, "its stored state moves")
                await cluster.kill(victim)
                stored = nodesconf.parse((tmp_path / f"node-{victim}" / "nodes.conf").read_bytes())
                assert stored.vars["lastApplied"] > 0
                await cluster.start(victim)
                await cluster.leader()
            await cluster.converge()
            assert [journal.commands for journal in cluster.journals.values()] == [numbered(1000)] * 3
            folder = tmp_path / "node-0"
            await cluster.until(lambda: len(list(folder.glob("app-*"))) <= 2, "files of earlier states are gone")

    run(main())


def test_what_a_kill_left_half_written_is_cut_off(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            await cluster[0].propose_many(numbered(20))
            follower = cluster.number_of((await cluster.followers())[0])
            await cluster.converge()
            index = cluster[follower].status().last_index + 1
            await cluster.kill(follower)
            with open(tmp_path / f"node-{follower}" / "nodes.conf", "ab") as file:
                file.write(nodesconf.log_line(index, b"1 APP - never acknowledged")[:-5])
            await cluster.start(follower)
            await cluster[follower].propose(b"more")
            await cluster.converge()
            assert cluster.journals[follower].commands == [*numbered(20), b"more"]

    run(main())


def test_a_follower_that_lost_what_it_acknowledged_is_not_served(run, tmp_path: Path, caplog) -> None:
    """No crash does this, but a disk that lies, or a backup put back: its vote could undo what was committed."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            await cluster[0].propose_many(numbered(20))
            follower = cluster.number_of((await cluster.followers())[0])
            await cluster.converge()
            leader = await cluster.leader()
            last = leader.status().last_index
            await cluster.until(
                lambda: all(peer.match_index == last for peer in leader.status().peers), "all is acknowledged"
            )
            await cluster.kill(follower)
            path = tmp_path / f"node-{follower}" / "nodes.conf"
            os.truncate(path, path.stat().st_size - 7)
            (node,) = await cluster.start(follower)
            await leader.propose(b"without it")
            await cluster.until(lambda: "lost entries" in caplog.text, "it is reported")
            assert node.node_id in caplog.text
            assert cluster.journals[follower].commands == []

    run(main())


def test_a_cluster_of_one_restarts_in_a_new_term_and_leads(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            await cluster[0].propose(b"x")
            term = cluster[0].status().term
            await cluster.kill(0)
            await cluster.start(0)
            assert cluster[0].status().standing == "member"
            await cluster.leader()
            assert cluster[0].status().term > term
            assert cluster[0].status().role is Role.LEADER

    run(main())


def test_a_fresh_singleton_keeps_its_id_slots_and_name(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            await cluster[0].add_slots([*range(10), 16383])
            await cluster[0].set_hostname("first.example")
            before = (cluster[0].node_id, cluster[0].status().shard_id)
            await cluster.kill(0)
            await cluster.start(0)
            assert (cluster[0].node_id, cluster[0].status().shard_id) == before
            assert cluster[0].status().standing == "singleton"
            assert cluster[0].cluster.slots_of(before[0]) == ((0, 9), (16383, 16383))
            assert cluster[0].cluster.nodes[before[0]].address.hostname == "first.example"

    run(main())


# ---------------------------------------------------------------------- joiners


def test_the_slots_of_a_singleton_survive_a_restart_and_are_claimed_after_joining(run, tmp_path: Path) -> None:
    """It is killed as a joiner too: `joining` and the slots are in its file."""

    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster:
            await cluster[0].add_slots(range(100))
            (newcomer,) = await cluster.start(2)
            await newcomer.add_slots([99, 100, 101])
            await cluster.kill(2)
            (newcomer,) = await cluster.start(2)
            assert newcomer.cluster.slots_of(newcomer.node_id) == ((99, 101),)
            await meet(cluster[1], newcomer)
            await cluster.until(lambda: cluster[0].cluster.slots_of(newcomer.node_id) == ((100, 101),), "its claim")
            await cluster.converge()
            assert cluster[0].cluster.owner_of(99) == cluster[0].node_id

    run(main())


def test_a_joiner_that_is_killed_restarts_as_one_and_is_added_when_its_cluster_is_back(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            host = await cluster.leader()
            (newcomer,) = await cluster.start(3)
            await newcomer.add_slots([7])
            others = [n for n in range(3) if cluster[n] is not host]
            for number in others:
                await cluster.kill(number)
            await meet(host, newcomer)  # it is invited, and its NODE_JOIN can't be committed
            await cluster.until(lambda: newcomer.status().standing == "joiner", "a joiner")
            await newcomer._engine.settle()
            await cluster.kill(3)
            stored = nodesconf.parse((tmp_path / "node-3" / "nodes.conf").read_bytes())
            assert stored.vars["joining"] == 1
            await cluster.start(3)
            newcomer = cluster[3]
            assert newcomer.status().standing == "joiner"
            assert newcomer.status().term == 0
            await cluster.start(*others)
            await cluster.until(lambda: newcomer.status().standing == "member", "a member after all")
            await cluster.until(lambda: host.cluster.slots_of(newcomer.node_id) == ((7, 7),), "its slots are claimed")

    run(main())


def test_a_joiner_that_nobody_comes_for_is_alone_again_in_a_higher_term(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 0, node_timeout=0.5) as cluster:
            first, second = await cluster.start(0, 1)
            await second.add_slots([5])
            engine = first._engine
            assert engine is not None
            engine.member.meetings.receive = lambda info, message, now: None  # type: ignore[method-assign]
            asking = asyncio.ensure_future(error_of(meet(first, second)))
            while second.status().standing != "joiner":
                if asking.done():  # the machine was too slow for its dial
                    asking = asyncio.ensure_future(error_of(meet(first, second)))
                await cluster.until(
                    lambda asking=asking: asking.done() or second.status().standing == "joiner", "a joiner"
                )
            await cluster.kill(0)
            await cluster.until(lambda: second.status().standing == "singleton", "alone again")
            assert second.status().term > 0
            assert second.cluster.slots_of(second.node_id) == ((5, 5),)
            await asking
            assert await second.propose(b"x") == b"1"

    run(main())


# ---------------------------------------------------------------------- another address


@pytest.mark.parametrize("who", ["follower", "leader"])
def test_a_node_that_comes_back_on_another_port_is_found_again(run, tmp_path: Path, who: str) -> None:
    """Its HELLO says where to dial it; the state follows by NODE_INFO (PROTOCOL 9)."""

    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            leader, followers = await cluster.leader(), await cluster.followers()
            number = cluster.number_of(leader if who == "leader" else followers[0])
            old_port = cluster[number].bus_port
            await cluster[number].close()
            with socket.socket() as taken:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind((HOST, old_port))
                (node,) = await cluster.start(number, bus_port=0)
                assert node.bus_port != old_port
                everyone = list(cluster.nodes.values())
                await cluster.until(
                    lambda: all(n.cluster.nodes[node.node_id].address.cport == node.bus_port for n in everyone),
                    "everybody knows the new port",
                )
                await node.propose(b"x")
                await cluster.converge()

    run(main())


def test_all_nodes_come_back_on_other_ports_one_after_another(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 3) as cluster:
            for number in range(3):
                await cluster[number].close()
                await cluster.start(number, bus_port=0)
                await cluster.until(lambda: len(cluster.live) == 3 and cluster.applied_equal(), "caught up")
                await cluster.leader()
                await cluster[number].propose(b"%d" % number)
            await cluster.converge()

    run(main())


# ---------------------------------------------------------------------- folders and ports that can't be had


def test_a_folder_has_one_node(run, tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            await cluster[0].propose(b"x")
            before = contents(tmp_path / "node-0")
            second = Node(tmp_path / "node-0", bus_port=0, state_machine=Journal(), config=CONFIG)
            error = await error_of(second.start())
            assert isinstance(error, StorageError)
            assert "in use" in str(error)
            assert contents(tmp_path / "node-0") == before
            assert await cluster[0].propose(b"y") == b"2"

    run(main())


@pytest.mark.parametrize("damage", ["flip", "garbage", "gossip", "folder", "app gone", "app flipped"])
def test_a_damaged_folder_is_refused_and_nothing_of_it_is_changed(run, tmp_path: Path, damage: str) -> None:
    async def main() -> None:
        async with cluster_of(tmp_path, 2) as cluster:
            await cluster[0].propose_many(numbered(10))
            await cluster.converge()
        folder = tmp_path / "node-0"
        conf = folder / "nodes.conf"
        app = next(path for path in folder.iterdir() if path.name.startswith("app-"))
        if damage == "flip":
            data = bytearray(conf.read_bytes())
            data[50] ^= 1
            conf.write_bytes(data)
        elif damage == "garbage":
            conf.write_bytes(b"this is no nodes.conf\n")
        elif damage == "gossip":
            conf.write_bytes(b"vars currentEpoch 5 lastVoteEpoch 0\n")
        elif damage == "folder":
            conf.unlink()
            conf.mkdir()
        elif damage == "app gone":
            app.unlink()
        else:
            data = bytearray(app.read_bytes())
            data[-1] ^= 1
            app.write_bytes(data)
        before = contents(folder)
        journal = Journal()
        error = await error_of(Node(folder, bus_port=0, state_machine=journal, config=CONFIG).start())
        assert isinstance(error, StorageError), error
        assert str(folder) in str(error)
        assert "\n" not in str(error)
        assert contents(folder) == before
        assert journal.commands == []

    run(main())


def lines_of(more: str = "", other: str = "", entry: bytes = b"", state: str = "lastApplied 5 snapshotTerm 2") -> bytes:
    """A `nodes.conf`, without checksums as one is that was edited by hand. `more` is of the node's own flags."""
    me, peer = "a" * 40, "b" * 40
    address = "127.0.0.1:7000@17000,,tls-port=0"
    text = f"{me} {address},shard-id={me} myself,{more or 'master -'} 0 0 0 connected\n"
    text += f"{peer} {other or f'{address},shard-id={peer} master'} - 0 0 0 connected\n"
    return f"{text}vars currentTerm 3 {state}\n".encode() + entry


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lines_of(other="127.0.0.1:1@2,,tls-port=0 master"), "lacks its shard-id"),
        (lines_of(more="slave -"), "does not fit its primary"),
        (lines_of(more="slave " + "a" * 40), "no primary here"),
        (lines_of(other=f"127.0.0.1:1@2,,shard-id={'b' * 40} master,handshake"), "in handshake, no member"),
        (lines_of(more="handshake,master -"), "in handshake"),
        (lines_of(entry=nodesconf.log_line(1, b"1 NODE_JOIN x y voter"), state="lastApplied 0"), "entry at index 1"),
        (lines_of(state="lastApplied 5"), "lastApplied without snapshotTerm"),
        (lines_of(state="lastApplied 18446744073709551615 snapshotTerm 2"), "no room for a log"),
    ],
)
def test_what_is_refused_is_refused_at_every_start(run, tmp_path: Path, data: bytes, reason: str) -> None:
    """A rewrite at the first start would leave out what the second one should refuse."""
    (tmp_path / "nodes.conf").write_bytes(data)

    async def main() -> None:
        for _ in range(2):
            error = await error_of(Node(tmp_path, bus_port=0, state_machine=Journal(), config=CONFIG).start())
            assert isinstance(error, StorageError), error
            assert reason in str(error)
            assert str(tmp_path) in str(error)
            assert str(error).endswith("; the file was left as it is")
            assert (tmp_path / "nodes.conf").read_bytes() == data

    run(main())


def test_a_state_that_the_state_machine_refuses_is_refused(run, tmp_path: Path) -> None:
    class Other(Journal):
        def restore(self, pieces) -> None:
            raise ValueError("not mine")

    async def main() -> None:
        async with cluster_of(tmp_path, 1) as cluster:
            await cluster[0].propose(b"x")
        before = contents(tmp_path / "node-0")
        for machine in (Other(), None):
            node = Node(tmp_path / "node-0", bus_port=0, state_machine=machine, config=CONFIG)
            error = await error_of(node.start())
            assert isinstance(error, StorageError), error
            assert contents(tmp_path / "node-0") == before

    run(main())


def test_a_folder_that_cannot_be_made_is_one_clear_error(run, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "file").write_bytes(b"")
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            error = await error_of(Node(path, bus_port=0, config=CONFIG).start())
            assert isinstance(error, StorageError), error
            assert str(path) in str(error)

    run(main())


def test_a_port_in_use_is_one_clear_error_and_the_folder_is_free_again(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            taken.listen()
            port = taken.getsockname()[1]
            node = Node(tmp_path / "n", bus_port=port, state_machine=Journal(), config=CONFIG)
            error = await error_of(node.start())
            assert isinstance(error, OSError)
            assert f"{HOST}:{port}" in str(error)
            assert isinstance(await error_of(node.propose(b"x")), NodeClosed)
            await node.close()
        async with Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG) as again:
            assert await again.propose(b"x") == b"1"

    run_on_both(main())


def test_a_start_that_is_cancelled_leaves_the_folder_free(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        for count in range(40):
            node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
            await cancelled_after(count, node.start())
            await node.close()
        async with Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG) as again:
            assert await again.propose(b"x") == b"1"

    run_on_both(main())


def test_a_start_waits_until_the_id_of_a_new_node_is_stored(run, tmp_path: Path, monkeypatch) -> None:
    reached, gate, rewrite = threading.Event(), threading.Event(), Engine._rewrite

    def held(engine: Engine, *args) -> None:
        reached.set()
        assert gate.wait(PATIENCE)
        rewrite(engine, *args)

    monkeypatch.setattr(Engine, "_rewrite", held)

    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
        starting = asyncio.ensure_future(node.start())
        assert await asyncio.to_thread(reached.wait, PATIENCE)
        await turns(100)
        assert not starting.done()
        gate.set()
        await starting
        assert node.node_id.encode() in (tmp_path / "n" / "nodes.conf").read_bytes()
        await node.close()

    run(main())


@pytest.mark.parametrize("end", [Node.close, Node.abort])
def test_a_node_that_is_closed_while_it_starts_is_not_left_running(run_on_both, tmp_path: Path, end) -> None:
    async def main() -> None:
        for count in (*range(12), 20, 40, 80):
            node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
            starting = asyncio.ensure_future(node.start())
            await turns(count)
            await end(node)
            await asyncio.wait([starting])
            assert starting.exception() is None or isinstance(starting.exception(), NodeClosed)
            async with Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG) as again:
                assert again.status().standing == "singleton"

    run_on_both(main())


def test_a_start_that_is_cancelled_again_while_it_is_undone(run_on_both, tmp_path: Path) -> None:
    async def main() -> None:
        for count in (*range(12), 20, 40, 80):
            node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
            starting = asyncio.ensure_future(node.start())
            await turns(count)
            while not starting.done():
                starting.cancel()
                await asyncio.sleep(0)
            await node.close()
            async with Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG) as again:
                assert again.status().standing == "singleton"

    run_on_both(main())


def test_a_close_that_is_cancelled_goes_on(run, tmp_path: Path) -> None:
    async def main() -> None:
        node = Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG)
        await node.start()
        await node.propose(b"x")
        closing = asyncio.ensure_future(node.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await asyncio.gather(node.close(), node.close())
        async with Node(tmp_path / "n", bus_port=0, state_machine=Journal(), config=CONFIG) as again:
            assert await again.propose(b"y") == b"2"

    run(main())


def test_a_body_that_raises_still_closes_the_node(run, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with Node(tmp_path / "n", bus_port=0, config=CONFIG):
                raise ZeroDivisionError
        async with Node(tmp_path / "n", bus_port=0, config=CONFIG) as again:
            assert again.status().standing == "singleton"

    run(main())


def test_the_state_machine_is_an_interface() -> None:
    with pytest.raises(TypeError):
        StateMachine()  # type: ignore[abstract]
