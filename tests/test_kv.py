"""The key-value store as a state machine: commands, determinism, snapshots, globs, cursors."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from raftfast.cluster.keyslot import key_slot
from raftfast.errors import RaftError, SnapshotError
from raftfast.kv import KeyValueStore, ReplyError, decode_command, decode_result, encode_command


def store_of(**values: bytes) -> KeyValueStore:
    store = KeyValueStore()
    for key, value in values.items():
        store.apply(1, encode_command("SET", key, value))
    return store


def test_the_example_in_the_docstring():
    store = KeyValueStore()
    assert decode_result(store.apply(1, encode_command("SET", "key", b"value"))) == "OK"
    assert decode_result(store.apply(2, encode_command("SET", "key", "new", "GET"))) == b"value"
    assert decode_result(store.apply(3, encode_command("INCRBY", "n", 5))) == 5
    assert decode_result(store.apply(4, encode_command("GETSET", "nope", ""))) is None
    with pytest.raises(ReplyError, match=r"^value is not an integer or out of range$"):
        decode_result(store.apply(5, encode_command("INCR", "key")))
    assert issubclass(ReplyError, RaftError)
    assert store.get(b"key") == b"new"
    assert store.size == 3
    assert store  # or `if state_machine:` would be a trap when it is empty
    assert KeyValueStore()


@given(st.lists(st.binary(max_size=300)))
def test_commands_survive_their_encoding(arguments):
    command = encode_command(*arguments)
    assert decode_command(command) == arguments
    assert b"\n" not in command or any(b"\n" in argument for argument in arguments)
    assert KeyValueStore().encode([b"SET", b"k", b"v"]) == encode_command("SET", "k", "v")


@pytest.mark.parametrize("argument", [None, 1.5, True, bytearray(b"x"), ["a"]])
def test_arguments_of_other_types_are_refused(argument):
    with pytest.raises(TypeError, match="must be bytes, str or int"):
        encode_command("SET", argument)


@pytest.mark.parametrize(
    "command",
    [b"", b"x", b"3:SE", b"03:SET1:a1:b", b"+3:SET", b"-1:", b"1_0:abcdefghij", b":", "³:SET".encode(), b"3:SET1:a1:bx",
     b"3:SET99999999999999999999:a", b"3:FOO", b"3:SET1:a", b"3:SET1:a1:b2:EX", b"4:INCR", b"6:INCRBY1:n1:x",
     b"6:DECRBY1:n20:-9223372036854775808", b"8:FLUSHALL3:NOW", b"4:MSET1:a1:b1:c", b"3:GET1:a"],
)  # fmt: skip
def test_whatever_is_proposed_apply_answers_and_a_refusal_changes_nothing(command):
    store = store_of(a=b"1", n=b"2")
    before = store.digest()
    with pytest.raises(ReplyError):
        decode_result(store.apply(9, command))
    assert store.digest() == before


@given(st.binary(max_size=60))
def test_any_bytes_at_all_are_answered(command):
    store = KeyValueStore()
    result = store.apply(1, command)
    assert result.endswith(b"\r\n")
    assert b"\r\n" not in result[1:-2] or result.startswith(b"$")
    store.check()


@pytest.mark.parametrize("result", [None, b"", b"+OK", b"$3\r\nab\r\n", b"?\r\n", b"$x\r\nab\r\n"])
def test_what_is_no_result_is_refused(result):
    with pytest.raises(ValueError, match=r"no result|length"):
        decode_result(result)


def test_encode_refuses_before_the_log_what_apply_would_refuse_after():
    store = KeyValueStore()
    for line in (
        "SET a",
        "SET a 1 EX 1",
        "INCRBY a x",
        "MSET a 1 b",
        "DECRBY a -9223372036854775808",
        "GET a",
        "NOPE",
        "",
    ):
        arguments = line.encode().split()
        with pytest.raises(ReplyError) as refusal:
            store.encode(arguments)
        with pytest.raises(ReplyError, match=f"^{re.escape(str(refusal.value))}$"):
            decode_result(store.apply(1, encode_command(*arguments)))


# -- against a model -----------------------------------------------------------------------------------------------

KEYS = st.sampled_from([b"", b"a", b"b", b"{a}x", b"\n:3", b"\xff"])
VALUES = st.one_of(st.binary(max_size=20), st.integers(-3, 3).map(lambda number: b"%d" % number))


class StoreAgainstADict(RuleBasedStateMachine):
    """The store, a second one that also has an index, and a dict with the obvious code."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.indexed = KeyValueStore(), KeyValueStore()
        self.model: dict[bytes, bytes] = {}
        self.indexed.keys_in_slot(0)

    def both(self, *arguments: bytes):
        result = self.store.apply(1, encode_command(*arguments))
        assert self.indexed.apply(1, encode_command(*arguments)) == result
        return decode_result(result)

    @rule(key=KEYS, value=VALUES, condition=st.sampled_from([b"", b"NX", b"xx"]), get=st.booleans())
    def set(self, key, value, condition, get):
        old = self.model.get(key)
        options = [option for option in (condition, b"get" if get else b"") if option]
        result = self.both(b"SET", key, value, *options)
        met = {b"": True, b"NX": old is None, b"xx": old is not None}[condition]
        assert result == (old if get else "OK" if met else None)
        if met:
            self.model[key] = value

    @rule(key=KEYS, value=VALUES)
    def getset(self, key, value):
        assert self.both(b"GETSET", key, value) == self.model.get(key)
        self.model[key] = value

    @rule(keys=st.lists(KEYS, min_size=1, max_size=3))
    def delete(self, keys):
        assert self.both(b"DEL", *keys) == len(set(keys) & set(self.model))
        for key in keys:
            self.model.pop(key, None)

    @rule(key=KEYS, tail=VALUES)
    def append(self, key, tail):
        self.model[key] = self.model.get(key, b"") + tail
        assert self.both(b"APPEND", key, tail) == len(self.model[key])

    @rule(
        key=KEYS, amount=st.one_of(st.integers(-5, 5), st.integers(-(1 << 63) + 1, (1 << 63) - 1)), down=st.booleans()
    )
    def add(self, key, amount, down):
        old = self.model.get(key, b"0")
        number = int(old) if re.fullmatch(rb"0|-?[1-9][0-9]*", old) else None
        total = None if number is None else number + (-amount if down else amount)
        arguments = (b"DECRBY" if down else b"INCRBY", key, b"%d" % amount)
        if total is None or number is None or not all(-(1 << 63) <= each < 1 << 63 for each in (number, total)):
            with pytest.raises(ReplyError, match=r"integer|overflow"):
                self.both(*arguments)
        else:
            assert self.both(*arguments) == total
            self.model[key] = b"%d" % total

    @rule(pairs=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=4))
    def mset(self, pairs):
        assert self.both(b"MSET", *(each for pair in pairs for each in pair)) == "OK"
        self.model.update(pairs)

    @rule()
    def flush(self):
        assert self.both(b"FLUSHALL") == "OK"
        self.model.clear()
        self.indexed.keys_in_slot(0)

    @rule(cut=st.integers(0, 100))
    def restart_from_a_snapshot(self, cut):
        data = b"".join(self.store.snapshot())
        restored = KeyValueStore()
        restored.restore(iter([data[:cut], data[cut:]]))
        assert b"".join(restored.snapshot()) == data
        self.store = restored
        self.indexed.apply(1, encode_command("SET", "gone", "1"))
        self.indexed.restore([data])
        self.indexed.check()

    @invariant()
    def same(self):
        assert sorted(self.store.keys()) == sorted(self.model)
        assert all(self.store.get(key) == value for key, value in self.model.items())
        assert self.store.digest() == self.indexed.digest()
        assert self.store.size == len(self.model)
        for slot in {key_slot(key) for key in self.model} | {0}:
            assert set(self.indexed.keys_in_slot(slot)) == {key for key in self.model if key_slot(key) == slot}
        self.store.check()
        self.indexed.check()


