"""The view of the metadata that a service gets: complete, of one moment, and read only all the way down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cluster_cases import SA, SB, SD, A, B, C, D, E, applied, join, three

from raftfast.cluster.entries import NodeForget, SlotChange
from raftfast.cluster.state import ClusterState
from raftfast.cluster.view import ClusterView


def test_a_view_names_nodes_slots_and_shards() -> None:
    view = three().view()
    assert set(view.nodes) == {A, B, C, D}
    assert view.nodes[C].primary_id == A
    assert view.nodes[A].address.port == 7000
    assert list(view.slots) == list(range(16384))
    assert [view.slots[slot] for slot in (0, 9999, 10000, 16383)] == [A, A, B, B]
    assert dict(view.shards) == {SA: (A, C), SB: (B,), SD: (D,)}
    assert list(view.shards) == [SA, SB, SD]
    assert (view.size, view.voters(), view.covered()) == (2, {A, B}, True)


def test_slots_without_an_owner_are_not_among_the_slots() -> None:
    state = applied(join(A, voter=True), SlotChange(None, 0, A, 0, ((3, 4), (9, 9))))
    assert dict(state.view().slots) == {3: A, 4: A, 9: A}


def test_a_shard_names_its_primary_first() -> None:
    """Also where a replica's id is the lower one."""
    records = [replace(record, id={A: C, C: A}.get(record.id, record.id)) for record in three().records()]
    records = [replace(record, primary_id=C if record.primary_id == A else None) for record in records]
    assert ClusterState.from_records(records).view().shards[SA] == (C, A)


def test_a_view_is_of_one_moment() -> None:
    state = three()
    before = state.view()
    assert state.view() is before, "it is made once, until something changes"
    state.apply(9, NodeForget(D, 0))
    state.apply(10, SlotChange(A, 1, None, 0, ((0, 9999),)))
    assert D in before.nodes
    assert (before.slots[0], before.shards[SD], before.slots_of(A)) == (A, (D,), ((0, 9999),))
    after = state.view()
    assert D not in after.nodes
    assert (0 in after.slots, SD in after.shards, after.slots_of(A)) == (False, False, ())
    assert before != after == state


def test_what_changes_nothing_makes_no_new_view() -> None:
    state = three()
    before = state.view()
    assert not state.apply(9, NodeForget(B, 0)).success
    assert state.apply(10, NodeForget(E, 0)).success
    assert state.view() is before


def test_a_copy_has_views_of_its_own() -> None:
    state = three()
    before, other = state.view(), state.copy()
    other.apply(9, NodeForget(D, 0))
    assert D not in other.view().nodes
    assert state.view() is before


def _set(target: Any, name: str, value: object) -> None:
    setattr(target, name, value)


ATTEMPTS: dict[str, Callable[[Any], object]] = {
    "clear the nodes": lambda view: view.nodes.clear(),
    "another node": lambda view: view.nodes.__setitem__(A, 5),
    "take a node out": lambda view: view.nodes.pop(A),
    "other nodes": lambda view: _set(view, "nodes", {}),
    "a node's field": lambda view: _set(view.nodes[A], "voter", False),
    "a node's address": lambda view: _set(view.nodes[A].address, "port", 1),
    "a field of its address": lambda view: view.nodes[A].address.aux.update({"tls-port": "1"}),
    "an owner": lambda view: view.slots.__setitem__(0, B),
    "other slots": lambda view: _set(view, "slots", {}),
    "a shard": lambda view: view.shards.clear(),
    "a shard's nodes": lambda view: view.shards[SA].append(B),
    "something new": lambda view: _set(view, "anything", 1),
    "an entry": lambda view: view.apply(9, NodeForget(D, 0)),
}


@pytest.mark.parametrize("origin", ["applied", "loaded"])
@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_nothing_of_a_view_can_be_changed(attempt: Callable[[ClusterView], object], origin: str) -> None:
    """Neither of a state that entries made, nor of one that was read."""
    state = three() if origin == "applied" else ClusterState.from_records(three().records())
    with pytest.raises((AttributeError, TypeError)):
        attempt(state.view())
    assert state == three()
    assert state.view() == three()
