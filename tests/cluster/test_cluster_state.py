"""The rules of each entry type, one table row or test each, and the state's node lines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cluster_cases import FREE, SA, SB, SC, SD, SE, A, B, C, D, E, applied, join, three

from raftfast.cluster.entries import (
    AddVoter,
    App,
    DelVoter,
    Entry,
    Failover,
    NodeFail,
    NodeForget,
    NodeInfo,
    NodeJoin,
    NodeRecover,
    Noop,
    SetReplicaOf,
    SlotChange,
)
from raftfast.cluster.members import bits_of, ranges_of
from raftfast.cluster.state import HOLDS, VALID, ClusterState, Kind
from raftfast.errors import EntryError, InvariantViolation
from raftfast.hot import nodesconf
from raftfast.records import Address, NodeRecord

EMPTY = ClusterState()
# In three(): A's shard is at epoch 1 (C came), the others at 0.

RULES: list[tuple[str, Entry, Kind, str]] = [
    ("noop", Noop(), Kind.VALID, ""),
    ("join: unknown", join(E), Kind.VALID, ""),
    ("join: known, same address", join(D), Kind.HOLDS, ""),
    ("join: known, other address", join(D, host="h"), Kind.VALID, ""),
    ("join: known, other shard", join(D, shard=SE), Kind.HOLDS, ""),
    ("join: as a second voter", join(E, voter=True), Kind.VALID, ""),
    ("join: a learner as voter", join(D, voter=True), Kind.HOLDS, ""),
    ("join: a voter as voter", join(B, voter=True), Kind.HOLDS, ""),
    ("join: a voter as learner", join(B), Kind.HOLDS, ""),
    ("join: no shard", NodeJoin(E, "h:1@2,"), Kind.REJECTED, "shard-id"),
    ("join: bad address", NodeJoin(E, "nowhere"), Kind.REJECTED, "bad address"),
    ("forget: learner", NodeForget(D, 0), Kind.VALID, ""),
    ("forget: replica", NodeForget(C, 1), Kind.VALID, ""),
    ("forget: unknown", NodeForget(E, 9), Kind.HOLDS, ""),
    ("forget: voter", NodeForget(B, 0), Kind.REJECTED, "DEL_VOTER first"),
    ("forget: stale", NodeForget(C, 0), Kind.CONFLICT, "at epoch 1, not 0"),
    ("forget: epoch unset", NodeForget(D, 7), Kind.VALID, ""),
    ("add: learner", AddVoter(D), Kind.VALID, ""),
    ("add: voter", AddVoter(B), Kind.HOLDS, ""),
    ("add: unknown", AddVoter(E), Kind.REJECTED, "not known"),
    ("del: voter", DelVoter(B), Kind.VALID, ""),
    ("del: learner", DelVoter(D), Kind.HOLDS, ""),
    ("del: unknown", DelVoter(E), Kind.HOLDS, ""),
    ("slots: move", SlotChange(A, 1, B, 0, ((0, 5), (9, 9))), Kind.VALID, ""),
    ("slots: free", SlotChange(A, 1, None, 0, ((0, 9999),)), Kind.VALID, ""),
    ("slots: to a learner", SlotChange(A, 1, D, 0, ((0, 0),)), Kind.VALID, ""),
    ("slots: all there already", SlotChange(None, 0, A, 0, ((0, 9999),)), Kind.HOLDS, ""),
    ("slots: some there already", SlotChange(None, 0, A, 1, ((0, 10000),)), Kind.REJECTED, "slot 0 has an owner"),
    ("slots: not the source's", SlotChange(A, 1, B, 0, ((9999, 10000),)), Kind.REJECTED, "slot 10000 is not owned"),
    ("slots: to itself", SlotChange(A, 1, A, 1, ((0, 5),)), Kind.HOLDS, ""),
    ("slots: to itself, not its own", SlotChange(B, 0, B, 0, ((0, 5),)), Kind.REJECTED, "slot 0"),
    ("slots: source stale", SlotChange(A, 0, B, 0, ((0, 5),)), Kind.CONFLICT, "at epoch 1"),
    ("slots: target stale", SlotChange(B, 0, A, 2, ((10000, 10001),)), Kind.CONFLICT, "at epoch 1"),
    ("slots: stale before owner", SlotChange(A, 0, B, 0, ((16383, 16383), (0, 1))), Kind.CONFLICT, "at epoch 1"),
    ("slots: epoch beside None", SlotChange(B, 0, None, 77, ((16383, 16383),)), Kind.VALID, ""),
    ("slots: target unknown", SlotChange(A, 1, E, 0, ((0, 5),)), Kind.REJECTED, "not known"),
    ("slots: source unknown", SlotChange(E, 0, A, 1, ((10000, 10000),)), Kind.REJECTED, "not known"),
    ("slots: to a replica", SlotChange(A, 1, C, 1, ((0, 5),)), Kind.REJECTED, "is a replica"),
    ("replica: learner", SetReplicaOf(D, SD, 0, A, SA, 1), Kind.VALID, ""),
    ("replica: elsewhere", SetReplicaOf(C, SA, 1, B, SB, 0), Kind.VALID, ""),
    ("replica: already", SetReplicaOf(C, SC, 0, A, SA, 0), Kind.HOLDS, ""),
    ("replica: source stale", SetReplicaOf(C, SA, 0, B, SB, 0), Kind.CONFLICT, "at epoch 1"),
    ("replica: target stale", SetReplicaOf(D, SD, 0, A, SA, 0), Kind.CONFLICT, "at epoch 1"),
    ("replica: with slots", SetReplicaOf(B, SB, 0, D, SD, 0), Kind.REJECTED, "has slots"),
    ("replica: of a replica", SetReplicaOf(D, SD, 0, C, SA, 1), Kind.REJECTED, "is a replica"),
    ("replica: of itself", SetReplicaOf(D, SD, 0, D, SD, 0), Kind.REJECTED, "itself"),
    ("replica: of an unknown", SetReplicaOf(D, SD, 0, E, SE, 0), Kind.REJECTED, "not known"),
    ("replica: unknown", SetReplicaOf(E, SE, 0, A, SA, 1), Kind.REJECTED, "not known"),
    ("replica: wrong source", SetReplicaOf(D, SC, 0, A, SA, 1), Kind.REJECTED, "not in the shard"),
    ("replica: wrong target", SetReplicaOf(D, SD, 0, A, SB, 0), Kind.REJECTED, "not in the shard"),
    ("promote", SetReplicaOf(C, SA, 1, None, FREE, 0), Kind.VALID, ""),
    ("promote: already", SetReplicaOf(D, SD, 0, None, SD, 0), Kind.HOLDS, ""),
    ("promote: a primary", SetReplicaOf(D, SD, 0, None, FREE, 0), Kind.REJECTED, "a primary already"),
    ("promote: taken shard", SetReplicaOf(C, SA, 1, None, SB, 0), Kind.REJECTED, "has members"),
    ("promote: own shard", SetReplicaOf(C, SA, 1, None, SA, 1), Kind.REJECTED, "has members"),
    ("promote: stale", SetReplicaOf(C, SA, 2, None, FREE, 0), Kind.CONFLICT, "at epoch 1"),
    ("failover", Failover(C, A, SA, 1), Kind.VALID, ""),
    ("failover: stale", Failover(C, A, SA, 2), Kind.CONFLICT, "at epoch 1"),
    ("failover: no epoch", Failover(C, A, SA, 0), Kind.CONFLICT, "at epoch 1"),
    ("failover: not its replica", Failover(C, B, SB, 0), Kind.REJECTED, "not a replica of"),
    ("failover: a primary", Failover(B, A, SA, 1), Kind.REJECTED, "not a replica of"),
    ("failover: other shard", Failover(C, A, SC, 0), Kind.REJECTED, "not in the shard"),
    ("failover: unknown replica", Failover(E, A, SA, 1), Kind.REJECTED, f"{E} is not known"),
    ("failover: unknown primary", Failover(C, E, SA, 1), Kind.REJECTED, f"{E} is not known"),
    ("info: new", NodeInfo(D, "h:1@2,"), Kind.VALID, ""),
    ("info: same", NodeInfo(D, "127.0.0.1:7003@17003"), Kind.HOLDS, ""),
    ("info: only the flag", NodeInfo(D, "127.0.0.1:7003@17003", True), Kind.VALID, ""),
    ("info: unknown", NodeInfo(E, "h:1@2,"), Kind.REJECTED, "not known"),
    ("info: bad address", NodeInfo(D, "h"), Kind.REJECTED, "bad address"),
    ("fail", NodeFail(D), Kind.VALID, ""),
    ("fail: unknown", NodeFail(E), Kind.REJECTED, "not known"),
    ("recover: not failed", NodeRecover(D), Kind.HOLDS, ""),
    ("recover: unknown", NodeRecover(E), Kind.REJECTED, "not known"),
]


@pytest.mark.parametrize(("entry", "kind", "reason"), [row[1:] for row in RULES], ids=[row[0] for row in RULES])
def test_rule(entry: Entry, kind: Kind, reason: str) -> None:
    state, before = three(), three()
    verdict = state.check(entry)
    assert (verdict.kind, verdict.success) == (kind, kind in (Kind.VALID, Kind.HOLDS))
    assert reason in verdict.reason
    assert bool(verdict.reason) == (not verdict.success)
    assert state == before  # a check changes nothing
    assert state.apply(100, entry) == verdict
    state.verify()
    assert (state != before) == (kind is Kind.VALID and entry != Noop())
    # A proposal sent twice enters the log twice: the second time it holds, or it is refused, but changes nothing.
    after = state.copy()
    again = state.apply(101, entry)
    if kind is Kind.VALID and entry != Noop():
        assert again == HOLDS
    assert state == after


def test_app_is_not_the_states_affair() -> None:
    for call in (EMPTY.check, lambda entry: EMPTY.copy().apply(1, entry)):
        with pytest.raises(ValueError, match="App"):
            call(App(None, 0, b"x"))


def test_who_joins_as_a_voter_after_the_founder_is_a_learner() -> None:
    state = applied(join(A, voter=True), join(B, voter=True))
    assert state.voters() == {A}
    state = applied(join(A, voter=True), join(B))
    assert state.apply(3, join(B, voter=True)).kind is Kind.HOLDS
    assert state.voters() == {A}


def test_the_founder_is_the_only_voter() -> None:
    state = applied(join(A, voter=True), join(B))
    assert state.voters() == {A}
    assert state.size == 1
    assert state.check(DelVoter(A)).kind is Kind.REJECTED
    assert "last voter" in state.check(DelVoter(A)).reason
    applied(AddVoter(B), DelVoter(A), state=state)
    assert state.voters() == {B}


def test_join_of_a_known_node_changes_its_address_and_nothing_else() -> None:
    state = applied(NodeFail(C), state=three())
    before = state.nodes[C]
    applied(join(C, host="10.0.0.9", shard=SE), state=state)
    assert state.nodes[C] == replace(before, address=Address("10.0.0.9", 7002, 17002, "", {"tls-port": "0"}))


def test_forgetting_every_node_twice_is_a_success_as_tools_send_it_to_every_node() -> None:
    state = applied(NodeForget(D, 0), state=three())
    assert state.apply(9, NodeForget(D, 0)) == HOLDS
    assert D not in state.nodes


def test_the_forgotten_are_remembered_until_they_join() -> None:
    state = three()
    state.apply(41, NodeForget(D, 0))
    assert state.removed == {D: 41}
    state.apply(42, NodeForget(D, 0))
    assert state.removed == {D: 41}
    twin = state.copy()
    state.apply(43, join(D))
    assert state.removed == {}
    assert twin.removed == {D: 41}
    assert ClusterState.from_records(twin.records()).removed == {}


def test_a_primary_with_slots_or_replicas_is_not_forgotten() -> None:
    state = applied(SetReplicaOf(D, SD, 0, B, SB, 0), SlotChange(B, 1, A, 1, ((10000, 16382),)), state=three())
    applied(DelVoter(B), state=state)
    assert "has slots" in state.check(NodeForget(B, 1)).reason
    applied(SlotChange(B, 1, A, 1, ((16383, 16383),)), state=state)
    assert "has replicas" in state.check(NodeForget(B, 1)).reason
    applied(NodeForget(D, 1), state=state)
    assert state.shard_epoch(SB) == 2
    applied(NodeForget(B, 2), state=state)


def test_epochs_count_changes_of_a_shard_and_end_with_it() -> None:
    state = three()
    assert (state.shard_epoch(SA), state.shard_epoch(SB), state.shard_epoch(SC)) == (1, 0, 0)
    assert SC not in state.shard_ids()  # C left it empty
    applied(SlotChange(A, 1, B, 0, ((0, 5),)), state=state)
    assert state.shard_epoch(SA) == 1  # only checked
    applied(SetReplicaOf(C, SA, 1, B, SB, 0), state=state)
    assert (state.shard_epoch(SA), state.shard_epoch(SB)) == (2, 1)
    applied(SetReplicaOf(C, SB, 1, None, FREE, 0), state=state)
    assert (state.shard_epoch(SB), state.shard_epoch(FREE)) == (2, 1)
    applied(NodeForget(C, 1), state=state)
    assert state.shard_epoch(FREE) == 0
    assert state.shard_ids() == sorted([SA, SB, SD])


def test_a_primary_with_replicas_becomes_no_replica() -> None:
    state = applied(join(A, voter=True), join(B), join(C), SetReplicaOf(B, SB, 0, A, SA, 0))
    verdict = state.check(SetReplicaOf(A, SA, 1, C, SC, 0))
    assert verdict.kind is Kind.REJECTED
    assert "has replicas" in verdict.reason


def test_two_primaries_of_one_shard_count_its_epoch_once() -> None:
    state = applied(join(A, voter=True), join(B, shard=SA))
    applied(SetReplicaOf(B, SA, 0, A, SA, 0), state=state)
    assert state.shard_epoch(SA) == 1
    assert state.shard_members(SA) == [A, B]


def test_failover_hands_over_slots_and_replicas() -> None:
    state = applied(SetReplicaOf(D, SD, 0, A, SA, 1), NodeFail(A), state=three())
    applied(Failover(D, A, SA, 2), state=state)
    assert state.slots_of(D) == ((0, 9999),)
    assert state.slots_of(A) == ()
    assert state.replicas_of(D) == [A, C]
    assert (state.primary_of(A), state.primary_of(C), state.primary_of(D)) == (D, D, None)
    assert state.is_primary(D)
    assert not state.is_primary(A)
    assert state.shard_epoch(SA) == 3
    assert state.nodes[A].failed
    assert not state.nodes[D].failed
    assert state.voters() == {A, B}  # the data role has nothing to do with the vote


def test_fail_after_failover_marks_the_old_primary() -> None:
    # valkey#4127: the failure was applied to whoever was the primary by then.
    state = applied(Failover(C, A, SA, 1), NodeFail(A), state=three())
    assert state.nodes[A].failed
    assert not state.nodes[C].failed
    assert state.covered()


def test_recover_clears_the_flag() -> None:
    state = applied(NodeFail(A), state=three())
    assert not state.covered()
    assert state.apply(9, NodeFail(A)) == HOLDS
    applied(NodeRecover(A), state=state)
    assert state == three()


def test_covered_needs_every_slot() -> None:
    state = three()
    assert state.covered()
    assert state.assigned() == 16384
    applied(SlotChange(B, 0, None, 0, ((16383, 16383),)), state=state)
    assert not state.covered()
    assert state.assigned() == 16383
    assert (state.owner_of(16383), state.owner_of(16382), state.owner_of(0)) == (None, B, A)
    assert not EMPTY.covered()


def test_info_replaces_the_whole_address_and_keeps_the_shard() -> None:
    first = NodeInfo(D, "h:1@2,n.example,availability-zone=z,nodename=d,client-ipv4=1.2.3.4,tls-port=9", True)
    state = applied(first, state=three())
    assert state.nodes[D].nofailover
    applied(NodeInfo(D, "h:1@2,"), state=state)
    assert state.nodes[D].address == Address("h", 1, 2, "", {"tls-port": "0"})
    assert not state.nodes[D].nofailover
    assert state.shard_of(D) == SD


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("h:1@2", Address("h", 1, 2, "", {"tls-port": "0"})),
        ("h:1@2,,tls-port=0", Address("h", 1, 2, "", {"tls-port": "0"})),
        # A TLS cluster's entries have the TLS port as the main one; the file never has.
        ("h:7000@2,,tcp-port=6379", Address("h", 6379, 2, "", {"tls-port": "7000"})),
        ("h:7000@2,,tcp-port=0", Address("h", 0, 2, "", {"tls-port": "7000"})),
        ("h:7000@2,,tcp-port=6379,tls-port=7001", Address("h", 6379, 2, "", {"tls-port": "7001"})),
        ("h:1@2,,nodename=,client-tcp-port=0,client-ipv4=", Address("h", 1, 2, "", {"tls-port": "0"})),
        ("h:1@2,,nodename=0", Address("h", 1, 2, "", {"tls-port": "0", "nodename": "0"})),
        ("h:1@2,,zz=1,aa=", Address("h", 1, 2, "", {"tls-port": "0", "aa": "", "zz": "1"})),
    ],
)
def test_addresses_are_kept_as_the_file_writes_them(text: str, kept: Address) -> None:
    state = applied(NodeInfo(D, text), state=three()) if text != "127.0.0.1:7003@17003" else three()
    address = state.nodes[D].address
    assert address == kept
    assert ClusterState.from_records(map(nodesconf.parse_node_line, lines(state))) == state


def test_the_order_of_aux_fields_makes_no_difference() -> None:
    one = applied(NodeInfo(D, "h:1@2,,zz=1,nodename=n,aa=2,availability-zone=z"), state=three())
    other = applied(NodeInfo(D, "h:1@2,,availability-zone=z,aa=2,nodename=n,tls-port=0,zz=1"), state=three())
    assert one == other
    assert lines(one) == lines(other)


def lines(state: ClusterState, myself: str | None = None) -> list[bytes]:
    return [nodesconf.format_node_line(record) for record in state.records(myself)]


def test_node_lines() -> None:
    state = applied(NodeFail(C), NodeInfo(D, "h:1@2,d.example", True), state=three())
    assert lines(state, myself=B) == [
        f"{A} 127.0.0.1:7000@17000,,tls-port=0,shard-id={SA} master - 0 0 1 connected 0-9999".encode(),
        f"{B} 127.0.0.1:7001@17001,,tls-port=0,shard-id={SB} myself,master - 0 0 0 connected 10000-16383".encode(),
        f"{C} 127.0.0.1:7002@17002,,tls-port=0,shard-id={SA} slave,fail,learner {A} 0 0 1 connected".encode(),
        f"{D} h:1@2,d.example,tls-port=0,shard-id={SD} master,nofailover,learner - 0 0 0 connected".encode(),
    ]


def test_lines_and_back() -> None:
    state = three()
    for records in (state.records(), state.records(myself=A), reversed(state.records())):
        again = ClusterState.from_records(records)
        again.verify()
        assert again == state
        assert lines(again) == lines(state)
    assert ClusterState.from_records([]) == EMPTY


def line(
    node_id: str, shard: str | None, flags: str = "master", primary: str | None = None, **more: object
) -> NodeRecord:
    aux = {} if shard is None else {"shard-id": shard}
    return NodeRecord(id=node_id, flags=tuple(flags.split(",")), primary_id=primary, aux=aux, **more)  # type: ignore[arg-type]


def test_a_shards_epoch_is_the_greatest_of_its_primaries_lines() -> None:
    state = ClusterState.from_records(
        [
            line(A, SA, epoch=5),
            line(B, SA, epoch=3),
            line(C, SA, "slave", A, epoch=9),
            line(D, SD),
        ]
    )
    assert (state.shard_epoch(SA), state.shard_epoch(SD)) == (5, 0)


def test_a_replica_is_moved_to_its_primarys_shard() -> None:
    for order in (1, -1):
        state = ClusterState.from_records([line(A, SA, epoch=3), line(B, SB, "slave", A, epoch=8)][::order])
        state.verify()
        assert state.shard_of(B) == SA
        assert state.shard_ids() == [SA]
        assert state.shard_epoch(SA) == 3


def test_flags_of_lines() -> None:
    state = ClusterState.from_records(
        [
            line(A, SA, "myself,master,fail?"),
            line(B, SB, "noflags"),
            line(C, SC, "fail,noaddr,nofailover,learner"),
        ]
    )
    assert state.voters() == {A, B}
    assert [m.failed for _, m in sorted(state.nodes.items())] == [False, False, True]
    assert [m.nofailover for _, m in sorted(state.nodes.items())] == [False, False, True]


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([line(A, None)], "lacks its shard-id"),
        ([line(A, SA), line(A, SA)], "two lines"),
        ([line(A, SA, slots=((0, 5),)), line(B, SB, slots=((5, 9),))], "slot 5 "),
        ([line(A, SA, "handshake")], "handshake"),
        ([line(A, SA, "slave")], "role"),
        ([line(A, SA), line(B, SB, "master", A)], "role"),
        ([line(A, SA), line(B, SB, "slave", A, slots=((0, 0),))], "has slots"),
        ([line(A, SA, "slave", B)], "no primary here"),
        ([line(A, SA), line(B, SA, "slave", A), line(C, SA, "slave", B)], "no primary here"),
        ([line(A, SA, "slave", A)], "no primary here"),
        ([line(A, SA, slots=((5, 16384),))], "slots 5 to 16384"),
        ([NodeRecord(A, aux={"shard-id": SA, "tls-port": "x"}, flags=("master",))], "no port"),
    ],
)
def test_lines_that_no_state_gives_are_refused(records: list[NodeRecord], reason: str) -> None:
    with pytest.raises(EntryError, match=reason):
        ClusterState.from_records(records)


def test_an_epoch_at_its_end_stays_there() -> None:
    most = (1 << 64) - 1
    state = ClusterState.from_records([line(A, SA, epoch=most), line(B, SB)])
    applied(SetReplicaOf(B, SB, 0, A, SA, most), state=state)
    assert state.shard_epoch(SA) == most
    assert ClusterState.from_records(map(nodesconf.parse_node_line, lines(state))) == state


def test_a_copy_goes_its_own_way() -> None:
    state = three()
    twin = state.copy()
    applied(NodeForget(D, 0), AddVoter(C), SlotChange(A, 1, B, 0, ((0, 5),)), state=twin)
    assert state == three()
    assert state.voters() == {A, B}
    assert twin != state
    state.verify()
    twin.verify()


@pytest.mark.parametrize(
    ("break_it", "number"),
    [
        (lambda s: s._nodes.update({E: s._nodes[A]}), "1"),
        (lambda s: s._nodes.update({B: replace(s._nodes[B], slot_bits=1)}), "2"),
        (lambda s: s._nodes.update({D: replace(s._nodes[D], slot_bits=1 << 16384)}), "2"),
        (lambda s: s._nodes.update({C: replace(s._nodes[C], primary_id=E)}), "3"),
        (lambda s: s._nodes.update({C: replace(s._nodes[C], shard_id=SB)}), "3"),
        (lambda s: s._nodes.update({A: replace(s._nodes[A], primary_id=C)}), "3"),
        (lambda s: s._epochs.update({FREE: 1}), "4"),
        (lambda s: s._epochs.pop(SD), "4"),
        (lambda s: s._removed.update({A: 1}), "5"),
        (lambda s: s._nodes.update({D: replace(s._nodes[D], voter=True)}), "6"),
    ],
)
def test_verify_names_what_is_broken(break_it: object, number: str) -> None:
    state = three()
    break_it(state)  # type: ignore[operator]
    with pytest.raises(InvariantViolation, match=f"^{number}:"):
        state.verify()


def test_slots_as_bits_and_ranges() -> None:
    for ranges in ((), ((0, 0),), ((0, 16383),), ((16383, 16383),), ((0, 0), (2, 2), (4, 9)), ((1, 5), (7, 16383))):
        assert ranges_of(bits_of(ranges)) == ranges
    assert ranges_of(bits_of(((5, 6), (0, 2), (3, 4)))) == ((0, 6),)
    assert VALID.success


def test_small_questions() -> None:
    state = three()
    assert state.shard_of(E) is state.primary_of(E) is None
    assert state.slots_of(E) == ()
    assert not state.is_primary(E)
    assert state.replicas_of(E) == []
    assert state.stale(SA, 0)
    assert not state.stale(SA, 1)
    assert not state.stale(SB, 5)
    assert not state.stale(FREE, 5)
    assert repr(state) == "<ClusterState of 4 members, 2 voters, 16384 slots>"
    assert state != 5
