"""Real clients, unmodified: redis-py and valkey-py, in RESP2 and RESP3, plain and as cluster clients."""

from __future__ import annotations

import asyncio

import pytest
import redis
import redis.asyncio
import redis.cluster
import valkey
import valkey.asyncio
import valkey.cluster
from server_site import ME, PATIENCE, open_site, record

ALL_SLOTS = ((0, 16383),)
PLAIN = {"redis": redis.Redis, "valkey": valkey.Valkey}
CLUSTER = {"redis": redis.cluster.RedisCluster, "valkey": valkey.cluster.ValkeyCluster}
ERROR = {"redis": redis.ResponseError, "valkey": valkey.ResponseError}

clients = pytest.mark.parametrize("library", ["redis", "valkey"])
protocols = pytest.mark.parametrize("protocol", [2, 3])


@pytest.fixture
def site(threaded_site):
    """A site whose node announces the port it listens on, as cluster clients need."""
    made = threaded_site(record(slots=ALL_SLOTS))
    made.node.set_records([record(port=made.port.port, cport=17000, slots=ALL_SLOTS)])
    return made


@clients
@protocols
def test_a_plain_client(site, library, protocol):
    with PLAIN[library](port=site.port.port, protocol=protocol, socket_timeout=PATIENCE) as client:
        assert client.ping() is True
        assert client.set("a", b"\x00\xff\r\n") is True
        assert client.get("a") == b"\x00\xff\r\n"
        assert client.set("a", "2", nx=True) is None
        assert client.set("a", "2", xx=True, get=True) == b"\x00\xff\r\n"
        assert client.incr("n", 5) == 5
        assert client.decr("n") == 4
        assert client.append("a", "x") == 2
        assert client.mset({"x": 1, "y": 2}) is True
        assert client.mget("x", "nope", "y") == [b"1", None, b"2"]
        assert client.exists("x", "y", "nope") == 2
        assert client.delete("x", "nope") == 1
        assert sorted(client.scan_iter(count=1)) == [b"a", b"n", b"y"]
        assert sorted(client.keys("[an]")) == [b"a", b"n"]
        assert client.dbsize() == 3
        with pytest.raises(ERROR[library], match="value is not an integer or out of range"):
            client.incr("a")
        with pytest.raises(ERROR[library], match="unknown command 'LPUSH'"):
            client.lpush("l", 1)
        assert client.flushall() is True
        assert client.get("a") is None


@clients
@protocols
def test_pipelines_and_transactions(site, library, protocol):
    with PLAIN[library](port=site.port.port, protocol=protocol, socket_timeout=PATIENCE) as client:
        with client.pipeline(transaction=False) as pipe:
            for number in range(500):
                pipe.set(f"k{number}", number)
            pipe.get("k499")
            pipe.incr("k499")
            assert pipe.execute() == [True] * 500 + [b"499", 500]
        with client.pipeline(transaction=True) as pipe:
            pipe.set("a", 1).incr("a").get("a").get("nope")
            assert pipe.execute() == [True, 2, b"2", None]


@clients
@protocols
def test_what_a_client_asks_of_the_server(site, library, protocol):
    with PLAIN[library](port=site.port.port, protocol=protocol, socket_timeout=PATIENCE, client_name="me") as client:
        assert client.client_getname() in (b"me", "me")
        assert client.client_list()[0]["name"] == "me"
        assert client.client_id() >= 1
        assert client.info("cluster")["cluster_enabled"] == 1
        info = client.info()
        assert info["role"] == "master"
        assert info["raft_term"] == 7
        assert "db0" not in info
        client.set("a", 1)
        assert client.info("keyspace")["db0"]["keys"] == 1
        assert client.config_get("cluster-node-*")["cluster-node-timeout"] == "15000"
        assert client.config_set("cluster-announce-hostname", "h.example") is True
        assert client.config_get("cluster-announce-hostname")["cluster-announce-hostname"] == "h.example"
        commands = client.command()
        assert commands["get"]["arity"] == 2
        assert set(commands["get"]["flags"]) == {"readonly", "fast"}
        assert commands["mset"]["step_count"] == 2
        assert client.command_count() == len(commands)
        assert len(client.execute_command("DEBUG", "DIGEST")) == 40
        assert client.select(0) is True
        assert client.execute_command("RESET") in (b"RESET", "RESET")
        assert client.ping() is True


