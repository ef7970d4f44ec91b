"""Records of node lines, good and bad, what a good one is once it was written and read; files sealed anew."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from hypothesis import strategies as st

from raftfast.hot import nodesconf_py
from raftfast.records import NodeRecord

ID, OTHER, SHARD = "a1" * 20, "b2" * 20, "c3" * 20

BAD_RECORDS = [
    {"id": "short"},
    {"ip": "a b"},
    {"ip": "a,b"},
    {"ip": "a\nb"},
    {"ip": 'a"b'},
    {"ip": "x" * 46},
    {"ip": "é" * 23},
    {"ip": "\ud800"},
    {"hostname": "a b"},
    {"hostname": "a,b"},
    {"hostname": "a\x00"},
    {"port": -1},
    {"port": 65536},
    {"cport": 65536},
    {"aux": {"nodename": "a b"}},
    {"aux": {"nodename": "a,b=c"}},
    {"aux": {"": "x"}},
    {"aux": {"a=b": "x"}},
    {"aux": {"tls-port": "x"}},
    {"aux": {"shard-id": "x"}},
    {"flags": ("frobnicate",)},
    {"flags": ("meet",)},
    {"flags": ("MASTER",)},
    {"flags": ("master,slave",)},
    {"primary_id": "-"},
    {"primary_id": ""},
    {"ping_sent": -1},
    {"pong_recv": 1 << 64},
    {"epoch": 1 << 64},
    {"slots": ((5, 4),)},
    {"slots": ((0, 16384),)},
    {"slots": ((-1, 3),)},
    {"migrating": ((16384, ID),)},
    {"migrating": ((1, "short"),)},
    {"importing": ((-1, ID),)},
    {"importing": ((1, ID + "]"),)},
]
"""Changes of a sound record that no line can say: ParseError."""

WRONG_TYPES = [
    {"id": ID.encode()},
    {"ip": None},
    {"port": "7000"},
    {"port": True},
    {"cport": 1.0},
    {"aux": {"nodename": 1}},
    {"epoch": None},
    {"slots": ((True, 2),)},
    {"slots": ((1, "2"),)},
    {"flags": (1,)},
    {"primary_id": 5},
    {"migrating": ((1, None),)},
]
"""Changes of a sound record that are no values of a record at all: TypeError."""

ORDER = ["myself", "master", "slave", "fail?", "fail", "handshake", "noaddr", "nofailover", "learner"]

ids = st.text("abcdefxyz0123456789", min_size=40, max_size=40)
ports = st.integers(0, 65535)
u64 = st.integers(0, (1 << 64) - 1)
slot = st.integers(0, 16383)
aux_text = st.text("abcXYZ019-./:_`é漢", max_size=8)
words = st.text("abc019.:-_=é\udcff/@[]", max_size=12)
aux = st.dictionaries(
    st.sampled_from(["availability-zone", "nodename", "color", "x", "é"]), aux_text, max_size=4
) | st.fixed_dictionaries({"tls-port": ports.map(str), "shard-id": ids}, optional={"nodename": aux_text})
flags = st.sets(st.sampled_from(ORDER), max_size=4).map(lambda names: tuple(sorted(names)))
open_slots = st.lists(st.tuples(slot, ids), max_size=3).map(tuple)
records = st.builds(
    NodeRecord,
    id=ids,
    ip=words,
    port=ports,
    cport=ports,
    hostname=words,
    aux=aux,
    flags=flags,
    primary_id=st.none() | ids,
    ping_sent=u64,
    pong_recv=u64,
    epoch=u64,
    connected=st.booleans(),
    slots=st.lists(st.tuples(slot, slot).map(lambda pair: tuple(sorted(pair))), max_size=4).map(tuple),
    migrating=open_slots,
    importing=open_slots,
)


def canonical(node: NodeRecord) -> NodeRecord:
    """What a record is after it was written and read, by the plainest means."""
    owned = sorted({s for first, last in node.slots for s in range(first, last + 1)})
    ranges: list[list[int]] = []
    for s in owned:
        if ranges and ranges[-1][1] == s - 1:
            ranges[-1][1] = s
        else:
            ranges.append([s, s])
    names = set(node.flags) | ({"fail"} if "noaddr" in node.flags else set())
    migrating = dict(node.migrating)
    importing = {s: i for s, i in dict(node.importing).items() if s not in migrating}
    return dataclasses.replace(
        node,
        flags=tuple(name for name in ORDER if name in names),
        epoch=0 if node.primary_id and "slave" in names else node.epoch,
        slots=tuple((a, b) for a, b in ranges),
        migrating=tuple(sorted(migrating.items())),
        importing=tuple(sorted(importing.items())),
    )


def resealed(data: bytes, crc64: Callable[..., int] = nodesconf_py.crc64) -> bytes:
    """`data` with the checksums of its crc and log lines made right."""
    sealed, running = [], 0
    for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
        if re.match(rb"log [0-9a-f]{16} ", line):
            line = b"log %016x %b" % (crc64(line[21:].rstrip(b"\n")), line[21:])
        elif re.match(rb"crc [0-9a-f]{16}\n", line):
            line = b"crc %016x\n" % running
        sealed.append(line)
        if line.strip(b"\0\n"):
            running = crc64(line, running)
    return b"".join(sealed)
