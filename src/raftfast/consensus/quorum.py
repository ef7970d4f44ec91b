"""Majorities: total functions over a voter set.

Floor 2. Nothing here knows where the numbers come from; the tests hold each function against a dumb oracle.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

__all__ = ["is_majority", "majority_value"]


def is_majority(voters: Set[str], yes: Set[str]) -> bool:
    """Whether more than half of `voters` are in `yes`; false where there are no voters.

    Who is in `yes` without being a voter counts for nothing (PROTOCOL 4).
    """
    return 2 * len(voters & yes) > len(voters)


def majority_value(voters: Set[str], values: Mapping[str, float], default: float) -> float:
    """The greatest value that more than half of `voters` have reached; `default` where there are no voters.

    A voter without a value has reached `default` only. With match indexes it is the index that may be committed
    (dissertation 3.6.2), with times the moment since which a majority has been heard.
    """
    if not voters:
        return default
    reached = sorted((values.get(voter, default) for voter in voters), reverse=True)
    return reached[len(reached) // 2]
