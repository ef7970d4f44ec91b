"""CLUSTER: exact texts and shapes (NODESCONF 2 and 3)."""

from __future__ import annotations

import pytest
from server_site import ME, SHARD, Site, record, run

from raftfast.errors import MeetError, Rejected
from raftfast.messages import Role
from raftfast.records import NodeRecord
from raftfast.status import LinkStatus, PeerStatus

OTHER, REPLICA, NEW = "b" * 40, "c" * 40, "d" * 40
SHARD2 = "6" * 40

THREE = (
    record(ME, 7000, slots=((0, 99), (101, 101), (200, 300)), epoch=4, hostname="me.example"),
    record(
        OTHER, 7001, slots=((100, 100),), shard=SHARD2, epoch=2, aux={"availability-zone": "z1", "tls-port": "7443"}
    ),
    record(REPLICA, 7002, ip="2001:db8::2", flags=("slave", "nofailover", "learner"), primary_id=ME),
)


def b(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text.encode()), text.encode())


INVALID_SLOT = b"-ERR Invalid or out of range slot\r\n"
EXACT = [
    (b"CLUSTER\r\n", b"-ERR wrong number of arguments for 'cluster' command\r\n"),
    (b"CLUSTER FOO\r\n", b"-ERR unknown subcommand 'FOO'. Try CLUSTER HELP.\r\n"),
    (b"CLUSTER " + b"F" * 200 + b"\r\n", b"-ERR unknown subcommand '" + b"F" * 128 + b"'. Try CLUSTER HELP.\r\n"),
    (b"CLUSTER NODES x\r\n", b"-ERR wrong number of arguments for 'cluster|nodes' command\r\n"),
    (b"cluster myid\r\nCLUSTER MYSHARDID\r\n", b(ME) + b(SHARD)),
    (b"CLUSTER KEYSLOT foo{bar}\r\nCLUSTER KEYSLOT bar\r\n", b":5061\r\n:5061\r\n"),
    (b"CLUSTER KEYSLOT 123456789\r\nCLUSTER KEYSLOT ''\r\n", b":12739\r\n:0\r\n"),
    (
        b"CLUSTER KEYSLOT {}foo\r\nCLUSTER KEYSLOT foo{}{bar}\r\nCLUSTER KEYSLOT foo{{bar}}zap\r\n",
        b":9500\r\n:8363\r\n:4015\r\n",
    ),
    (b"CLUSTER COUNTKEYSINSLOT x\r\n", b"-ERR value is not an integer or out of range\r\n"),
    (b"CLUSTER COUNTKEYSINSLOT 16384\r\n", b"-ERR Invalid slot\r\n"),
    (b"CLUSTER GETKEYSINSLOT 1 x\r\n", b"-ERR value is not an integer or out of range\r\n"),
    (b"CLUSTER GETKEYSINSLOT 1 -1\r\n", b"-ERR Invalid slot or number of keys\r\n"),
    (b"CLUSTER GETKEYSINSLOT -1 1\r\n", b"-ERR Invalid slot or number of keys\r\n"),
    (
        b"MSET bar 1 foo{bar} 2\r\nCLUSTER COUNTKEYSINSLOT 5061\r\nCLUSTER GETKEYSINSLOT 5061 1\r\n",
        b"+OK\r\n:2\r\n*1\r\n$3\r\nbar\r\n",
    ),
    (b"DEL bar\r\nSET bar 1\r\nDEL bar\r\nCLUSTER COUNTKEYSINSLOT 5061\r\n", b":0\r\n+OK\r\n:1\r\n:0\r\n"),
    (f"CLUSTER COUNT-FAILURE-REPORTS {OTHER}\r\n".encode(), b":0\r\n"),
    (f"CLUSTER COUNT-FAILURE-REPORTS {NEW}\r\n".encode(), f"-ERR Unknown node {NEW}\r\n".encode()),
    (f"CLUSTER REPLICAS {NEW}\r\n".encode(), f"-ERR Unknown node {NEW}\r\n".encode()),
    (f"CLUSTER SLAVES {REPLICA}\r\n".encode(), b"-ERR The specified node is not a master\r\n"),
    (f"CLUSTER REPLICAS {OTHER}\r\n".encode(), b"*0\r\n"),
    (b"CLUSTER SAVECONFIG\r\nCLUSTER BUMPEPOCH\r\nCLUSTER SET-CONFIG-EPOCH x\r\n", b"+OK\r\n" * 3),
    (b"CLUSTER GETSLOTMIGRATIONS\r\nCLUSTER LINKS\r\n", b"*0\r\n*0\r\n"),
    (
        b"SET a 1\r\nCLUSTER RESET hard\r\n",
        b"+OK\r\n-ERR CLUSTER RESET can't be called with master nodes containing keys\r\n",
    ),
    (b"CLUSTER RESET SOMEHOW\r\nCLUSTER RESET SOFT HARD\r\n", b"-ERR syntax error\r\n-ERR syntax error\r\n"),
    (b"CLUSTER failover FORCE\r\n", b"-ERR Cluster subcommand not implemented for the current protocol: failover\r\n"),
    (
        b"CLUSTER SETSLOT 1 NODE x\r\n",
        b"-ERR Cluster subcommand not implemented for the current protocol: SETSLOT\r\n",
    ),
    (
        b"CLUSTER REPLICATE x\r\n",
        b"-ERR Cluster subcommand not implemented for the current protocol: REPLICATE\r\n",
    ),
    (b"CLUSTER MEET 127.0.0.1 x\r\n", b"-ERR Invalid base port specified: x\r\n"),
    (b"CLUSTER MEET 127.0.0.1 0\r\n", b"-ERR Port number is out of range\r\n"),
    (b"CLUSTER MEET 127.0.0.1 65536\r\n", b"-ERR Port number is out of range\r\n"),
    (b"CLUSTER MEET 127.0.0.1 60000\r\n", b"-ERR Cluster bus port number is out of range\r\n"),
    (b"CLUSTER MEET 127.0.0.1 7000 x\r\n", b"-ERR Invalid bus port specified: x\r\n"),
    (b"CLUSTER MEET 127.0.0.1 7000 0\r\n", b"-ERR Cluster bus port number is out of range\r\n"),
    (b"CLUSTER MEET nowhere 7000\r\n", b"-ERR Invalid node address specified\r\n"),
    (
        b"CLUSTER MEET 127.0.0.1 7000 17000 x\r\n",
        b"-ERR unknown subcommand or wrong number of arguments for 'MEET'. Try CLUSTER HELP.\r\n",
    ),
    (f"CLUSTER FORGET {ME}\r\n".encode(), b"-ERR I tried hard but I can't forget myself...\r\n"),
    (f"CLUSTER FORGET {NEW}\r\n".encode(), b"+OK\r\n"),
    (b"CLUSTER FORGET x\r\n", b"+OK\r\n"),
    (b"CLUSTER ADDVOTER x\r\n", b"-ERR invalid node id\r\n"),
    (f"CLUSTER DELVOTER {NEW}\r\n".encode(), b"-ERR invalid node id\r\n"),
    (b"CLUSTER RAFT ADD-VOTER x\r\n", b"-ERR invalid node id\r\n"),
    (
        f"CLUSTER RAFT FOO {ME}\r\n".encode(),
        b"-ERR unknown subcommand or wrong number of arguments for 'RAFT'. Try CLUSTER HELP.\r\n",
    ),
    (b"CLUSTER ADDSLOTS 400 x\r\n", INVALID_SLOT),
    (b"CLUSTER ADDSLOTS 16384\r\nCLUSTER ADDSLOTS -1\r\nCLUSTER DELSLOTS 1_0\r\n", INVALID_SLOT * 3),
    (b"CLUSTER ADDSLOTS 400 100\r\n", b"-ERR Slot 100 is already busy\r\n"),
    (b"CLUSTER ADDSLOTS 400 401 400\r\n", b"-ERR Slot 400 specified multiple times\r\n"),
    (b"CLUSTER DELSLOTS 100 400\r\n", b"-ERR Slot 400 is already unassigned\r\n"),
    (b"CLUSTER DELSLOTS 100 100\r\n", b"-ERR Slot 100 specified multiple times\r\n"),
    (
        b"CLUSTER ADDSLOTSRANGE 400 401 402\r\n",
        b"-ERR wrong number of arguments for 'cluster|addslotsrange' command\r\n",
    ),
    (b"CLUSTER DELSLOTSRANGE 1 2 3\r\n", b"-ERR wrong number of arguments for 'cluster|delslotsrange' command\r\n"),
    (b"CLUSTER ADDSLOTSRANGE 500 400\r\n", b"-ERR start slot number 500 is greater than end slot number 400\r\n"),
    (b"CLUSTER ADDSLOTSRANGE 100 100 x 5\r\n", INVALID_SLOT),
    (b"CLUSTER ADDSLOTSRANGE 400 410 405 406\r\n", b"-ERR Slot 405 specified multiple times\r\n"),
    (b"CLUSTER ADDSLOTSRANGE" + b" 0 16383" * 500 + b"\r\n", b"-ERR Slot 0 is already busy\r\n"),
    (b"SET a 1\r\nCLUSTER FLUSHSLOTS\r\n", b"+OK\r\n-ERR DB must be empty to perform CLUSTER FLUSHSLOTS.\r\n"),
]


