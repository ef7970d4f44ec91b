"""`run`: runs a coroutine under the standard loop and under uvloop, and fails for whatever it leaves behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from recorder import PATIENCE

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(params=sorted(LOOPS))
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Leaks show as tasks still there, and as ResourceWarnings, which are errors in this folder."""

    async def and_leave_nothing(coroutine: Coroutine[Any, Any, None]) -> None:
        unhandled: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
        async with asyncio.timeout(PATIENCE):  # pytest's own can't interrupt uvloop
            await coroutine
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        assert not unhandled, f"errors that reached the loop: {unhandled}"

    def runner(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as loop_runner:
            loop_runner.run(and_leave_nothing(coroutine))
        gc.collect()

    gc.freeze()  # so that a collection looks at this test's objects alone, and is quick
    yield runner
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/net/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("error"))
