"""Turns of an event loop: how tests let it run, and cancel something at each of its awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def turns(count: int = 20) -> None:
    """Lets the loop run: what is due has run after a few turns, and no test depends on how much more has."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled_after(count: int, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Begins `call`, and cancels it after so many turns. Returns its task, which is over: `cancelled()` tells how."""
    task = asyncio.ensure_future(call)
    await turns(count)
    task.cancel()
    await asyncio.wait([task])
    return task