@pytest.mark.parametrize(("request_", "reply"), EXACT, ids=[repr(each[0])[2:60] for each in EXACT])
def test_exact_replies_that_change_nothing(request_, reply):
    async def body(site: Site) -> None:
        await (await site.connect()).ask(request_, reply)
        assert site.node.calls == []

    run(body, *THREE)


def test_changes_reach_the_node_and_are_waited_for():
    async def body(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(b"CLUSTER ADDSLOTS 400 402\r\nCLUSTER ADDSLOTSRANGE 403 404 410 410\r\n", b"+OK\r\n" * 2)
        await raw.ask(b"CLUSTER DELSLOTS 402\r\nCLUSTER DELSLOTSRANGE 403 403\r\n", b"+OK\r\n" * 2)
        await raw.ask(b"CLUSTER MEET 127.0.0.1 7001\r\nCLUSTER MEET ::1 7001 7002\r\n", b"+OK\r\n" * 2)
        await raw.ask(f"CLUSTER FORGET {OTHER}\r\nCLUSTER ADDVOTER {REPLICA}\r\n".encode(), b"+OK\r\n" * 2)
        await raw.ask(f"CLUSTER RAFT DEL-VOTER {OTHER}\r\nCLUSTER DELVOTER {OTHER}\r\n".encode(), b"+OK\r\n" * 2)
        await raw.ask(f"CLUSTER RAFT ADD-VOTER {OTHER}\r\nCLUSTER FLUSHSLOTS\r\n".encode(), b"+OK\r\n" * 2)
        await raw.ask(b"CLUSTER FLUSHSLOTS\r\n", b"+OK\r\n")
        mine = [*range(100), 101, *range(200, 301), 400, 404, 410]
        assert site.node.calls == [
            ("add_slots", [400, 402]),
            ("add_slots", [403, 404, 410]),
            ("del_slots", [402]),
            ("del_slots", [403]),
            ("meet", "127.0.0.1", 7001, 17001),
            ("meet", "::1", 7001, 7002),
            ("forget", OTHER),
            ("add_voter", REPLICA),
            ("del_voter", OTHER),
            ("del_voter", OTHER),
            ("add_voter", OTHER),
            ("del_slots", mine),
        ]

    run(body, *THREE)


def test_all_slots_in_one_command_as_redis_cli_sends_them():
    async def body(site: Site) -> None:
        raw = await site.connect()
        slots = b"".join(b"$%d\r\n%d\r\n" % (len(str(slot)), slot) for slot in range(16384))
        await raw.ask(b"*16386\r\n$7\r\ncluster\r\n$8\r\nADDSLOTS\r\n" + slots, b"+OK\r\n")
        assert site.node.calls == [("add_slots", list(range(16384)))]
        assert b"cluster_state:ok\r\ncluster_slots_assigned:16384\r\n" in await raw.bulk(b"CLUSTER INFO\r\n")

    run(body)


def test_fixs_transaction_answers_each_command():
    async def body(site: Site) -> None:
        raw = await site.connect()
        changes = b"CLUSTER DELSLOTS 400\r\nCLUSTER ADDSLOTS 400\r\n"
        await raw.ask(
            b"MULTI\r\n" + changes + b"CLUSTER SETSLOT 400 STABLE\r\nCLUSTER BUMPEPOCH\r\n",
            b"+OK\r\n" + b"+QUEUED\r\n" * 4,
        )
        await raw.ask(
            b"EXEC\r\n",
            b"*4\r\n-ERR Slot 400 is already unassigned\r\n+OK\r\n"
            b"-ERR Cluster subcommand not implemented for the current protocol: SETSLOT\r\n+OK\r\n",
        )

    run(body)


def test_refusals_of_the_node():
    async def body(site: Site) -> None:
        raw = await site.connect()
        site.node.fault = Rejected("a primary with slots")
        await raw.ask(f"CLUSTER FORGET {OTHER}\r\n".encode(), b"-ERR proposal rejected by raft leader\r\n")
        site.node.fault = MeetError("Cannot merge two existing clusters")
        await raw.ask(b"CLUSTER MEET 127.0.0.1 1\r\n", b"-ERR Cannot merge two existing clusters\r\n")

    run(body, *THREE)


def test_a_replica_does_not_forget_its_primary():
    async def body(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(f"CLUSTER FORGET {OTHER}\r\n".encode(), b"-ERR Can't forget my master!\r\n")

    run(body, record(ME, flags=("slave",), primary_id=OTHER), record(OTHER, 7001))


NODES = (
    f"{ME} 127.0.0.1:7000@17000,me.example myself,master - 0 0 4 connected 0-99 101 200-300\n"
    f"{OTHER} 127.0.0.1:7001@17001 master - 0 0 2 connected 100\n"
    f"{REPLICA} 2001:db8::2:7002@17002 slave,nofailover,learner {ME} 0 0 4 disconnected\n"
)


def test_nodes_and_replicas():
    async def body(site: Site) -> None:
        raw = await site.connect()
        site.node.peers = (PeerStatus(OTHER, True, True), PeerStatus(REPLICA, False, False))
        assert (await raw.bulk(b"CLUSTER NODES\r\n")).decode() == NODES
        line = NODES.splitlines()[2].encode()
        await raw.ask(f"CLUSTER REPLICAS {ME}\r\n".encode(), b"*1\r\n$%d\r\n%b\r\n" % (len(line), line))
        await raw.line(b"HELLO 3\r\n")
        await raw.reader.readuntil(b"modules\r\n*0\r\n")
        await raw.ask(b"CLUSTER NODES\r\n", b"=%d\r\ntxt:%b\r\n" % (len(NODES) + 4, NODES.encode()))

    run(body, *THREE)


def test_nodes_shows_those_that_are_not_yet_members():
    async def body(site: Site) -> None:
        raw = await site.connect()
        site.node.unjoined = [
            NodeRecord(id=NEW, ip="127.0.0.1", port=7009, cport=17009, flags=("handshake",)),
            record(ME),  # known as a member: shown once
        ]
        lines = (await raw.bulk(b"CLUSTER NODES\r\n")).decode().splitlines()
        assert lines == [
            f"{ME} 127.0.0.1:7000@17000 myself,master - 0 0 0 connected",
            f"{NEW} 127.0.0.1:7009@17009 handshake - 0 0 0 disconnected",
        ]
        assert b"cluster_known_nodes:2\r\n" in await raw.bulk(b"CLUSTER INFO\r\n")

    run(body)


def test_a_node_without_an_address_shows_none():
    async def body(site: Site) -> None:
        text = await (await site.connect()).bulk(b"CLUSTER NODES\r\n")
        assert text.decode() == f"{ME} :7000@17000 myself,master - 0 0 0 connected\n"

    run(body, record(ip=""))


def test_what_is_announced_to_clients_is_what_they_see():
    async def body(site: Site) -> None:
        raw = await site.connect()
        text = (await raw.bulk(b"CLUSTER NODES\r\n")).decode()
        assert text.startswith(f"{ME} 198.51.100.7:8000@17000 ")
        await raw.ask(
            b"CLUSTER SLOTS\r\n", b"*1\r\n*3\r\n:0\r\n:0\r\n*4\r\n$12\r\n198.51.100.7\r\n:8000\r\n" + b(ME) + b"*0\r\n"
        )

    aux = {"client-ipv4": "198.51.100.7", "client-ipv6": "2001:db8::7", "client-tcp-port": "8000"}
    run(body, record(aux=aux, slots=((0, 0),)))


def test_a_joiner_shows_itself():
    """It is in no state; its own line is among those of nodes not yet joined."""

    async def body(site: Site) -> None:
        site.node.set_records([])
        site.node.unjoined = [record(flags=("myself", "master", "learner"))]
        site.node.status_changes = {"standing": "joiner", "leader_id": None, "role": Role.JOINER}
        raw = await site.connect()
        text = (await raw.bulk(b"CLUSTER NODES\r\n")).decode()
        assert text == f"{ME} 127.0.0.1:7000@17000 myself,master,learner - 0 0 0 connected\n"
        assert await raw.line(b"CLUSTER SHARDS\r\n") == b"*1\r\n"
        other = await site.connect()
        info = await other.bulk(b"CLUSTER INFO\r\n")
        assert b"cluster_raft_role:joiner\r\n" in info
        assert b"cluster_raft_leader:\r\n" in info
        await other.ask(b"CLUSTER SLOTS\r\nCONFIG GET cluster-announce-hostname\r\n",
                        b"*0\r\n*2\r\n$25\r\ncluster-announce-hostname\r\n$0\r\n\r\n")  # fmt: skip

    run(body)


INFO = f"""cluster_state:fail
cluster_slots_assigned:203
cluster_slots_ok:203
cluster_slots_pfail:0
cluster_slots_fail:0
cluster_known_nodes:3
cluster_size:2
cluster_raft_role:leader
cluster_raft_current_term:7
cluster_raft_commit_index:42
cluster_raft_last_applied:41
cluster_raft_log_entries:33
cluster_raft_leader:{ME}
cluster_stats_messages_module_sent:0
cluster_stats_messages_module_received:0
cluster_stats_messages_publish_sent:3
cluster_stats_messages_publish_received:0
cluster_stats_bytes_sent:11
cluster_stats_bytes_received:12
cluster_stats_pubsub_bytes_sent:0
cluster_stats_pubsub_bytes_received:0
cluster_stats_module_bytes_sent:0
cluster_stats_module_bytes_received:0
total_cluster_links_buffer_limit_exceeded:0
"""


def test_info_has_every_field_in_order():
    async def body(site: Site) -> None:
        raw = await site.connect()
        assert await raw.bulk(b"CLUSTER INFO\r\n") == INFO.replace("\n", "\r\n").encode()

    run(body, *THREE)


@pytest.mark.parametrize(
    ("slots", "flags", "leader", "coverage", "state"),
    [
        (((0, 16383),), ("master",), ME, True, b"ok"),
        (((0, 16382),), ("master",), ME, True, b"fail"),
        (((0, 16383),), ("master", "fail"), ME, True, b"fail"),
        (((0, 16383),), ("master",), None, True, b"fail"),
        ((), ("master",), ME, False, b"ok"),
        ((), ("master",), None, False, b"fail"),
    ],
)
def test_the_clusters_state(slots, flags, leader, coverage, state):
    async def body(site: Site) -> None:
        site.node.status_changes = {"leader_id": leader}
        text = await (await site.connect()).bulk(b"CLUSTER INFO\r\n")
        assert text.startswith(b"cluster_state:" + state + b"\r\n")

    run(body, record(slots=slots, flags=flags), config={"require_full_coverage": coverage})


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"learner": True, "role": Role.FOLLOWER}, [b"cluster_raft_role:learner"]),
        (
            {"role": Role.PRE_CANDIDATE, "leader_id": None},
            [b"cluster_raft_role:pre-candidate", b"cluster_raft_leader:"],
        ),
        ({"standing": "singleton"}, [b"cluster_size:0"]),
    ],
)
def test_info_by_standing(changes, lines):
    async def body(site: Site) -> None:
        site.node.status_changes = changes
        text = await (await site.connect()).bulk(b"CLUSTER INFO\r\n")
        assert set(lines) <= set(text.split(b"\r\n"))

    run(body)


