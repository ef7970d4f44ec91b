"""Waiting that no cancellation breaks off, for what must be whole: the giving back of a node's folder and threads.

Floor 4, a part of the node. Only for what surely ends by itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["unbroken"]


async def unbroken(future: asyncio.Future[Any]) -> None:
    """Returns when `future` is done; what came of it is not looked at.

    Whoever cancels the caller meanwhile is heard after that: CancelledError is raised once it is done.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
