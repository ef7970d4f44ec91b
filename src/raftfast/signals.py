"""SIGTERM as a graceful stop, for a service that has no handler of its own.

Floor 4, a part of the node. asyncio turns SIGINT into a cancelled main task already; this does the same for SIGTERM,
and lets the process end by the signal once everything is closed, as whoever sent it expects.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType

__all__ = ["GracefulTerm"]


class GracefulTerm:
    """While it is armed, SIGTERM cancels the task that armed it; once that has ended, SIGTERM has its usual effect.

    Nothing is touched outside the main thread, or where the process handles SIGTERM itself, before or later.
    """

    def __init__(self) -> None:
        self._armed = False
        self._received = False

    def arm(self) -> None:
        """To be called by the task that is to leave its context."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        in_main = threading.current_thread() is threading.main_thread()
        if task is None or not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return

        def received() -> None:
            if signal.getsignal(signal.SIGTERM) is _ours:
                self._received = True
                if not task.cancel():
                    self.disarm()

        loop.add_signal_handler(signal.SIGTERM, received)
        signal.signal(signal.SIGTERM, _ours)  # the loop is told as before, and another handler can be told from ours
        self._armed = True

    def disarm(self) -> None:
        """The context is left. Where SIGTERM had come, it ends the process now."""
        if not self._armed:
            return
        self._armed = False
        if signal.getsignal(signal.SIGTERM) is _ours:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        if self._received:
            signal.raise_signal(signal.SIGTERM)


def _ours(number: int, frame: FrameType | None) -> None:
    """Does nothing: the loop hears of the signal by itself."""
