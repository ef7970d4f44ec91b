"""raftfast: Raft for Python services, and the control plane of a Valkey cluster.

Public names; no logic. `Node` and `StateMachine` are what a service embeds, `RaftLog`, `wire` and `nodesconf` the
compiled leaves (`COMPILED` tells whether they are), `Config` the knobs, the rest errors and values.
"""

from __future__ import annotations

import sys

from .cluster.members import Member as ClusterMember
from .cluster.view import ClusterView
from .config import Config
from .errors import (
    Busy,
    ClusterReset,
    Compacted,
    ConfigError,
    Conflict,
    Dropped,
    EntryError,
    Expired,
    InvariantViolation,
    MeetError,
    NodeClosed,
    NotLinearizable,
    ParseError,
    ProposalTimeout,
    ProtocolError,
    RaftError,
    Rejected,
    SnapshotError,
    StorageError,
    TimedOut,
    Unavailable,
    UnknownOutcome,
)
from .hot import COMPILED, RaftLog, nodesconf, wire
from .member import Event
from .messages import Role
from .node import Node, Session
from .statemachine import StateMachine
from .status import LinkStatus, PeerStatus, Status
from .version import VERSION

__version__ = VERSION

# The leaves' modules are named for their twins; `import raftfast.wire` finds the one in use, as `raftfast.wire` does.
sys.modules[f"{__name__}.nodesconf"] = nodesconf
sys.modules[f"{__name__}.wire"] = wire

__all__ = [
    "COMPILED",
    "Busy",
    "ClusterMember",
    "ClusterReset",
    "ClusterView",
    "Compacted",
    "Config",
    "ConfigError",
    "Conflict",
    "Dropped",
    "EntryError",
    "Event",
    "Expired",
    "InvariantViolation",
    "LinkStatus",
    "MeetError",
    "Node",
    "NodeClosed",
    "NotLinearizable",
    "ParseError",
    "PeerStatus",
    "ProposalTimeout",
    "ProtocolError",
    "RaftError",
    "RaftLog",
    "Rejected",
    "Role",
    "Session",
    "SnapshotError",
    "StateMachine",
    "Status",
    "StorageError",
    "TimedOut",
    "Unavailable",
    "UnknownOutcome",
    "__version__",
    "nodesconf",
    "wire",
]
