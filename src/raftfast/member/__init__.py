"""One member of a cluster, pure: Raft, cluster state, proposals, reads, links and joining, without any I/O.

Floor 3. Everything that a node decides is decided here; `node` only carries it out. No asyncio, os, time, logging or
random in this folder: a simulator drives the same code with virtual time.
"""

from .member import Member
from .orders import Capture, Event, Image, InstallOrder, Orders, PieceRead, PieceWrite, Rewrite, StoreJob
from .origin import Identity, Origin
from .storing import join_jobs

__all__ = [
    "Capture",
    "Event",
    "Identity",
    "Image",
    "InstallOrder",
    "Member",
    "Orders",
    "Origin",
    "PieceRead",
    "PieceWrite",
    "Rewrite",
    "StoreJob",
    "join_jobs",
]
