"""Text for a terminal that came from elsewhere: on one line, with nothing in it that a terminal would obey.

Floor 6.
"""

from __future__ import annotations

__all__ = ["one_line", "printable"]


def printable(text: str) -> str:
    """`text` with every character that is no printable one as a backslash escape; a blank stays a blank.

    Bytes that were no UTF-8 (surrogate escapes) come out as `\\xNN`.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def one_line(text: str) -> str:
    """`text` on one line: runs of white space are one blank, all else as `printable` has it."""
    return printable(" ".join(text.split()))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode() if code > 0x7F else f"\\x{code:02x}"
