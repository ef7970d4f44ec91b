"""Fixtures of the client port's tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from raftfast.records import NodeRecord

pytest.register_assert_rewrite("server_site")

from server_site import PATIENCE, Site, open_site  # noqa: E402


@pytest.fixture
def threaded_site():
    """A maker of sites whose loop runs in a thread, for clients that block."""
    stops: list[Callable[[], None]] = []

    def make(*records: NodeRecord, **options: Any) -> Site:
        ready: list[Site] = []
        started, stop = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def main() -> None:
            async with open_site(*records, **options) as site:
                ready.append(site)
                started.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
        thread.start()

        def end() -> None:
            loop.call_soon_threadsafe(stop.set)
            thread.join(PATIENCE)
            loop.close()

        stops.append(end)
        assert started.wait(PATIENCE)
        return ready[0]

    yield make
    for end in stops:
        end()
