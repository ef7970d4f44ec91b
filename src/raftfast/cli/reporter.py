"""How the demo tells what it does: live on a terminal, plain lines elsewhere.

Floor 6. Only shows; what happened and whether it held is decided by whoever calls.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

__all__ = ["LiveReporter", "PlainReporter", "Reporter", "reporter_for"]

Rows = Sequence[Sequence[str]]


class Reporter(Protocol):
    """What a run tells, in this order: a step begins, says things, held or failed; at the end a table.

    A context manager: what it holds of the terminal it gives back at the end, however that comes.
    """

    def __enter__(self) -> Reporter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, title: str) -> None: ...

    def say(self, text: str) -> None: ...

    def held(self) -> None: ...

    def failed(self) -> None: ...

    def table(self, head: Sequence[str], rows: Rows) -> None: ...


def reporter_for(console: Console, steps: int) -> Reporter:
    """A live one where `console` is a terminal, else a plain one. `steps` is how many will begin."""
    return LiveReporter(console, steps) if console.is_terminal else PlainReporter(console, steps)


class PlainReporter:
    """One line for each thing told, with the seconds since the start; ASCII only."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._number = 0
        self._start = time.monotonic()

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, title: str) -> None:
        self._number += 1
        self._line(f"step {self._number}/{self._steps}: {title}")

    def say(self, text: str) -> None:
        self._line(f"  {text}")

    def held(self) -> None:
        self._line(f"step {self._number}/{self._steps}: held")

    def failed(self) -> None:
        self._line(f"step {self._number}/{self._steps}: DID NOT HOLD")

    def table(self, head: Sequence[str], rows: Rows) -> None:
        lines = [head, *rows]
        widths = [max(len(row[column]) for row in lines) for column in range(len(head))]
        for row in lines:
            self._print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def _line(self, text: str) -> None:
        self._print(f"{time.monotonic() - self._start:6.1f} s  {text}")

    def _print(self, text: str) -> None:
        # A pipe's reader wants whole lines at once, unwrapped and unstyled: not what a console's print does.
        self._console.file.write(f"{text}\n")
        self._console.file.flush()


class LiveReporter:
    """The steps as a list that grows, each with its outcome and time, and what the current one says below it."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._done: list[RenderableType] = []
        self._title = ""
        self._said: list[str] = []
        self._number = 0
        self._began = time.monotonic()
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=12)

    def __enter__(self) -> LiveReporter:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, title: str) -> None:
        self._number += 1
        self._title, self._said, self._began = title, [], time.monotonic()
        self._spinner = Spinner("dots", text=Text(f"{self._number}/{self._steps} {title}", style="bold"))

    def say(self, text: str) -> None:
        self._said.append(text)

    def held(self) -> None:
        self._close("✓", "green")

    def failed(self) -> None:
        self._close("✗", "bold red")

    def table(self, head: Sequence[str], rows: Rows) -> None:
        table = Table(*head)
        for row in rows:
            table.add_row(*map(Text, row))
        self._done += [Text(), table]

    def _close(self, mark: str, style: str) -> None:
        seconds = time.monotonic() - self._began
        line = Text.assemble(
            (mark, style), f" {self._number}/{self._steps} {self._title} ", (f"{seconds:.1f} s", "dim")
        )
        self._done += [line, *self._notes()]
        self._title, self._said = "", []

    def _notes(self) -> list[RenderableType]:
        return [Text(f"      {text}", style="dim") for text in self._said]

    def _render(self) -> RenderableType:
        current: list[RenderableType] = [self._spinner, *self._notes()] if self._title else []
        return Group(*self._done, *current)
