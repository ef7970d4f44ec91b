"""Each fault as a step of a test's own, and what it finds where the rule that answers it is taken out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from raftfast.config import Config
from raftfast.consensus import Raft, Standing
from raftfast.errors import NodeClosed, StorageError
from raftfast.member import Member
from raftfast.member.neighbours import Neighbours
from raftfast.testing import CALM, Faults, SimulatedNode, Simulation, SimulationFailure
from raftfast.testing.disk import SimulatedDisk
from raftfast.testing.workload import Operation

SETTINGS = Config(node_timeout=1.0, max_append_bytes=1, max_inflight=1, disk_reserve_bytes=2000)


def formed(
    seed: int = 1, nodes: int = 3, faults: Faults = CALM
) -> tuple[Simulation, SimulatedNode, list[SimulatedNode]]:
    """A cluster, its leader, and the others."""
    simulation = Simulation(seed, nodes, config=SETTINGS, faults=faults)
    simulation.form()
    leader = simulation.leader()
    assert leader is not None
    return simulation, leader, [node for node in simulation.nodes if node is not leader]


def wait(simulation: Simulation, holds: Callable[[], bool], limit: float = 20.0) -> None:
    assert simulation.run_until(holds, limit)


def write(simulation: Simulation, node: SimulatedNode, count: int = 1) -> list[Operation]:
    writes = [simulation.propose(node, b"r%d x" % number) for number in range(count)]
    wait(simulation, lambda: all(each.state == "done" for each in writes))
    return writes


def leads(node: SimulatedNode) -> bool:
    return node.member is not None and node.member.raft.is_leader


# ---------------------------------------------------------------------- links


def test_a_follower_that_hears_nothing_is_left_behind_and_catches_up() -> None:
    simulation, leader, (deaf, _) = formed()
    simulation.one_way(leader, deaf)
    index = write(simulation, leader)[0].index
    assert deaf.member is not None
    assert deaf.member.raft.last_applied < index
    simulation.heal()
    simulation.converge()


@pytest.mark.parametrize("half_open", [False, True])
def test_broken_links_are_made_anew(half_open: bool) -> None:
    simulation, leader, (follower, _) = formed()
    before = {end.number for end in leader.ends.values()}
    assert (simulation.half_open if half_open else simulation.cut)(leader, follower) == 2
    wait(  # where one end sends in vain the other end's link is quiet, and no error
        simulation,
        lambda: any(end.number not in before for end in leader.ends.values() if end.other.site is follower),
    )
    write(simulation, follower)


# ---------------------------------------------------------------------- disks


def test_a_leader_whose_disk_stalls_is_replaced() -> None:
    simulation, leader, others = formed()
    leader.stall_disk(30.0)
    blocked = simulation.propose(leader, b"r0 x")
    wait(simulation, lambda: blocked.state == "done")  # the others' copies are a majority
    for node in others:
        node.slow_disk(10.0)
    simulation.partition([leader, others[0]], [others[1]])
    simulation.propose(leader, b"r0 y")
    others[0].stall_disk(5.0)
    simulation.run_for(5.0)
    simulation.heal()
    simulation.converge()


def test_a_node_whose_disk_fails_ends_and_tells_who_waits() -> None:
    simulation, _, (follower, _) = formed()
    follower.fail_disk()
    operation = simulation.propose(follower, b"r0 x")
    wait(simulation, lambda: not follower.is_up)
    assert operation.state in ("done", "unknown", "never")
    assert operation.state == "done" or isinstance(operation.error, NodeClosed)
    follower.start()
    simulation.converge()


def test_what_is_not_committed_is_not_copied_with_each_entry_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = 0
    rewrite = SimulatedDisk.rewrite

    def counting(disk: SimulatedDisk, *args: Any) -> None:
        nonlocal copied
        rewrite(disk, *args)
        copied += len(disk.lines) if disk is leader.disk else 0

    simulation = Simulation(1, 2, config=replace(SETTINGS, rewrite_min_bytes=1000, rewrite_factor=0.1))
    simulation.form()
    leader = next(node for node in simulation.nodes if leads(node))
    monkeypatch.setattr(SimulatedDisk, "rewrite", counting)
    for node in simulation.nodes:
        node.slow_disk(1.0 if node is leader else 50.0)
    assert leader.member is not None
    raft = leader.member.raft
    writes = [simulation.propose(leader, b"r0 " + b"x" * 100) for _ in range(300)]
    for _ in range(100):
        applied = raft.last_applied
        writes.append(simulation.propose(leader, b"r0 y"))
        wait(simulation, lambda: raft.last_applied > applied)  # noqa: B023
    assert raft.log.last_index - raft.last_applied > 100
    assert copied <= len(writes)


def fill(simulation: Simulation, leader: SimulatedNode) -> list[Operation]:
    """The leader's disk has a little more room than the reserve; clients go on writing at it."""
    leader.fill_disk(SETTINGS.disk_reserve_bytes + 500)
    writes: list[Operation] = []
    for _ in range(60):
        if leader.is_up:
            writes.append(simulation.propose(leader, b"r0 " + b"x" * 60))
            simulation.run_for(0.1)
    return writes