StoreAgainstADict.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestStoreAgainstADict = StoreAgainstADict.TestCase


# -- snapshots -----------------------------------------------------------------------------------------------------


def test_a_snapshot_does_not_see_what_is_applied_after_it_began():
    store = store_of(**{f"k{number}": b"v" * 1000 for number in range(1000)})
    before, taken = store.digest(), store.snapshot()
    pieces = [next(taken)]
    store.apply(1, encode_command("SET", "k999", "new"))
    store.apply(2, encode_command("DEL", "k500"))
    store.apply(3, encode_command("SET", "z", "new"))
    store.apply(4, encode_command("FLUSHALL"))
    pieces += taken
    assert len(pieces) > 2
    assert max(map(len, pieces)) < 300 << 10
    restored = KeyValueStore()
    restored.restore(pieces)
    assert restored.digest() == before


def test_snapshots_that_overlap_hold_each_its_own_state():
    store = store_of(**{f"k{number}": b"0" for number in range(100)})
    taken = []
    for number in range(3):
        digest, snapshot = store.digest(), store.snapshot()
        store.apply(1, encode_command("MSET", *(each for key in range(number, 100, 3) for each in (f"k{key}", 7))))
        taken.append((digest, snapshot))
    for digest, snapshot in reversed(taken):
        restored = KeyValueStore()
        restored.restore(snapshot)
        assert restored.digest() == digest
    assert len({digest for digest, _ in taken}) == 3


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_a_snapshot_is_read_however_it_is_cut(size):
    store = store_of(a=b"", b=b"x" * 100_000, c=b"1:a1:1\n" * 3, **{f"k{number}": b"v" for number in range(100)})
    data = b"".join(store.snapshot())
    restored = KeyValueStore()
    restored.restore(data[start : start + size] for start in range(0, len(data), size))
    assert restored.digest() == store.digest()
    assert restored.get(b"b") == b"x" * 100_000
    restored.check()


