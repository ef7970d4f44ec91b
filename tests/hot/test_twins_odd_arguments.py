"""Each verb of each leaf with each odd value in the place of each of its arguments: both twins say the same.

Odd are subclasses (of int, bytes, str, tuple, list, dict), what looks like a number or a sequence without being one,
what lies about its length, buffers of every shape, and whatever else Python has. The same type and text of the error,
or the same result; and of a log the same content after it. Wrong values that have a meaning of their own (numbers out
of range, bad lines) stand in test_twins_log, test_twins_wire and test_twins_nodesconf.
"""

from __future__ import annotations

import array
import copy
import dataclasses
import enum
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wire_cases import VALID, message_of

from raftfast import messages
from raftfast.errors import ProtocolError
from raftfast.records import Address, NodeRecord, NodesConf
from twins import IMPLEMENTATIONS, leaf

pytestmark = pytest.mark.skipif(IMPLEMENTATIONS != ("c", "py"), reason="RAFTFAST_PURE_TESTS: there is one twin")


class Int(int):
    pass


class Flag(enum.IntEnum):
    ONE = 1


class Bytes(bytes):
    pass


class Bytearray(bytearray):
    pass


class Text(str):
    pass


class Pair(tuple):
    pass


class Items(list):
    pass


class Lying(list):
    """Says one thing of itself in C, another when it is asked."""

    def __iter__(self) -> Iterator[Any]:
        return iter([9, 9, 9])

    def __len__(self) -> int:
        return 1


class LyingPair(tuple):
    def __iter__(self) -> Iterator[Any]:
        return iter([b"x"] * 3)

    def __len__(self) -> int:
        return 7


class Mapping(dict):
    pass


class Number:
    def __index__(self) -> int:
        return 1


class Sequence:
    """Says that it is longer than it is."""

    def __getitem__(self, at: int) -> bytes:
        if at < 1:
            return b"1 NOOP"
        raise IndexError

    def __len__(self) -> int:
        return 5


class Failing:
    def __iter__(self) -> Iterator[Any]:
        raise KeyError("of its own")


class Convertible:
    def __bytes__(self) -> bytes:
        return b"RAFT"


class EqualToAll:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "EqualToAll()"


ODD: list[Any] = [
    *(Int(5), Flag.ONE, Number(), True, 1.5, 1j, float("nan"), -1, 10**5000),
    *(Bytes(b"1 NOOP"), Bytearray(b"RAFT"), b"x", b"", Convertible(), Text("x"), "x"),
    *(array.array("H", [1, 2]), array.array("B", b"RAFT"), mmap.mmap(-1, 10)),
    *(memoryview(b"RAFT").cast("B", (2, 2)), memoryview(b"RAFTxxxx").cast("Q"), memoryview(b"RAFT")[::2]),
    *(Pair((1,)), Items([1]), Lying([1]), LyingPair((b"1 NOOP",)), Sequence(), Failing(), (), [], range(3)),
    *(Mapping(), {}, set(), EqualToAll(), None, object(), type, len, ...),
]


def nested(*shapes: Callable[[Any], Any]) -> list[Any]:
    """The odd values, and each in each shape."""
    return [*ODD, *(shape(odd) for shape in shapes for odd in ODD)]


def outcome(call: Callable[..., Any], *arguments: Any) -> str:
    try:
        return repr(call(*arguments))
    except Exception as error:
        return f"{type(error).__name__} {error} {getattr(error, 'lineno', None)}"


def shown(*values: Any) -> str:
    try:
        return repr(values)
    except ValueError:  # of an int that is too long to be written
        return "a huge int"


def altered(record: Any, **changes: Any) -> Any:
    """A copy with fields that the class itself would refuse or change."""
    changed = copy.copy(record)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return changed