def slots_node(ip: str, port: int, node_id: str, metadata: bytes) -> bytes:
    return b"*4\r\n" + b(ip) + b":%d\r\n" % port + b(node_id) + metadata


def test_slots():
    async def body(site: Site) -> None:
        raw = await site.connect()
        for resp3 in (False, True):
            name, zone = b("hostname") + b("me.example"), b("availability-zone") + b("z1")
            one, none = (b"%1\r\n", b"%0\r\n") if resp3 else (b"*2\r\n", b"*0\r\n")
            me = slots_node("127.0.0.1", 7000, ME, one + name)
            other = slots_node("127.0.0.1", 7001, OTHER, one + zone)
            replica = slots_node("2001:db8::2", 7002, REPLICA, none)
            site.node.repl_offsets = {}  # a replica at offset 0 is loading, and hidden
            await raw.ask(
                b"CLUSTER SLOTS\r\n",
                b"*4\r\n*3\r\n:0\r\n:99\r\n" + me + b"*3\r\n:100\r\n:100\r\n" + other
                + b"*3\r\n:101\r\n:101\r\n" + me + b"*3\r\n:200\r\n:300\r\n" + me,
            )  # fmt: skip
            site.node.repl_offsets = {REPLICA: 5}
            await raw.ask(b"CLUSTER SLOTS\r\n", b"*4\r\n*4\r\n:0\r\n:99\r\n" + me + replica)
            await raw.expect(b"*3\r\n:100\r\n:100\r\n" + other + b"*4\r\n:101\r\n:101\r\n" + me + replica)
            await raw.expect(b"*4\r\n:200\r\n:300\r\n" + me + replica)
            await raw.line(b"HELLO 3\r\n")
            await raw.reader.readuntil(b"modules\r\n*0\r\n")

    run(body, *THREE)


