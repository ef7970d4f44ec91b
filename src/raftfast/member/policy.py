"""What a leader proposes by itself, from its own view: failed and recovered nodes, promotion, replacement.

Floor 3. Pure functions of what they are given. They are asked at each heartbeat; which entry is checked and appended,
and when, is the core's and the state's affair (PROTOCOL 8 and 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from ..cluster.entries import AddVoter, DelVoter, Entry, NodeFail, NodeRecover
from ..cluster.members import Member

__all__ = ["View", "failure_entries", "silent_voters", "voter_entry"]


class View(NamedTuple):
    """A leader's view. `silent_for`: seconds since each other member was heard. `caught_up`: learners that may vote.

    `replacing`: a silent voter, and the learner that was last promoted while it was silent.
    """

    node_id: str
    nodes: Mapping[str, Member]
    voters: Set[str]
    silent_for: Mapping[str, float]
    caught_up: Set[str]
    replacing: tuple[str, str] | None = None


def failure_entries(view: View, node_timeout: float) -> Iterable[Entry]:
    """NODE_FAIL of members without answers for T, NODE_RECOVER of failed ones that answer, by the applied flag."""
    for node_id in sorted(view.nodes):
        if node_id == view.node_id:
            if view.nodes[node_id].failed:
                yield NodeRecover(node_id)
            continue
        silent = view.silent_for.get(node_id)
        if silent is None:
            continue
        failed = view.nodes[node_id].failed
        if silent > node_timeout and not failed:
            yield NodeFail(node_id)
        elif silent <= node_timeout and failed:
            yield NodeRecover(node_id)


def silent_voters(view: View, replace_after: float) -> list[str]:
    """The voters that were not heard for `replace_after`, in their order."""
    others = view.voters - {view.node_id}
    return sorted(voter for voter in others if view.silent_for.get(voter, 0.0) > replace_after)


def voter_entry(view: View, max_voters: int, replace_after: float) -> Entry | None:
    """The next voter change that is wanted, if any: one at a time.

    Learners that caught up are promoted up to `max_voters`. A voter that was silent for `replace_after` is replaced:
    first the learner is promoted, one above the limit if need be, then the voter is taken out.
    """
    if not view.voters:
        return None
    ready = sorted(view.caught_up - view.voters)
    dead = silent_voters(view, replace_after)
    if dead and len(view.voters) > max_voters:
        return DelVoter(dead[0])
    if view.replacing is not None and view.replacing[0] in dead and view.replacing[1] in view.voters:
        return DelVoter(view.replacing[0])
    if ready and (len(view.voters) < max_voters or dead):
        return AddVoter(ready[0])
    return None