def each_argument(calls: dict[str, list[Any]], values: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    for verb, good in calls.items():
        for at in range(len(good)):
            for value in values:
                yield verb, [*good[:at], value, *good[at + 1 :]]


LOG_CALLS = {
    "append": [9, b"x"],
    "extend": [[9], [b"x"]],
    "line": [13],
    "term_at": [13],
    "lines": [12, 13, 5],
    "entries": [12, 13, 5],
    "membership_lines": [12, 13],
    "truncate_from": [13],
    "trim_to": [12],
    "reset": [3, 3],
    "matches": [12, 4],
    "merge": [13, [9], [b"x"], 0],
    "hint": [13, 4],
    "__init__": [3, 3],
}


def test_log() -> None:
    for verb, arguments in each_argument(LOG_CALLS, nested(lambda odd: [odd], lambda odd: (odd,))):
        given = []
        for impl in IMPLEMENTATIONS:
            log = leaf(impl, "log").RaftLog(10, 3)
            log.extend([4, 4, 6], [b"4 NOOP", b"4 NODE_JOIN a", b"6 APP - x"])
            said = outcome(getattr(log, verb), *arguments)
            log.check()
            given.append((said, repr(log), log.entries(log.first_index, log.last_index + 1)))
        assert given[0] == given[1], (verb, shown(*arguments))


def same_of(name: str) -> Callable[..., str]:
    """Compares what both twins of a leaf say."""
    compiled, pure = (leaf(impl, name) for impl in IMPLEMENTATIONS)

    def same(verb: str, *arguments: Any) -> str:
        one, other = (outcome(getattr(twin, verb), *arguments) for twin in (compiled, pure))
        assert one == other, (verb, shown(*arguments))
        return one

    return same


def test_wire_arguments() -> None:
    same = same_of("wire")
    decoders = [leaf(impl, "wire").FrameDecoder for impl in IMPLEMENTATIONS]
    for odd in nested(lambda odd: [odd]):
        same("decode", odd)
        same("encode", odd)
        fed, made = ([outcome(call, odd) for call in calls] for calls in ([d().feed for d in decoders], decoders))
        assert fed[0] == fed[1], shown(odd)
        assert made[0] == made[1] or all("FrameDecoder object at" in each for each in made), shown(odd)


MESSAGES = {type(message): message for message in map(message_of, VALID)}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_wire_fields(kind: type[messages.Message]) -> None:
    same, message = same_of("wire"), MESSAGES[kind]
    shapes = [
        lambda odd: (odd,),
        lambda odd: (odd, odd),
        lambda odd: ((odd,),),
        lambda odd: ((odd, 1),),
        lambda odd: (("a1" * 20, odd),),
        lambda odd: ((odd, odd, odd),),
    ]
    for name in message.__slots__:
        for value in nested(*shapes):
            said = same("encode", altered(message, **{name: value}))
            assert said.startswith((ProtocolError.__name__, "b'RAFT")), (name, shown(value))
    same("encode", object.__new__(kind))
    same("encode", object.__new__(type("Below", (kind,), {})))


NODE = b"a" * 40 + b" 127.0.0.1:7000@17000,h,nodename=x myself,master - 0 0 1 connected 0-5"
CONF_CALLS: dict[str, list[Any]] = {
    "crc64": [b"abc", 5],
    "log_line": [1, b"1 NOOP"],
    "log_lines": [1, [b"1 NOOP"]],
    "appended_vars": [1, "a" * 40, 0],
    "parse": [b"x"],
    "parse_node_line": [NODE],
    "parse_address": ["127.0.0.1:1"],
    "format_address": [Address("a", 1, 2)],
    "format_node_line": [NodeRecord("a" * 40)],
    "dump": [NodesConf()],
}


def test_nodesconf_arguments() -> None:
    same = same_of("nodesconf")
    for verb, arguments in each_argument(CONF_CALLS, nested(lambda odd: [odd], lambda odd: (odd,))):
        same(verb, *arguments)
    for data in (NODE, NODE + b"\n", NODE + b"\nvars currentTerm 5\n", b"x", b""):
        same("parse", Bytes(data))
        same("parse_node_line", Bytes(data))


RECORD_EXTRAS: list[Any] = [
    *((Pair((Pair((1, 2)),)),), (Items((1, 2)),), (Text("master"),), Pair(("master",))),
    *(Mapping(nodename="x"), {Text("nodename"): "x"}, {"nodename": Text("x")}, {"tls-port": Text("7")}),
]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(NodeRecord)])
def test_nodesconf_records(field: str) -> None:
    same, good = same_of("nodesconf"), leaf("py", "nodesconf").parse_node_line(NODE)
    shapes = [
        lambda odd: (odd,),
        lambda odd: ((odd, 1),),
        lambda odd: ((1, odd),),
        lambda odd: ((odd, odd, odd),),
        lambda odd: ((odd,),),
        lambda odd: {"nodename": odd},
    ]
    for value in [*nested(*shapes), *RECORD_EXTRAS]:
        record = altered(good, **{field: value})
        same("format_node_line", record)
        same("format_address", record)
        same("dump", NodesConf((record,)))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(NodesConf)])
def test_nodesconf_files(field: str) -> None:
    same = same_of("nodesconf")
    conf = NodesConf((leaf("py", "nodesconf").parse_node_line(NODE),), {"currentTerm": 5}, ((1, 1, b"1 NOOP"),))
    shapes = [
        lambda odd: (odd,),
        lambda odd: ((1, 1, odd),),
        lambda odd: ((odd, 1, b"1 NOOP"),),
        lambda odd: ((1, odd, b"1 NOOP"),),
        lambda odd: {"currentTerm": odd},
        lambda odd: {"votedFor": odd, "currentTerm": 1},
    ]
    for value in [*nested(*shapes), *({key: 1} for key in ("x", 5, None, b"x", Text("currentTerm")))]:
        same("dump", altered(conf, **{field: value}))
