"""Which hash slot a key belongs to: the one place that knows (NODESCONF 3.2, KEYSLOT).

Floor 2, pure. Never here: who owns a slot (that is `state`).
"""

from __future__ import annotations

import binascii

from ..records import SLOTS

__all__ = ["key_slot"]


def key_slot(key: bytes) -> int:
    """The slot of `key`: CRC16/XMODEM modulo 16384, of the key's hash tag where it has one.

    The tag is what stands between the first `{` and the next `}`, if that is not empty.
    """
    opened = key.find(b"{")
    if opened >= 0:
        closed = key.find(b"}", opened + 1)
        if closed > opened + 1:
            key = key[opened + 1 : closed]
    return binascii.crc_hqx(key, 0) % SLOTS
