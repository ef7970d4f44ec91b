"""A voter that says that it lost its log counts for nothing (PROTOCOL 9); how much tail is kept (PROTOCOL 7)."""

from __future__ import annotations

from raft_world import World

from raftfast.config import Config
from raftfast.consensus.leading import Leadership
from raftfast.consensus.trimming import Trimming
from raftfast.messages import AppendEntriesAck


def led(log_class: type) -> tuple[World, Leadership]:
    """Led by "1", whose log the others have."""
    world = World(log_class, 3)
    world.elect("1")
    world.stabilize()
    leadership = world["1"].leadership
    assert leadership is not None
    assert leadership.peers["2"].match_index > 0
    return world, leadership


def test_what_a_voter_had_acknowledged_before_it_lost_its_log_does_not_commit(log_class: type) -> None:
    world = World(log_class, 3)
    world.elect("1")
    world.stabilize()
    leader = world["1"]
    leader.lost_log("2", world.now)
    world.cut("1", "3")
    world.propose("1", "a")
    world.stabilize()
    assert leader.commit_index < leader.log.last_index  # 1 alone has it, whatever 2 says
    assert "2" not in leader.live_members()


def test_a_new_leader_knows_who_has_lost_its_log(log_class: type) -> None:
    world = World(log_class, 3)
    world["1"].lost_log("2", world.now)
    world.elect("1")
    leadership = world["1"].leadership
    assert leadership is not None
    assert leadership.peers["2"].lost_log
    world["1"].restart_progress("2", world.now)  # its NODE_JOIN was applied
    assert not leadership.peers["2"].lost_log
    world["1"].set_members("123", world.now)
    assert not leadership.peers["2"].lost_log


def test_what_a_joiner_acknowledged_before_it_gave_up_counts_no_more(log_class: type) -> None:
    """PROTOCOL 3: it has dropped that, and its refusal on the next link is no lost log."""
    world, leadership = led(log_class)
    leader = world["1"]
    leader.link_down("2")
    leader.joins_anew("2", world.now)
    leader.link_up("2", world.now)
    leader.take()
    leader.receive("2", AppendEntriesAck(leader.current_term, False, 0, 0), world.now, 7)
    assert leadership.peers["2"].match_index == 0
    assert not leadership.peers["2"].lost_log


def test_who_lost_its_log_is_not_served_because_it_joins(log_class: type) -> None:
    """PROTOCOL 9: its NODE_JOIN must be applied before."""
    world, leadership = led(log_class)
    leader = world["1"]
    leader.lost_log("2", world.now)
    leader.joins_anew("2", world.now)
    assert leadership.peers["2"].lost_log


def test_the_tail_may_be_a_multiple_of_the_limit(log_class: type) -> None:
    trimming = Trimming(Config(node_timeout=1.0, trim_keep=1000, max_log_bytes=100))
    log = log_class(0, 0)
    log.extend([1] * 20, [b"1 APP - 23"] * 20)  # ten bytes each
    assert trimming.target(log, 20, 0, 0.0) == 10
    trimming.tail_factor = 2
    assert trimming.target(log, 20, 0, 0.0) == 0
    log.append(1, b"1 APP - 23")
    assert trimming.target(log, 21, 0, 0.0) == 1
