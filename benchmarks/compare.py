"""The compiled leaves beside other packages that do the same work: msgspec, protobuf (upb), redis-py.

Run: python benchmarks/compare.py (pip install "raftfast[bench]" has them). The others read and write formats of their
own, which say the same; their schema is as cheap for them as it can be: one list of lines, one of terms.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation
from redis._parsers.helpers import parse_cluster_nodes

from cases import CALLS, LINE, THOUSAND_NODES, append_entries, filled, plain_nodes
from measuring import Case, measure, ratio, shown
from raftfast.hot import log_c, nodesconf_c, wire_c

FIELDS = ("leader_id", "term", "prev_log_index", "prev_log_term", "leader_commit", "terms", "lines", "round")


class AppendEntries(msgspec.Struct, frozen=True, array_like=True):  # type: ignore[call-arg]
    leader_id: str
    term: int
    prev_log_index: int
    prev_log_term: int
    leader_commit: int
    terms: tuple[int, ...]
    lines: tuple[bytes, ...]
    round: int | None = None


def protobuf_class() -> Any:
    """The class of the same message, its schema made here."""
    proto = descriptor_pb2.FileDescriptorProto(name="ae.proto", package="bench", syntax="proto3")
    kind = proto.message_type.add(name="AppendEntries")
    field = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(FIELDS, 1):
        many = name in ("terms", "lines")
        kind.field.add(
            name=name,
            number=number,
            type={"leader_id": field.TYPE_STRING, "lines": field.TYPE_BYTES}.get(name, field.TYPE_UINT64),
            label=field.LABEL_REPEATED if many else field.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.AppendEntries"))


def decoding() -> dict[str, Case]:
    message = append_entries(100)
    values = [getattr(message, name) for name in FIELDS]
    payload = wire_c.encode(message)[8:]
    packed = msgspec.msgpack.encode(AppendEntries(*values))
    decoder = msgspec.msgpack.Decoder(AppendEntries)
    kind = protobuf_class()
    proto = kind(**dict(zip(FIELDS, values, strict=True))).SerializeToString()
    assert decoder.decode(packed).lines == tuple(kind.FromString(proto).lines) == wire_c.decode(payload).lines

    def in_hand() -> tuple[list[int], list[bytes]]:
        found = kind.FromString(proto)
        return list(found.terms), list(found.lines)

    return {
        "raftfast": Case(partial(wire_c.decode, payload)),
        "msgspec": Case(partial(decoder.decode, packed)),
        f"protobuf ({api_implementation.Type()})": Case(in_hand),
    }


def encoding() -> dict[str, Case]:
    message = append_entries(100)
    log = log_c.RaftLog(100_000, 7)
    log.extend(message.terms, message.lines)
    values = {name: getattr(message, name) for name in FIELDS}
    struct, encoder, kind = AppendEntries(**values), msgspec.msgpack.Encoder(), protobuf_class()
    made = type(message)

    def from_the_log() -> bytes:
        terms, lines = log.entries(100_001, 100_101)
        return wire_c.encode(made(values["leader_id"], 7, 100_000, 7, 99_990, terms, lines, 77))

    return {
        "raftfast": Case(partial(wire_c.encode, message)),
        "raftfast, message and entries from the log too": Case(from_the_log),
        "msgspec": Case(partial(encoder.encode, struct)),
        f"protobuf ({api_implementation.Type()})": Case(lambda: kind(**values).SerializeToString()),
    }


def nodes() -> dict[str, Case]:
    """redis-py reads CLUSTER NODES, which has no aux fields; it keeps most columns as text, and checks nothing."""
    plain = plain_nodes()
    text = plain.decode()
    assert len(parse_cluster_nodes(text)) == len(nodesconf_c.parse(plain).nodes) == 1000
    return {
        "raftfast": Case(partial(nodesconf_c.parse, plain)),
        "raftfast, aux fields and all": Case(partial(nodesconf_c.parse, THOUSAND_NODES)),
        "redis-py": Case(partial(parse_cluster_nodes, text)),
    }


def appending() -> dict[str, Case]:
    """A list's `append` and `[i]` are no calls in CPython: a called method of a list stands beside them."""

    def append(made: Any) -> None:
        for _ in range(CALLS):
            made.append(7, LINE)

    def append_to_list(made: list[bytes]) -> None:
        for _ in range(CALLS):
            made.append(LINE)

    def insert_into_list(made: list[bytes]) -> None:
        for _ in range(CALLS):
            made.insert(1 << 20, LINE)

    return {
        "raftfast": Case(append, log_c.RaftLog, 4, CALLS),
        "list.append, no call": Case(append_to_list, list, 4, CALLS),
        "list.insert at the end, a call": Case(insert_into_list, list, 4, CALLS),
    }


def terms_at() -> dict[str, Case]:
    log, terms = filled(log_c), [7] * 10_000

    def term_at() -> None:
        for _ in range(CALLS):
            log.term_at(5_000)

    def item() -> None:
        for _ in range(CALLS):
            terms[5_000]

    def called_item() -> None:
        for _ in range(CALLS):
            terms.__getitem__(5_000)

    return {
        "raftfast": Case(term_at, per=CALLS),
        "list[i], no call": Case(item, per=CALLS),
        "list.__getitem__(i), a call": Case(called_item, per=CALLS),
    }


def main() -> None:
    for title, cases in (
        ("decode an AE of 100 entries of 64 bytes", decoding()),
        ("encode an AE of 100 entries of 64 bytes", encoding()),
        ("parse 1,000 nodes", nodes()),
        ("append", appending()),
        ("term_at", terms_at()),
    ):
        times = measure(cases)
        print(title)
        for name, each in times.items():
            print(f"  {name:48}{shown(each.least):>12}{ratio(each, times['raftfast']):>18}", flush=True)


if __name__ == "__main__":
    main()
