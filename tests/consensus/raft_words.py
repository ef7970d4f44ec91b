"""Messages and entries in a few words, for stories and traces."""

from __future__ import annotations

from typing import Any

from raftfast.messages import AppendEntriesAck


def brief(message: Any) -> str:
    """A message in a few words."""
    words = [type(message).__name__, f"term={getattr(message, 'term', '-')}"]
    if hasattr(message, "prev_log_index"):
        words += [f"prev={message.prev_log_index}/{message.prev_log_term}", f"commit={message.leader_commit}"]
    if hasattr(message, "last_log_index"):
        words.append(f"last={message.last_log_index}/{message.last_log_term}")
    if hasattr(message, "last_included_index"):
        words.append(f"last={message.last_included_index}/{message.last_included_term}")
    if hasattr(message, "granted"):
        words.append("granted" if message.granted else "denied")
    if isinstance(message, AppendEntriesAck):
        words.append(f"{'ok index' if message.success else 'no hint'}={message.index}")
    if getattr(message, "round", None) is not None:
        words.append(f"round={message.round}")
    if getattr(message, "transfer", False):
        words.append("transfer")
    lines: tuple[bytes, ...] = getattr(message, "lines", ())
    if len(lines) > 4:
        words.append(f"{short(lines[0])} .. {short(lines[-1])} ({len(lines)} entries)")
    elif lines:
        words.append(", ".join(map(short, lines)))
    return " ".join(words)


def short(line: bytes) -> str:
    """An entry's line without the words that all commands share."""
    return line.decode().replace(" APP - ", " ")
