"""Raft without I/O: time, messages, proposals and "this is durable now" go in; what to do comes out.

Floor 2. No clock, socket, file, thread, log or randomness of its own anywhere in this folder.
"""

from .core import RandomSource, Standing
from .pending import Pending, Proposal
from .progress import Progress, ProgressState
from .raft import Raft
from .update import Installed, Send, Update

__all__ = [
    "Installed",
    "Pending",
    "Progress",
    "ProgressState",
    "Proposal",
    "Raft",
    "RandomSource",
    "Send",
    "Standing",
    "Update",
]
