"""Every exception that raftfast raises by intent: one tree under `RaftError`.

Floor 0. No logic beyond carrying a reason. A class of an error that can meet a proposal says whether the command
may still take effect (`may_take_effect`): that, and not its name, decides whether a caller may retry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from .messages import Message

__all__ = [
    "Busy",
    "ClusterReset",
    "Compacted",
    "ConfigError",
    "Conflict",
    "Dropped",
    "EntryError",
    "Expired",
    "InvariantViolation",
    "MeetError",
    "NodeClosed",
    "NotLinearizable",
    "ParseError",
    "ProposalTimeout",
    "ProtocolError",
    "RaftError",
    "Rejected",
    "SnapshotError",
    "StorageError",
    "TimedOut",
    "Unavailable",
    "UnknownOutcome",
]


class RaftError(Exception):
    """The root of the tree.

    `may_take_effect` is true where a command that met this error may still be committed and applied: such a command
    may be sent again only inside a session. Where it is false the command certainly has no effect.
    """

    may_take_effect: bool = False

    def once_sent(self, sent: bool) -> Self:
        """This error, for who waits when a node ends: a command that was `sent` may still take effect."""
        self.may_take_effect = sent
        return self


class Dropped(RaftError):
    """The command certainly has no effect: it never entered a log that can be committed. Safe to retry."""


class UnknownOutcome(RaftError):
    """The command may or may not take effect. Retry only inside a session (PROTOCOL 6.1, 6.3)."""

    may_take_effect = True


class Expired(UnknownOutcome):
    """The command was sent and not decided within three node timeouts. In a session it may be sent again."""


class TimedOut(RaftError, TimeoutError):
    """The caller's own `timeout` was over. As such: nothing was sent that could take effect."""


class ProposalTimeout(UnknownOutcome, TimedOut):
    """The caller's own `timeout` was over after the command, or some of several, had been sent, and before an answer.

    Giving up undoes nothing: it may still take effect. In a session it may not be sent again under its old number.
    """


class Rejected(RaftError):
    """The leader's check, or apply, refused the command for good; it has no effect (PROTOCOL 6.4)."""


class Conflict(Rejected):
    """Refused because a shard's epoch moved on: look again, then it may be proposed anew (PROTOCOL 6.5)."""


class Busy(RaftError):
    """More is pending than the configuration allows; nothing was sent. Wait, then retry (PROTOCOL 6.6)."""


class NodeClosed(RaftError):
    """The node is closed, or was reset, before the answer was known.

    Raised with `may_take_effect` set on the instance where the command had already left this node.
    """


class ClusterReset(RaftError):
    """CLUSTER RESET made the node a fresh singleton before the answer was known.

    Raised with `may_take_effect` set on the instance where the command had already left this node.
    """


class MeetError(RaftError):
    """A MEET that was refused, could not connect, or had no answer in time (PROTOCOL 8)."""


class NotLinearizable(RaftError):
    """A barrier that no leader confirmed in time: a read now could be stale (PROTOCOL 5.6)."""


class StorageError(RaftError):
    """The folder can't be used: locked, not writable, full, failing, or damaged. The text names file and reason."""


class ConfigError(RaftError, ValueError):
    """A knob with a value outside what it takes; the text names the knob."""


class EntryError(RaftError, ValueError):
    """An entry of a wrong shape: unknown type, wrong fields, or too long (PROTOCOL 2)."""


class ProtocolError(RaftError, ValueError):
    """Bytes on the bus that are no message, or a message that can't be sent as bytes (PROTOCOL 1).

    `messages` are the whole messages that stood before the fault in what one `FrameDecoder.feed` was given; empty
    where anything else raised it.
    """

    messages: tuple[Message, ...] = ()


class ParseError(RaftError, ValueError):
    """A `nodes.conf` text that is refused.

    `lineno` is the 1-based physical line (0 where no single line is at fault), `reason` the cause.
    """

    def __init__(self, reason: str, lineno: int = 0) -> None:
        super().__init__(f"line {lineno}: {reason}" if lineno else reason)
        self.reason = reason
        self.lineno = lineno

    def __reduce__(self) -> tuple[type[ParseError], tuple[str, int]]:
        return type(self), (self.reason, self.lineno)


class SnapshotError(RaftError, ValueError):
    """A snapshot that is refused whole: nothing of it was taken (PROTOCOL 7)."""


class Compacted(RaftError, IndexError):
    """A log index at or below the boundary: the entry was dropped from the front."""


class Unavailable(RaftError, IndexError):
    """A log index past the end."""


class InvariantViolation(RaftError):
    """Something that Raft rules out was seen. The node stops rather than guess."""