def test_no_step_goes_over_all_keys_at_once():
    """In one such step of the interpreter no other thread runs: the event loop would stand still for so long."""
    store = store_of(**{f"k{number}": b"v" for number in range(50_000)})
    sizes = [len(part) for part in store._values._parts]
    assert sum(sizes) == 50_000
    assert max(sizes) < 150


def test_equal_states_have_equal_bytes_whatever_their_history():
    first = store_of(a=b"1", b=b"2", c=b"3")
    second = store_of(c=b"0", x=b"9", b=b"2", a=b"1")
    second.apply(1, encode_command("DEL", "x"))
    assert first.digest() != second.digest()
    second.apply(2, encode_command("SET", "c", "3"))
    assert b"".join(first.snapshot()) == b"".join(second.snapshot())
    assert first.digest() == second.digest()
    assert re.fullmatch("[0-9a-f]{40}", first.digest())


def test_a_damaged_snapshot_is_refused_whole():
    good = b"".join(store_of(a=b"1", b=b"2").snapshot())
    assert good in (b"kv 1 2\n1:a1:11:b1:2", b"kv 1 2\n1:b1:21:a1:1")
    bad = [
        b"kv 2 2\n" + good[7:], b"kv 1 3\n" + good[7:], b"kv 1 1\n" + good[7:], b"kv 1 02\n" + good[7:], b"kv 1 2",
        good + b"x", good + b"1:c", b"kv 1 2\n1:a1:11:a1:2", b"kv 1 0\n1:a1:1", b"kv 1 -1\n", b"kv 1 99\n", b"kv 2 2\n",
        good + b"x" * 20, b"kv 1 1\n1:a01:1", b"kv 1 1\n1:a99:1",
        *(good[:end] for end in range(1, len(good))),
    ]  # fmt: skip
    for data in bad:
        store = store_of(old=b"state")
        with pytest.raises(SnapshotError):
            store.restore([data])
        assert store.get(b"old") == b"state"
        assert store.size == 1
    store = store_of(old=b"state")
    store.restore([good])
    assert store.size == 2
    store.restore([b"kv 1 0\n"])
    assert store.size == 0
    store.restore([good])
    store.restore([])  # a node that is reset
    assert store.size == 0


def test_a_snapshot_that_breaks_off_keeps_the_old_state():
    def broken():
        yield b"kv 1 2\n1:a1:1"
        raise OSError("disk")

    store = store_of(old=b"state")
    with pytest.raises(OSError, match="disk"):
        store.restore(broken())
    assert store.get(b"old") == b"state"


def test_values_have_an_end(monkeypatch):
    monkeypatch.setattr("raftfast.kv.MAX_VALUE_BYTES", 5)
    store = store_of(a=b"1234")
    assert decode_result(store.apply(1, encode_command("APPEND", "a", "5"))) == 5
    with pytest.raises(ReplyError, match="exceeds maximum allowed size"):
        decode_result(store.apply(1, encode_command("APPEND", "a", "6")))


