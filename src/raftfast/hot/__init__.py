"""The compiled leaves and their pure twins, and the one choice between them.

Floor 1. All three are compiled or all three are pure: `COMPILED` tells. The pure ones are used where the compiled
modules are absent, or where `RAFTFAST_NO_EXTENSIONS` is set to anything but `` or `0`; a compiled module that is
there and can't be loaded is an error, never a silent fallback.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

__all__ = ["COMPILED", "RaftLog", "log", "nodesconf", "wire"]

_LEAVES = ("log_c", "wire_c", "nodesconf_c")


def _choose() -> bool:
    """Whether the compiled leaves are used. Raises ImportError where only some of them were built."""
    if os.environ.get("RAFTFAST_NO_EXTENSIONS", "") not in ("", "0"):
        return False
    absent = [leaf for leaf in _LEAVES if importlib.util.find_spec(f"{__name__}.{leaf}") is None]
    if absent and len(absent) < len(_LEAVES):
        raise ImportError(
            f"raftfast is half built: {', '.join(absent)} missing; reinstall it, or set RAFTFAST_NO_EXTENSIONS=1"
        )
    return not absent


COMPILED: bool = _choose()
"""True where the compiled leaves are in use."""

if TYPE_CHECKING or not COMPILED:
    import raftfast.hot.log_py as log
    import raftfast.hot.nodesconf_py as nodesconf
    import raftfast.hot.wire_py as wire
else:
    import raftfast.hot.log_c as log
    import raftfast.hot.nodesconf_c as nodesconf
    import raftfast.hot.wire_c as wire

RaftLog = log.RaftLog
