"""`run`: runs a coroutine on an event loop of its own, and fails for whatever it leaves behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from real_nodes import no_thread_left

LONGEST = 300.0
"""Seconds that one test may take, whatever it waits for."""

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

Run = Callable[[Coroutine[Any, Any, None]], None]


def runner_on(loop_name: str) -> Run:
    """Tasks, threads, and errors that nobody looked at are failures."""
    unhandled: list[dict[str, Any]] = []

    async def and_leave_nothing(coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
        async with asyncio.timeout(LONGEST):
            await coroutine
        await asyncio.sleep(0)
        gc.collect()  # a future's error that nobody fetched shows when the future goes
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        with no_thread_left():
            with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
                runner.run(and_leave_nothing(coroutine))
            assert not unhandled, f"errors that reached the loop: {unhandled}"

    return run


@pytest.fixture
def run() -> Iterator[Run]:
    gc.freeze()
    yield runner_on("asyncio")
    gc.unfreeze()


@pytest.fixture(params=sorted(LOOPS))
def run_on_both(request: pytest.FixtureRequest) -> Iterator[Run]:
    """The same under the standard loop and under uvloop."""
    gc.freeze()
    yield runner_on(request.param)
    gc.unfreeze()


@pytest.fixture(params=sorted(LOOPS))
def new_loop(request: pytest.FixtureRequest) -> Iterator[Callable[[], asyncio.AbstractEventLoop]]:
    """Makes a loop: both kinds in turn, for tests of what is left when a loop has ended."""
    gc.freeze()
    yield LOOPS[request.param]
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/node/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("error::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"))
