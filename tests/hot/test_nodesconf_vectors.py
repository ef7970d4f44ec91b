"""The vectors of `tests/vectors/nodesconf`, through both twins. Where NODESCONF A decides otherwise, A wins."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from raftfast.records import NodesConf

FOLDER = Path(__file__).resolve().parents[1] / "vectors" / "nodesconf"
NAMES = sorted(path.stem for path in FOLDER.glob("*.conf"))

# NODESCONF A keeps unknown aux fields; the reference refuses them.
LOADS_HERE = {"x24_unknown_aux"}


def vector(name: str) -> tuple[bytes, dict]:
    return (FOLDER / f"{name}.conf").read_bytes(), json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def slots_text(node) -> str:
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in node.slots)


def slots_count(node) -> int:
    return sum(b - a + 1 for a, b in node.slots)


def test_all_vectors_are_here():
    assert len(NAMES) == 22
    for name in NAMES:
        data, facts = vector(name)
        assert hashlib.sha256(data).hexdigest() == facts["sha256"]


@pytest.mark.parametrize("name", [n for n in NAMES if vector(n)[1]["outcome"] == "fatal" and n not in LOADS_HERE])
def test_refused(nodesconf, name):
    data, facts = vector(name)
    with pytest.raises(nodesconf.ParseError) as caught:
        nodesconf.parse(data)
    assert caught.value.lineno == facts.get("line", 0)
    if facts["error"] == "log-index-gap":
        assert f"expected {facts['expected_index']}, got {facts['got_index']}" in caught.value.reason


def test_fresh(nodesconf):
    data, facts = vector("x27_empty_file")
    assert facts["outcome"] == "fresh"
    assert nodesconf.parse(data) == NodesConf()


@pytest.mark.parametrize("name", [n for n in NAMES if vector(n)[1]["outcome"] == "load"])
def test_loaded(nodesconf, name):
    data, facts = vector(name)
    conf = nodesconf.parse(data)
    nodes = {node.id: node for node in conf.nodes}
    assert len(nodes) == len(conf.nodes) == facts["known_nodes"]
    assert sum(map(slots_count, conf.nodes)) == facts["slots_assigned"]
    assert [node.id for node in conf.nodes if "myself" in node.flags] == [facts["myself"]]
    for node_id, wanted in facts["nodes"].items():
        wanted = wanted | facts.get("overrides", {}).get(node_id, {})
        node = nodes[node_id]
        assert (node.ip, node.port, node.cport) == (wanted["ip"], wanted["port"], wanted["cport"])
        assert (node.hostname, node.aux) == (wanted["hostname"], wanted["aux"])
        assert (node.primary_id, node.epoch) == (wanted["primary"], wanted["epoch"])
        assert list(node.flags) == wanted["flags"]
        assert (slots_text(node), slots_count(node)) == (wanted["slots"], wanted["numslots"])
    known = {name: value for name, value in conf.vars.items() if name not in facts.get("skipped_vars", ())}
    assert known == facts["vars"]
    assert set(conf.vars) - set(known) == set(facts.get("skipped_vars", ()))
    if "listing_sha256" in facts:
        lines = (f"{n.id} {n.primary_id or '-'} {slots_text(n)}\n" for n in sorted(conf.nodes, key=lambda n: n.id))
        assert hashlib.sha256("".join(lines).encode()).hexdigest() == facts["listing_sha256"]


@pytest.mark.parametrize("name", [n for n in NAMES if "log" in vector(n)[1]])
def test_log(nodesconf, name):
    data, facts = vector(name)
    conf = nodesconf.parse(data)
    wanted = [
        (e["index"], e["term"], f"{e['term']} {e['type']}{' ' if e['data'] else ''}{e['data']}".encode())
        for e in facts["log"]
    ]
    assert list(conf.entries) == wanted
    assert bool(conf.torn_tail) == facts.get("discarded_tail", False)
    assert data.endswith(conf.torn_tail)
    epochs: dict[str, int] = {}
    for node in conf.nodes:
        shard = node.aux["shard-id"]
        epochs[shard] = max(node.epoch, epochs.get(shard, 0))
    assert {shard: epoch for shard, epoch in epochs.items() if epoch} == facts["shard_epochs"]


def test_warnings(nodesconf):
    def warned(name: str) -> tuple[str, ...]:
        return nodesconf.parse(vector(name)[0]).warnings

    assert warned("05_raft_full") == warned("x14_raft_no_final_newline") == ()
    assert len(warned("06_raft_torn_last_line")) == 1
    assert [("crc" in text, "log lines" in text) for text in warned("x11_raft_zero_checksums")] == [
        (True, False),
        (False, True),
    ]


def test_open_slots(nodesconf):
    data, facts = vector("02_fragmented_migrating")
    conf = nodesconf.parse(data)
    (myself,) = (node for node in conf.nodes if node.id == facts["myself"])
    assert myself.migrating
    assert myself.importing
    text = data.decode()
    for slot, node_id in myself.migrating:
        assert f"[{slot}->-{node_id}]" in text
    for slot, node_id in myself.importing:
        assert f"[{slot}-<-{node_id}]" in text


def test_an_unknown_aux_field_is_kept_and_written_back(nodesconf):
    conf = nodesconf.parse(vector("x24_unknown_aux")[0])
    assert conf.nodes[1].aux["color"] == "blue"
    assert b",color=blue " in nodesconf.dump(conf)


@pytest.mark.parametrize("name", ["04_hostnames_nodename_az", "05_raft_full", "09_thousand_nodes", "03_ipv6"])
def test_written_lines_are_those_of_the_file(nodesconf, name):
    data, _ = vector(name)
    written = nodesconf.dump(nodesconf.parse(data)).splitlines()
    nodes = [line for line in data.splitlines() if line[:4] not in (b"vars", b"crc ", b"log ")]
    if name == "04_hostnames_nodename_az":  # its last line has the aux fields in another order
        nodes = [line for line in nodes if not line.startswith(b"d4fab711")]
    if name == "03_ipv6":  # the reference writes no ping times of its own, but keeps other columns
        assert len(written) == len(data.splitlines())
    assert set(nodes) <= set(written)
    rest = [line for line in data.splitlines() if line[:4] in (b"vars", b"log ")]
    assert [line for line in written if line[:4] in (b"vars", b"log ")] == rest
    ids = [line[:40] for line in written[: len(written) - len(rest)] if line[:4] != b"crc "]
    assert ids == sorted(ids)