def test_a_leader_without_room_takes_no_commands_and_goes_on() -> None:
    simulation, leader, (follower, _) = formed()
    writes = fill(simulation, leader)
    assert leads(leader)
    assert isinstance(writes[-1].error, StorageError)
    assert writes[-1].state == "never"
    forwarded = simulation.propose(follower, b"r0 x")
    wait(simulation, lambda: forwarded.state == "never")
    leader.fill_disk(None)
    write(simulation, leader)
    simulation.converge()


def test_without_the_reserve_its_disk_is_met_full_and_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation, leader, _ = formed()
    monkeypatch.setattr(Member, "no_room", property(lambda member: "", lambda member, text: None), raising=False)
    fill(simulation, leader)
    assert not leader.is_up


# ---------------------------------------------------------------------- processes and clocks


@pytest.mark.parametrize("seed", range(3))
def test_clocks_that_go_as_they_like_cost_no_safety(seed: int) -> None:
    simulation, _, _ = formed(seed, 3, Faults(crash=0.1, partition=0.2, transfer=0.2, delay=0.01))
    for node, rate in zip(simulation.nodes, (0.1, 1.0, 5.0), strict=True):
        node.drift(rate)
    simulation.workload.begin(10.0)
    simulation.storm.begin()
    simulation.run_for(15.0)
    simulation.storm.end()
    simulation.workload.end()
    simulation.heal()
    simulation.converge()


def test_a_log_that_is_cut_off_at_once_is_made_good_by_a_snapshot() -> None:
    simulation, leader, (follower, _) = formed()
    follower.crash()
    write(simulation, leader, 5)
    leader.trim()
    assert leader.member is not None
    assert leader.member.raft.log.boundary_index == leader.member.raft.last_applied
    follower.start()
    simulation.converge()
    assert follower.member is not None
    assert follower.member.counters["snapshots_installed"] == 1


def test_leadership_goes_where_it_is_wanted() -> None:
    simulation, leader, (wanted, _) = formed()
    leader.transfer(wanted.node_id)
    wait(simulation, lambda: simulation.leader() is wanted)
    write(simulation, leader)


# ---------------------------------------------------------------------- nodes that begin anew


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("leading", [False, True])
def test_a_node_that_is_reset_is_forgotten_and_comes_back(hard: bool, leading: bool) -> None:
    simulation, leader, others = formed()
    node = leader if leading else others[0]
    before = node.node_id
    node.reset(hard=hard)
    wait(simulation, lambda: node.member is not None and node.member.standing is Standing.SINGLETON)
    assert (node.node_id == before) is not hard
    assert simulation.operators.lost == [before]
    simulation.converge()
    assert simulation.operators.lost == []
    assert node.is_member


@pytest.mark.parametrize("joining", [False, True])
@pytest.mark.parametrize("keeps_id", [False, True])
def test_a_node_that_lost_its_folder_is_forgotten_and_comes_back(keeps_id: bool, joining: bool) -> None:
    simulation, leader, (node, _) = formed()
    before = node.node_id
    write(simulation, leader, 3)
    node.wipe(keeps_id=keeps_id, joining=joining)
    node.start()
    assert (node.node_id == before) is keeps_id
    simulation.run_for(2.0)
    assert simulation.operators.lost == [before]
    simulation.forget(before)
    wait(simulation, lambda: simulation.operators.lost == [])
    simulation.converge()


def wiped_voter_and_a_leader_that_does_not_know_it() -> Simulation:
    """Writes stand at the leader and at a voter that loses them; the third node, which never had them, can then only
    be elected by that voter."""
    simulation, leader, (wiped, behind) = formed()
    simulation.partition([leader, wiped], [behind])
    write(simulation, leader, 20)
    wiped.wipe(keeps_id=True, joining=True)
    leader.crash()
    wiped.start()
    simulation.network.unblock()
    leader.start()  # it does not remember what the other had acknowledged, and its state has nobody yet, but its log
    wait(simulation, lambda: leads(leader))
    simulation.partition([leader, wiped], [behind])
    simulation.run_until(lambda: wiped.member is not None and wiped.member.raft.log.last_index > 3, 2.0)
    leader.crash()
    simulation.network.unblock()
    simulation.run_for(10.0)
    leader.start()
    return simulation


def test_a_voter_that_lost_its_log_is_not_served_before_it_is_forgotten() -> None:
    simulation = wiped_voter_and_a_leader_that_does_not_know_it()
    simulation.converge()


def test_served_it_would_elect_who_lacks_what_was_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Neighbours, "greeted", lambda neighbours, info, now: True)
    # nor would it grant a vote now, before its log is past what was committed when it came: that is taken out too
    monkeypatch.setattr(Raft, "may_grant", property(lambda raft: raft.standing in (Standing.MEMBER, Standing.JOINER)))
    with pytest.raises(SimulationFailure):
        wiped_voter_and_a_leader_that_does_not_know_it()