def test_slots_hides_failed_replicas_and_never_a_primary():
    failed = (
        record(ME, slots=((0, 0),), flags=("master", "fail")),
        record(REPLICA, 7002, flags=("slave", "fail"), primary_id=ME),
    )

    async def body(site: Site) -> None:
        site.node.repl_offsets = {REPLICA: 5}
        node = slots_node("127.0.0.1", 7000, ME, b"*0\r\n")
        await (await site.connect()).ask(b"CLUSTER SLOTS\r\n", b"*1\r\n*3\r\n:0\r\n:0\r\n" + node)

    run(body, *failed)


def test_shards():
    def node(map_head: bytes, node_id: str, port: int, ip: str, *more: tuple[str, str]) -> bytes:
        fields = b("id") + b(node_id) + b("port") + b":%d\r\n" % port
        tls = [value for name, value in more if name == "tls-port"]
        if tls:
            fields += b("tls-port") + b":%d\r\n" % int(tls[0])
        fields += b("ip") + b(ip) + b("endpoint") + b(ip)
        for name, value in more:
            if name == "replication-offset":
                fields += b(name) + b":%d\r\n" % int(value)
            elif name != "tls-port":
                fields += b(name) + b(value)
        return map_head + fields

    def offset(number: int, health: str, role: str) -> tuple[tuple[str, str], ...]:
        return ("role", role), ("replication-offset", str(number)), ("health", health)

    async def body(site: Site) -> None:
        site.node.repl_offsets = {ME: 9}
        raw = await site.connect()
        for resp3 in (False, True):

            def head(fields: int, resp3: bool = resp3) -> bytes:
                return b"%%%d\r\n" % fields if resp3 else b"*%d\r\n" % (2 * fields)

            me = node(head(8), ME, 7000, "127.0.0.1", ("hostname", "me.example"), *offset(9, "online", "master"))
            replica = node(head(7), REPLICA, 7002, "2001:db8::2", *offset(0, "loading", "replica"))
            other = node(
                head(9), OTHER, 7001, "127.0.0.1", ("tls-port", "7443"), *offset(0, "online", "master"),
                ("availability-zone", "z1"),
            )  # fmt: skip
            first = b("slots") + b"*6\r\n:0\r\n:99\r\n:101\r\n:101\r\n:200\r\n:300\r\n" + b("nodes") + b"*2\r\n"
            second = b("slots") + b"*2\r\n:100\r\n:100\r\n" + b("nodes") + b"*1\r\n"
            await raw.ask(b"CLUSTER SHARDS\r\n", b"*2\r\n" + head(3) + first + me + replica + b("id") + b(SHARD))
            await raw.expect(head(3) + second + other + b("id") + b(SHARD2))
            await raw.line(b"HELLO 3\r\n")
            await raw.reader.readuntil(b"modules\r\n*0\r\n")

    run(body, *THREE)


def test_links():
    async def body(site: Site) -> None:
        site.node.links = (
            LinkStatus(REPLICA, False, 3, True, 0, 100),
            LinkStatus(OTHER, False, 2, True, 0, 100),
            LinkStatus("", False, 9, True, 0, 100),  # not yet bound: not shown
            LinkStatus(OTHER, True, 1, False, 7, 100),
        )
        raw = await site.connect()

        def link(direction: str, node: str, created: int, events: str, buffered: int) -> bytes:
            fields = b("direction") + b(direction) + b("node") + b(node)
            fields += b("create-time") + b":%d\r\n" % created + b("events") + b(events)
            sizes = b("send-buffer-allocated") + b":%d\r\n" % buffered + b("send-buffer-used") + b":%d\r\n" % buffered
            return b"*12\r\n" + fields + sizes

        expected = link("to", OTHER, 1, "r", 7) + link("from", OTHER, 2, "rw", 0) + link("from", REPLICA, 3, "rw", 0)
        await raw.ask(b"CLUSTER LINKS\r\n", b"*3\r\n" + expected)

    run(body, *THREE)
