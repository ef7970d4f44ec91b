"""Links between nodes: connections that carry frames, the port that takes them, the dialling that makes them.

Floor 3; imports floors 0 and 1 alone. Never here: consensus, the cluster's state, the disk.
"""

from __future__ import annotations

from .dialer import Dialer, DialOwner
from .link import Link, LinkOwner
from .listener import Listener, check_free, listen, stop_listening
from .stats import LinkStats

__all__ = [
    "DialOwner",
    "Dialer",
    "Link",
    "LinkOwner",
    "LinkStats",
    "Listener",
    "check_free",
    "listen",
    "stop_listening",
]
