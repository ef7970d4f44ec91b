"""The simulator finds what it is there to find: each rule taken out, or turned round, fails within a bound of seeds.

Each mutation is a patch in memory. The seeds are fixed, so that a failure here says that a check is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from worlds import (
    DISKS,
    DISORDER,
    FEW_SESSIONS,
    LATE,
    ROUGH,
    SETTINGS,
    SHARDS,
    SLOW_DISKS,
    SMALL_RESERVE,
    SMALL_STEPS,
)

from raftfast.cluster import snapshot as cluster_snapshot
from raftfast.cluster import state as cluster_state
from raftfast.cluster.entries import Failover
from raftfast.cluster.sessions import Sessions
from raftfast.cluster.state import ClusterState
from raftfast.config import Config
from raftfast.consensus import elections, raft
from raftfast.consensus.durability import Durability
from raftfast.consensus.leading import Leadership
from raftfast.consensus.promises import Promises
from raftfast.consensus.raft import Raft
from raftfast.consensus.voters import VoterHistory
from raftfast.member import snapshots as member_snapshots
from raftfast.member.origin import Origin
from raftfast.testing import CALM, Faults, Simulation, SimulationFailure
from raftfast.testing.diskwork import DiskWork

MOST_SEEDS = 40

Patch = Callable[[pytest.MonkeyPatch], None]
MUTATIONS: dict[str, Patch] = {}
WORLDS: dict[str, tuple[Faults, Config, int]] = {}


def mutation(patch: Patch) -> Patch:
    MUTATIONS[patch.__name__] = patch
    return patch


def world(faults: Faults, settings: Config, nodes: int = 3) -> Callable[[Patch], Patch]:
    """The mutation shows itself in this world sooner than in the rough one."""

    def mark(patch: Patch) -> Patch:
        WORLDS[patch.__name__] = (faults, settings, nodes)
        return patch

    return mark


def wrap(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: Callable[..., Any]) -> None:
    """`after(result, self, *args)` follows the real call, and its result replaces that of the call."""
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return after(real(*args, **kwargs), *args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


@mutation
def a_step_down_clears_the_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    wrap(monkeypatch, Raft, "_step_down", lambda _, raft: setattr(raft, "voted_for", None))


@mutation
def votes_are_granted_twice_in_a_term(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Raft._on_vote_request

    def forgetful(raft: Raft, sender: str, message: Any, link: int | None) -> None:
        if raft.leadership is None:
            raft.voted_for = None
        real(raft, sender, message, link)

    monkeypatch.setattr(Raft, "_on_vote_request", forgetful)


@mutation
def votes_are_granted_to_who_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Raft, "_log_is_behind", lambda raft, index, term: False)


@mutation
@world(replace(CALM, crash=0.5, disk_delay=0.02), SETTINGS, 1)
def the_own_vote_counts_before_it_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(raft: Raft) -> None:
        if raft.node_id not in raft._granted:
            raft._granted.add(raft.node_id)
            raft._count_votes()

    monkeypatch.setattr(Raft, "_count_own_vote", count)
    wrap(monkeypatch, Raft, "_begin_election", lambda _, raft, *args, **kwargs: count(raft))


@mutation
def half_is_a_majority(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (elections, raft):
        monkeypatch.setattr(module, "is_majority", lambda voters, yes: 2 * len(voters & yes) >= len(voters))


@mutation
def promises_do_not_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def let_go(result: Any, promises: Promises, term: int, *_: Any) -> Any:
        sends, acks = result
        kept = [send for _, _, send in promises._held]
        promises._held.clear()
        return sends + kept, acks

    wrap(monkeypatch, Promises, "end_turn", let_go)


@mutation
def the_last_index_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    wrap(monkeypatch, Raft, "_acknowledgement", lambda ack, raft: replace(ack, index=raft.log.last_index))


@mutation
@world(DISORDER, SMALL_STEPS)
def an_unverified_tail_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    def last(ack: Any, raft: Raft) -> Any:
        return replace(ack, index=raft.durable_index)

    wrap(monkeypatch, Raft, "_acknowledgement", last)


@mutation
def what_is_not_durable_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    wrap(monkeypatch, Raft, "_acknowledgement", lambda ack, raft: replace(ack, index=raft.verified_index))
    real = Promises.owe
    monkeypatch.setattr(Promises, "owe", lambda self, sender, link, has_new: real(self, sender, link, False))


@mutation
def an_earlier_term_is_committed_by_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(raft: Raft) -> None:
        leadership = raft.leadership
        if leadership is not None:
            index = leadership.majority_match(raft.voters, raft.durable_index)
            if index > raft.commit_index:
                raft.commit_index = index

    monkeypatch.setattr(Raft, "_advance_commit", advance)


@mutation
def the_own_copy_counts_before_it_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Leadership.majority_match
    monkeypatch.setattr(Leadership, "majority_match", lambda self, voters, own: real(self, voters, 1 << 60))

    def advance(raft: Raft) -> None:
        leadership = raft.leadership
        if leadership is not None:
            index = min(leadership.majority_match(raft.voters, 0), raft.log.last_index)
            if index > raft.commit_index and raft.log.term_at(index) == raft.current_term:
                raft.commit_index = index

    monkeypatch.setattr(Raft, "_advance_commit", advance)


@mutation
def a_follower_commits_its_own_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(_: None, raft: Raft, sender: str, message: Any, link: int | None) -> None:
        if raft.leader_id == sender and message.term == raft.current_term:
            raft.commit_index = max(raft.commit_index, min(message.leader_commit, raft.log.last_index))

    real = Raft._on_append_entries

    def handler(raft: Raft, sender: str, message: Any, link: int | None) -> None:
        commit(real(raft, sender, message, link), raft, sender, message, link)

    monkeypatch.setattr(Raft, "_on_append_entries", handler)


@mutation
@world(DISORDER, SMALL_STEPS, 5)
def verified_outlives_its_term(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Raft._adopt_term

    def adopt(raft: Raft, term: int) -> None:
        verified = raft.verified_index
        real(raft, term)
        raft.verified_index = verified

    monkeypatch.setattr(Raft, "_adopt_term", adopt)


@mutation
@world(SLOW_DISKS, SETTINGS)
def a_write_in_flight_vouches_for_what_was_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Durability, "fall_to", lambda self, index: setattr(self, "index", min(self.index, index)))


@mutation
def voter_changes_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Raft, "voter_change_pending", property(lambda raft: raft.leadership is None))


@mutation
@world(DISORDER, SMALL_STEPS, 5)
def a_voter_set_does_not_roll_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VoterHistory, "truncated_from", lambda self, index: None)


@mutation
def the_vote_is_lost_by_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(origin: Origin, *_: Any) -> Origin:
        return replace(origin, hard_state=origin.hard_state._replace(voted_for=None))

    real = Origin.of_file.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Origin, "of_file", classmethod(lambda cls, *args: forgetful(real(cls, *args))))


@mutation
@world(replace(CALM, pause=0.5, clock_drift=0.2), SETTINGS)
def reads_are_not_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Raft, "_confirm_reads", lambda raft, led: raft._update.reads.extend(led.reads.confirm()))


@mutation
def snapshots_forget_the_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = cluster_snapshot.session_part(cluster_snapshot.Sessions())
    monkeypatch.setattr(member_snapshots, "session_part", lambda sessions: empty)


@mutation
def a_snapshot_has_the_label_of_the_commit_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def mislabelled(capture: Any, snapshots: Any) -> Any:
        raft = snapshots._member.raft
        image = replace(
            capture.image, last_applied=raft.commit_index, snapshot_term=raft.log.term_at(raft.commit_index)
        )
        return replace(capture, index=raft.commit_index, term=raft.log.term_at(raft.commit_index), image=image)

    wrap(monkeypatch, member_snapshots.Snapshots, "capture", mislabelled)


@mutation
@world(LATE, FEW_SESSIONS)
def closed_sessions_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    wrap(monkeypatch, Sessions, "_close_oldest", lambda _, sessions: sessions._closed.clear())


@mutation
@world(SHARDS, SETTINGS)
def a_failover_does_not_count_in_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = cluster_state._failover

    def uncounted(state: ClusterState, entry: Failover) -> Any:
        change = real(state, entry)
        return replace(change, bumped=()) if isinstance(change, cluster_state._Change) else change

    monkeypatch.setitem(cluster_state._RULES, Failover, uncounted)


@mutation
@world(SHARDS, SETTINGS)
def what_is_stale_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClusterState, "stale", lambda state, shard_id, epoch: False)


@mutation
@world(DISKS, SMALL_RESERVE)
def a_failed_sync_is_taken_for_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DiskWork._stored

    def careless(work: DiskWork, job: Any) -> None:
        node = work._node
        if node.disk_fails and node.member is not None:
            node.disk_fails = False
            node.disk, disk = node.disk.copy(), node.disk
            real(work, job)
            node.disk = disk
        else:
            real(work, job)

    monkeypatch.setattr(DiskWork, "_stored", careless)


@pytest.mark.parametrize("name", sorted({"", *WORLDS}))
def test_the_worlds_hold_where_nothing_is_mutated(name: str) -> None:
    faults, settings, nodes = WORLDS.get(name, (ROUGH, SETTINGS, 3))
    for seed in range(5):
        Simulation(seed, nodes, config=settings, faults=faults, keep=100).run(duration=25.0)


def seeds_to_failure(name: str) -> tuple[int, str]:
    faults, settings, nodes = WORLDS.get(name, (ROUGH, SETTINGS, 3))
    for seed in range(MOST_SEEDS):
        try:
            Simulation(seed, nodes, config=settings, faults=faults, keep=10).run(duration=25.0)
        except SimulationFailure as failure:
            return seed, failure.reason.splitlines()[-1]
    return MOST_SEEDS, ""


@pytest.mark.slow  # what is taken out lies above the leaves: once is enough, and not with the pure ones
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    seed, reason = seeds_to_failure(name)
    print(f"{name}: seed {seed}: {reason}")
    assert reason, f"{name} survived {MOST_SEEDS} seeds"
