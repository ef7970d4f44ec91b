"""The client port: RESP2 and RESP3 for every Redis client, over a node and, if wanted, the built-in store.

Floor 5. Public names only.
"""

from __future__ import annotations

from .listener import Server, bind, serve
from .resp import Limits
from .served import ServedCluster, ServedMember, ServedNode, ServedStore

__all__ = ["Limits", "ServedCluster", "ServedMember", "ServedNode", "ServedStore", "Server", "bind", "serve"]
