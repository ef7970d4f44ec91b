"""What the matrices tried, gathered over a whole run of the tests, to be shown at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

__all__ = ["TALLY", "Tally"]


class Tally:
    """By matrix: how many of each thing, and of which calls."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._calls: dict[str, Counter[str]] = {}
        self._notes: list[str] = []

    def add(self, matrix: str, counts: Mapping[str, int], calls: Mapping[str, int] | None = None) -> None:
        self._counts.setdefault(matrix, Counter()).update(counts)
        self._calls.setdefault(matrix, Counter()).update(calls or {})

    def note(self, text: str) -> None:
        self._notes.append(text)

    def lines(self) -> list[str]:
        """One line a matrix, and what was noted besides."""
        lines = []
        for matrix, counts in sorted(self._counts.items()):
            text = ", ".join(f"{count} {what}" for what, count in counts.items())
            calls = ", ".join(f"{call} {count}" for call, count in sorted(self._calls[matrix].items()))
            lines.append(f"{matrix}: {text}{f' ({calls})' if calls else ''}")
        return lines + self._notes


TALLY = Tally()