@clients
@protocols
def test_a_cluster_client_starts_and_works(site, library, protocol):
    client = CLUSTER[library](host="127.0.0.1", port=site.port.port, protocol=protocol, socket_timeout=PATIENCE)
    try:
        assert client.set("a{t}", 1) is True
        assert client.get("a{t}") == b"1"
        assert client.incr("n") == 1
        assert client.mset_nonatomic({"x": 1, "y": 2})
        assert client.mget_nonatomic("x", "y") == [b"1", b"2"]
        assert client.delete("x", "y") == 2
        with client.pipeline() as pipe:
            for number in range(50):
                pipe.incrby(f"p{number}", number)
            assert pipe.execute() == list(range(50))
        nodes = client.cluster_nodes()
        shown = nodes[f"127.0.0.1:{site.port.port}"]
        assert shown["node_id"] == ME
        assert shown["flags"] == "myself,master"
        assert shown["slots"] == [["0", "16383"]]
        info = client.cluster_info()
        assert info["cluster_state"] == "ok"
        assert info["cluster_raft_leader"] == ME
        slots = client.cluster_slots()
        assert slots[0, 16383]["primary"][:2] == ("127.0.0.1", site.port.port)
        shards = client.cluster_shards()
        assert len(shards) == 1
        assert ME in str(shards)
        assert client.cluster_keyslot("foo{bar}") == 5061
        assert client.cluster_count_failure_report(ME) == 0
        assert client.cluster_countkeysinslot(client.keyslot("n")) == 1
        assert client.cluster_get_keys_in_slot(client.keyslot("n"), 10) in ([b"n"], ["n"])
        assert client.dbsize() in (52, {f"127.0.0.1:{site.port.port}": 52})
    finally:
        client.close()


@clients
@protocols
def test_commands_that_change_the_cluster(threaded_site, library, protocol):
    site = threaded_site()
    with PLAIN[library](port=site.port.port, protocol=protocol, socket_timeout=PATIENCE) as client:
        assert client.execute_command("CLUSTER ADDSLOTS", 1, 2) in (b"OK", True)
        assert client.cluster("ADDSLOTSRANGE", "3", "5") in (b"OK", True)
        with pytest.raises(ERROR[library], match="Slot 3 is already busy"):
            client.cluster("ADDSLOTS", "3")
        assert client.cluster("MEET", "127.0.0.1", "7001") in (b"OK", True)
        assert site.node.calls[:2] == [("add_slots", [1, 2]), ("add_slots", [3, 4, 5])]


@clients
def test_the_asynchronous_clients(library):
    plain = {"redis": redis.asyncio.Redis, "valkey": valkey.asyncio.Valkey}[library]
    cluster = {"redis": redis.asyncio.RedisCluster, "valkey": valkey.asyncio.ValkeyCluster}[library]

    async def main() -> None:
        async with open_site(record(slots=ALL_SLOTS)) as site:
            site.node.set_records([record(port=site.port.port, cport=17000, slots=ALL_SLOTS)])
            for protocol in (2, 3):
                async with plain(port=site.port.port, protocol=protocol) as client:
                    assert await client.set("a", 1) is True
                    assert await client.mget("a", "b") == [b"1", None]
                async with cluster(host="127.0.0.1", port=site.port.port, protocol=protocol) as client:
                    assert await client.set("b", 2) is True
                    assert await client.get("b") == b"2"
                    assert (await client.cluster_info())["cluster_state"] == "ok"
                    assert await client.delete("b") == 1

    asyncio.run(main())


def test_under_uvloop():
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with open_site() as site:
            client = redis.asyncio.Redis(port=site.port.port)
            async with client, client.pipeline(transaction=False) as pipe:
                for number in range(3000):
                    pipe.set(f"k{number}", "v" * 100)
                pipe.get("k2999")
                assert (await pipe.execute())[-1] == b"v" * 100
            raw = await site.connect()
            raw.writer.write(b"SET a 1\r\nGET a\r\n*1\r\n!\r\n")
            raw.writer.write_eof()
            assert await raw.rest() == b"+OK\r\n$1\r\n1\r\n-ERR Protocol error: expected '$', got '!'\r\n"

    uvloop.run(main())
