"""`run`: runs a coroutine under the standard loop and under uvloop, and fails for whatever it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from recorder import PATIENCE

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


async def and_leave_nothing(coroutine: Coroutine[Any, Any, None]) -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    async with asyncio.timeout(PATIENCE):  # pytest's own can't interrupt uvloop
        await coroutine
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    assert not unhandled, f"errors that reached the loop: {unhandled}"


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Sockets and loops that are left show as ResourceWarnings. They are gathered, not raised: a warning that raises
    inside uvloop's close makes it wait for ever."""

    def runner(coroutine: Coroutine[Any, Any, None]) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with asyncio.Runner(loop_factory=LOOPS[request.param]) as loop_runner:
                loop_runner.run(and_leave_nothing(coroutine))
            gc.collect()
        assert not caught, f"left behind: {[str(each.message) for each in caught]}"

    gc.freeze()  # so that a collection looks at this test's objects alone, and is quick
    yield runner
    gc.unfreeze()