# -- globs and cursors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"*", [b"", b"a", b"\n"], []),
        (b"", [b""], [b"a"]),
        (b"a?c", [b"abc", b"a\nc", b"a\xffc"], [b"ac", b"abbc"]),
        (b"a*c", [b"ac", b"abbc", b"acc"], [b"acb"]),
        (b"*a*b*", [b"ab", b"xaxbx", b"aab"], [b"ba"]),
        (b"a**b", [b"ab", b"axb"], [b"a"]),
        (b"*ab", [b"ab", b"abab"], [b"aba"]),
        (b"[abc]", [b"a", b"c"], [b"d", b""]),
        (b"[^abc]", [b"d", b"\n"], [b"a", b""]),
        (b"[a-c]x", [b"ax", b"cx"], [b"dx"]),
        (b"[c-a]", [b"b"], [b"d"]),
        (b"[a\\]]", [b"a", b"]"], [b"\\"]),
        (b"[a-]", [b"a", b"]", b"_"], [b"-", b"b"]),
        (b"[a", [b"a"], [b"[a"]),
        (b"[]x", [], [b"x", b"]x", b"]"]),
        (b"\\*", [b"*"], [b"a", b"\\*"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"h[.]+(x|y)$", [b"h.+(x|y)$"], [b"hx"]),
        (b"\xff*", [b"\xffa"], [b"a\xff"]),
    ],
)
def test_globs_match_as_in_redis(pattern, yes, no):
    store = KeyValueStore()
    for key in (*yes, *no):
        store.apply(1, encode_command("SET", key, "1"))
    assert sorted(store.keys(pattern)) == sorted(yes)


@given(st.text("ab*?", max_size=8), st.lists(st.text("ab", max_size=6), max_size=5))
def test_globs_match_as_fnmatch_does_where_both_speak_the_same(pattern, keys):
    store = KeyValueStore()
    for key in keys:
        store.apply(1, encode_command("SET", key, "1"))
    expected = sorted(key.encode() for key in set(keys) if fnmatch.fnmatchcase(key, pattern))
    assert sorted(store.keys(pattern.encode())) == expected


def test_a_glob_of_many_stars_does_not_blow_up():
    store = store_of(**{"a" * 5000: b"1"})
    assert store.keys(b"*a" * 30 + b"b") == []  # never comes back where each star may try each place


def scan_all(store: KeyValueStore, count: int, between=lambda: None) -> list[bytes]:
    cursor, found = 0, []
    while True:
        cursor, keys = store.scan(cursor, b"*", count)
        found += keys
        between()
        if cursor == 0:
            return found


@pytest.mark.parametrize("count", [1, 7, 100, 10_000])
def test_a_scan_gives_every_key_once(count):
    store = store_of(**{f"k{number}": b"" for number in range(500)})
    for number in range(100):
        store.apply(1, encode_command("SET", f"{{tag}}{number}", ""))
    assert sorted(scan_all(store, count)) == sorted(store.keys())
    restored = KeyValueStore()
    restored.restore(store.snapshot())
    cursor, first = store.scan(0, b"*", 250)
    rest = []
    while cursor:
        cursor, keys = restored.scan(cursor, b"*", 250)  # a cursor holds on another member
        rest += keys
    assert sorted(first + rest) == sorted(store.keys())


def test_a_scan_gives_what_stays_whatever_comes_and_goes():
    store = store_of(**{f"stays{number}": b"" for number in range(200)})
    for number in range(200):
        store.apply(1, encode_command("SET", f"goes{number}", ""))
    turn = iter(range(1000))

    def change() -> None:
        number = next(turn)
        store.apply(1, encode_command("DEL", f"goes{number}"))
        store.apply(1, encode_command("SET", f"comes{number}", ""))

    found = scan_all(store, 10, change)
    stayed = [key for key in found if key.startswith(b"stays")]
    assert sorted(stayed) == sorted(f"stays{number}".encode() for number in range(200))
    assert len(set(found)) == len(found)
    store.check()


def test_keys_of_one_tag_come_in_parts_too():
    store = store_of(**{f"{{t}}{number}": b"" for number in range(1000)})
    assert len(store.scan(0, b"*", 10)[1]) < 20
    assert len(store.keys_in_slot(key_slot(b"t"))) == 1000


def test_slots_of_keys():
    assert key_slot(b"123456789") == 0x31C3
    assert key_slot(b"foo{bar}") == key_slot(b"bar") == 5061
    assert key_slot(b"foo{}{bar}") == 8363
    assert key_slot(b"foo{{bar}}zap") == key_slot(b"{bar")
    assert key_slot(b"") == 0
