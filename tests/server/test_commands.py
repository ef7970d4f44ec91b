"""Exact replies of the commands that are neither of the cluster nor of the store's state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from server_site import ME, Site, run

import raftfast
from raftfast.errors import ConfigError
from raftfast.server import Limits

SYNTAX = b"-ERR syntax error\r\n"
NUMBER = b"-ERR value is not an integer or out of range\r\n"

EXACT = [
    (b"PING\r\n", b"+PONG\r\n"),
    (b"ping hi\r\n", b"$2\r\nhi\r\n"),
    (b"PING a b\r\n", b"-ERR wrong number of arguments for 'ping' command\r\n"),
    (b"ECHO 'a b'\r\n", b"$3\r\na b\r\n"),
    (b"ECHO\r\n", b"-ERR wrong number of arguments for 'echo' command\r\n"),
    (b"FOO a b\r\n", b"-ERR unknown command 'FOO', with args beginning with: 'a' 'b' \r\n"),
    (b"FOO\r\n", b"-ERR unknown command 'FOO', with args beginning with: \r\n"),
    (b"F" * 200 + b"\r\n", b"-ERR unknown command '" + b"F" * 128 + b"', with args beginning with: \r\n"),
    (
        b"AUTH pw\r\n",
        b"-ERR AUTH <password> called without any password configured for the default user. "
        b"Are you sure your configuration is correct?\r\n",
    ),
    (b"AUTH default pw\r\n", b"+OK\r\n"),
    (b"AUTH me pw\r\n", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
    (b"AUTH a b c\r\n", SYNTAX),
    (b"SELECT 0\r\n", b"+OK\r\n"),
    (b"SELECT 1\r\n", b"-ERR SELECT is not allowed in cluster mode\r\n"),
    (b"SELECT x\r\n", NUMBER),
    (b"READONLY\r\nREADWRITE\r\nASKING\r\n", b"+OK\r\n" * 3),
    (b"RESET\r\n", b"+RESET\r\n"),
    (b"CLIENT\r\n", b"-ERR wrong number of arguments for 'client' command\r\n"),
    (b"CLIENT FOO\r\n", b"-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"),
    (b"CLIENT MAINT_NOTIFICATIONS ON\r\n", b"-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n"),
    (b"CLIENT SETINFO LIB-NAME x\r\nclient setinfo lib-ver 1.0\r\n", b"+OK\r\n+OK\r\n"),
    (b"CLIENT SETINFO LIB-FOO x\r\n", b"-ERR Unrecognized option 'LIB-FOO'\r\n"),
    (
        b"CLIENT SETINFO LIB-NAME 'a b'\r\n",
        b"-ERR lib-name cannot contain spaces, newlines or special characters.\r\n",
    ),
    (b"CLIENT SETINFO LIB-NAME\r\n", b"-ERR wrong number of arguments for 'client|setinfo' command\r\n"),
    (b"CLIENT GETNAME\r\nCLIENT SETNAME me\r\nCLIENT GETNAME\r\n", b"$-1\r\n+OK\r\n$2\r\nme\r\n"),
    (
        b"CLIENT SETNAME 'a b'\r\n",
        b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
    ),
    (b"CLIENT ID\r\n", b":1\r\n"),
    (b"CLIENT NO-EVICT on\r\nCLIENT NO-TOUCH off\r\nCLIENT REPLY ON\r\n", b"+OK\r\n" * 3),
    (b"CLIENT NO-EVICT maybe\r\n", SYNTAX),
    (b"CLIENT LIST ID x\r\n", b"-ERR Invalid client ID\r\n"),
    (b"CLIENT LIST TYPE pubsub\r\n", b"$0\r\n\r\n"),
    (b"CLIENT LIST TYPE x\r\n", b"-ERR Unknown client type 'x'\r\n"),
    (b"HELLO x\r\n", b"-ERR Protocol version is not an integer or out of range\r\n"),
    (b"HELLO 4\r\n", b"-NOPROTO unsupported protocol version\r\n"),
    (b"HELLO 3 FOO\r\n", b"-ERR Syntax error in HELLO option 'FOO'\r\n"),
    (b"HELLO 3 AUTH x\r\n", b"-ERR Syntax error in HELLO option 'AUTH'\r\n"),
    (b"HELLO 3 AUTH me pw\r\n", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
    (b"COMMAND COUNT FOO\r\n", b"-ERR wrong number of arguments for 'command|count' command\r\n"),
    (b"COMMAND FOO\r\n", b"-ERR unknown subcommand 'FOO'. Try COMMAND HELP.\r\n"),
    (b"COMMAND GETKEYS MSET a 1 b 2\r\n", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
    (b"COMMAND GETKEYS GET a\r\n", b"*1\r\n$1\r\na\r\n"),
    (b"COMMAND GETKEYS PING\r\n", b"-ERR The command has no key arguments\r\n"),
    (b"COMMAND GETKEYS GET\r\n", b"-ERR Invalid number of arguments specified for command\r\n"),
    (b"COMMAND GETKEYS NOPE\r\n", b"-ERR Invalid command specified\r\n"),
    (
        b"COMMAND INFO get nope\r\n",
        b"*2\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@string\r\n"
        b"*0\r\n*0\r\n*0\r\n$-1\r\n",
    ),
    (b"CONFIG GET cluster-node-timeout\r\n", b"*2\r\n$20\r\ncluster-node-timeout\r\n$5\r\n15000\r\n"),
    (b"CONFIG GET nope\r\n", b"*0\r\n"),
    (b"CONFIG GET save appendonl[y]\r\n", b"*4\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n$4\r\nsave\r\n$0\r\n\r\n"),
    (b"CONFIG SET x\r\n", b"-ERR wrong number of arguments for 'config|set' command\r\n"),
    (b"CONFIG SET x 1\r\n", b"-ERR Unknown option or number of arguments for CONFIG SET - 'x'\r\n"),
    (b"CONFIG SET cluster-announce-hostname a b\r\n", b"-ERR wrong number of arguments for 'config|set' command\r\n"),
    (
        b"CONFIG SET cluster-node-timeout 100\r\n",
        b"-ERR CONFIG SET failed (possibly related to argument 'cluster-node-timeout') - "
        b"can't set immutable config\r\n",
    ),
    (b"CONFIG REWRITE\r\nCONFIG RESETSTAT\r\n", b"+OK\r\n+OK\r\n"),
    (b"DEBUG DIGEST\r\n", b"+a1c4b3ef8b1e2a9c\r\n"),
    (b"DEBUG SLEEP 1\r\n", b"-ERR unknown subcommand 'SLEEP'. Try DEBUG HELP.\r\n"),
    (b"SHUTDOWN\r\n", b"-ERR SHUTDOWN is not served here: the node belongs to another program\r\n"),
    (b"SHUTDOWN SAVE NOSAVE\r\n", SYNTAX),
]


@pytest.mark.parametrize(("request_", "reply"), EXACT, ids=[repr(each[0])[2:50] for each in EXACT])
def test_exact_replies(request_, reply):
    async def body(site: Site) -> None:
        site.node.state_digest = lambda: "a1c4b3ef8b1e2a9c"
        await (await site.connect()).ask(request_, reply)

    run(body)


def test_hello_names_the_server_in_either_protocol():
    async def body(site: Site) -> None:
        raw = await site.connect()
        fields = (
            b"$6\r\nserver\r\n$8\r\nraftfast\r\n$7\r\nversion\r\n%b$5\r\nproto\r\n:%d\r\n$2\r\nid\r\n:1\r\n"
            b"$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
        )
        version = raftfast.__version__.encode()
        shown = b"$%d\r\n%b\r\n" % (len(version), version)
        await raw.ask(b"HELLO\r\n", b"*14\r\n" + fields % (shown, 2))
        await raw.ask(b"HELLO 3 AUTH default x SETNAME me\r\n", b"%7\r\n" + fields % (shown, 3))
        await raw.ask(b"CLIENT GETNAME\r\nGET a\r\n", b"$2\r\nme\r\n_\r\n")
        refused = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
        await raw.ask(b"HELLO 2 SETNAME 'a b'\r\nGET a\r\n", refused + b"_\r\n")
        await raw.ask(b"SET k 1 GET\r\nSET k 2 XX NX\r\n", b"_\r\n" + SYNTAX)
        await raw.ask(b"RESET\r\nGET a\r\nCLIENT GETNAME\r\n", b"+RESET\r\n$-1\r\n$-1\r\n")

    run(body)


def test_hello_counts_for_replies_after_it_only():
    async def body(site: Site) -> None:
        raw = await site.connect()
        raw.writer.write(b"SET a 1 XX\r\nHELLO 3\r\nSET a 1 XX\r\n")
        await raw.expect(b"$-1\r\n%7\r\n")
        assert (await raw.reader.readuntil(b"modules\r\n*0\r\n")) != b""
        await raw.expect(b"_\r\n")

    run(body)


def test_client_list_and_info():
    async def body(site: Site) -> None:
        raw, other = await site.connect(), await site.connect()
        await other.ask(b"CLIENT SETNAME them\r\n", b"+OK\r\n")
        await raw.ask(b"CLIENT SETNAME me\r\nCLIENT SETINFO LIB-NAME lib\r\nMULTI\r\n", b"+OK\r\n" * 3)
        await raw.ask(b"PING\r\nDISCARD\r\n", b"+QUEUED\r\n+OK\r\n")
        lines = (await raw.bulk(b"CLIENT LIST\r\n")).decode().splitlines()
        names = [dict(word.split("=", 1) for word in line.split(" ")) for line in lines]
        assert sorted(each["name"] for each in names) == ["me", "them"]
        mine = (await raw.bulk(b"CLIENT INFO\r\n")).decode()
        assert " name=me " in mine
        assert " lib-name=lib " in mine
        assert mine.endswith("\n")
        number = mine.split()[0].removeprefix("id=").encode()
        only = await raw.bulk(b"CLIENT LIST ID " + number + b" 999\r\n")
        assert only.count(b"\n") == 1

    run(body)


def test_info_sections():
    async def body(site: Site) -> None:
        raw = await site.connect()
        text = (await raw.bulk(b"INFO\r\n")).decode()
        assert [line for line in text.split("\r\n") if line.startswith("#")] == [
            "# Server", "# Clients", "# Stats", "# Replication", "# Cluster", "# Raftfast", "# Keyspace"
        ]  # fmt: skip
        assert "\r\ncluster_enabled:1\r\n" in text
        assert "\r\nrole:master\r\n" in text
        assert "\r\nraft_caught_up_by:snapshot\r\n" in text
        assert "\r\nraft_snapshots_installed:0\r\n" in text
        assert "\r\nraft_bytes_out:11\r\n" in text
        assert f"\r\nraft_leader:{ME}\r\n" in text
        assert "db0:" not in text
        await raw.ask(b"SET a 1\r\n", b"+OK\r\n")
        assert await raw.bulk(b"INFO keyspace\r\n") == b"# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n"
        assert await raw.bulk(b"INFO cluster nope\r\n") == b"# Cluster\r\ncluster_enabled:1\r\n"
        assert await raw.bulk(b"INFO nope\r\n") == b""
        both = await raw.bulk(b"INFO cluster KEYSPACE\r\n")
        assert both == b"# Cluster\r\ncluster_enabled:1\r\n\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n"

    run(body)


def test_the_hostname_is_set_and_shown():
    async def body(site: Site) -> None:
        raw = await site.connect()
        name = b"cluster-announce-hostname"
        await raw.ask(b"CONFIG GET " + name + b"\r\n", b"*2\r\n$25\r\n" + name + b"\r\n$0\r\n\r\n")
        await raw.ask(b"CONFIG SET Cluster-Announce-Hostname a-1.example\r\n", b"+OK\r\n")
        await raw.ask(b"CONFIG GET " + name + b"\r\n", b"*2\r\n$25\r\n" + name + b"\r\n$11\r\na-1.example\r\n")
        failed = b"-ERR CONFIG SET failed (possibly related to argument 'cluster-announce-hostname') - "
        for bad in (b"a_b", b"a,b", "é".encode(), b"'a b'"):
            await raw.ask(
                b"CONFIG SET " + name + b" " + bad + b"\r\n",
                failed + b"Hostnames may only contain alphanumeric characters, hyphens or dots\r\n",
            )
        long = b"CONFIG SET " + name + b" " + b"a" * 256 + b"\r\n"
        await raw.ask(long, failed + b"Hostnames must be less than 256 characters\r\n")
        twice = b"CONFIG SET " + name + b" a " + name + b" b\r\n"
        await raw.ask(twice, failed + b"duplicate parameter\r\n")
        half = b"CONFIG SET " + name + b" b port 1\r\n"
        await raw.ask(
            half, b"-ERR CONFIG SET failed (possibly related to argument 'port') - can't set immutable config\r\n"
        )
        await raw.ask(b"CONFIG SET " + name + b" ''\r\n", b"+OK\r\n")
        assert [call[1] for call in site.node.calls] == ["a-1.example", ""]
        site.node.fault = ConfigError("hostname must be shorter")
        await raw.ask(b"CONFIG SET " + name + b" a\r\n", b"-ERR hostname must be shorter\r\n")

    run(body)


def test_shutdown_calls_and_closes_without_a_reply():
    called: list[Any] = []

    async def body(site: Site) -> None:
        raw = await site.connect()
        raw.writer.write(b"SET a 1\r\nSHUTDOWN NOSAVE\r\nPING\r\n")
        assert await raw.rest() == b"+OK\r\n"
        assert called == [1]

    run(body, shutdown=lambda: called.append(1))


def test_transactions():
    async def body(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(b"EXEC\r\nDISCARD\r\n", b"-ERR EXEC without MULTI\r\n-ERR DISCARD without MULTI\r\n")
        await raw.ask(b"MULTI\r\nMULTI\r\n", b"+OK\r\n-ERR MULTI calls can not be nested\r\n")
        await raw.ask(b"SET a 1\r\nINCR a\r\nGET a\r\nINCR a\r\nECHO x\r\n", b"+QUEUED\r\n" * 5)
        assert site.node.log == []
        await raw.ask(b"EXEC\r\n", b"*5\r\n+OK\r\n:2\r\n$1\r\n2\r\n:3\r\n$1\r\nx\r\n")
        await raw.ask(b"MULTI\r\nSET b x\r\nINCR b\r\nSET c 1\r\n", b"+OK\r\n" + b"+QUEUED\r\n" * 3)
        await raw.ask(b"EXEC\r\n", b"*3\r\n+OK\r\n" + NUMBER + b"+OK\r\n")
        await raw.ask(b"MULTI\r\nSET a 9\r\nDISCARD\r\nGET a\r\n", b"+OK\r\n+QUEUED\r\n+OK\r\n$1\r\n3\r\n")
        await raw.ask(b"MULTI\r\nEXEC\r\n", b"+OK\r\n*0\r\n")
        abort = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        for bad, error in (
            (b"NOPE\r\n", b"-ERR unknown command 'NOPE', with args beginning with: \r\n"),
            (b"GET\r\n", b"-ERR wrong number of arguments for 'get' command\r\n"),
            (b"SHUTDOWN\r\n", b"-ERR Command not allowed inside a transaction\r\n"),
        ):
            await raw.ask(b"MULTI\r\nSET a 9\r\n" + bad, b"+OK\r\n+QUEUED\r\n" + error)
            await raw.ask(b"EXEC\r\nGET a\r\n", abort + b"$1\r\n3\r\n")
        await raw.ask(
            b"NOPE\r\nMULTI\r\nEXEC\r\n", b"-ERR unknown command 'NOPE', with args beginning with: \r\n+OK\r\n*0\r\n"
        )
        await raw.ask(b"MULTI\r\nRESET\r\nEXEC\r\n", b"+OK\r\n+RESET\r\n-ERR EXEC without MULTI\r\n")
        raw.writer.write(b"MULTI\r\nQUIT\r\n")
        assert await raw.rest() == b"+OK\r\n+OK\r\n"

    run(body)


def test_a_transactions_writes_are_one_batch_and_wait_where_a_read_comes():
    async def body(site: Site) -> None:
        site.node.held = True
        raw = await site.connect()
        raw.writer.write(b"MULTI\r\nINCR n\r\nINCR n\r\nGET n\r\nINCR n\r\nEXEC\r\n")
        await raw.expect(b"+OK\r\n" + b"+QUEUED\r\n" * 4)
        while len(site.node.waiting) < 2:
            await asyncio.sleep(0)
        site.node.apply()
        while not site.node.held_barriers:
            await asyncio.sleep(0)
        assert site.node.waiting == []
        site.node.held = False
        site.node.held_barriers[0].set_result(None)
        await raw.expect(b"*4\r\n:1\r\n:2\r\n$1\r\n2\r\n:3\r\n")

    run(body)


def test_a_transaction_is_bounded():
    async def body(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(b"MULTI\r\nSET a 1\r\nSET a 1\r\n", b"+OK\r\n+QUEUED\r\n-ERR the transaction is too large\r\n")
        await raw.ask(b"EXEC\r\n", b"-EXECABORT Transaction discarded because of previous errors.\r\n")

    run(body, limits=Limits(max_query_bytes=300))


def test_replies_that_gather_values_are_bounded():
    async def body(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(b"SET a " + b"v" * 60 + b"\r\n", b"+OK\r\n")
        await raw.ask(b"MGET a a\r\n", b"-ERR the reply is too large\r\n")
        queued = b"+OK\r\n" + b"+QUEUED\r\n" * 2
        value = b"$60\r\n" + b"v" * 60 + b"\r\n"
        await raw.ask(b"MULTI\r\nGET a\r\nGET a\r\n", queued)
        await raw.ask(b"EXEC\r\n", b"*2\r\n" + value + b"-ERR the transaction's reply is too large\r\n")

    run(body, limits=Limits(max_reply_bytes=100))


KV = [
    (
        b"SET a 1\r\nSET a 2 NX\r\nSET a 2 XX GET\r\nSET b 1 XX\r\nSET c 3 nx get\r\n",
        b"+OK\r\n$-1\r\n$1\r\n1\r\n$-1\r\n$-1\r\n",
    ),
    (b"SET a 1 EX 10\r\n", SYNTAX),
    (b"SET a 1 NX XX\r\n", SYNTAX),
    (b"SET a\r\n", b"-ERR wrong number of arguments for 'set' command\r\n"),
    (b"GETSET a 1\r\nGETSET a 2\r\n", b"$-1\r\n$1\r\n1\r\n"),
    (b"MSET a 1 b 2\r\nMGET a b c\r\n", b"+OK\r\n*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n"),
    (b"MSET a 1 b\r\n", b"-ERR wrong number of arguments for 'mset' command\r\n"),
    (b"MSET a 1 b 2\r\nDEL a b a x\r\nDBSIZE\r\n", b"+OK\r\n:2\r\n:0\r\n"),
    (b"SET a 1\r\nEXISTS a a b\r\nSTRLEN a\r\nSTRLEN b\r\n", b"+OK\r\n:2\r\n:1\r\n:0\r\n"),
    (b"INCR a\r\nINCRBY a 5\r\nDECR a\r\nDECRBY a 10\r\n", b":1\r\n:6\r\n:5\r\n:-5\r\n"),
    (b"INCRBY a x\r\n", NUMBER),
    (b"INCRBY a 9223372036854775808\r\n", NUMBER),
    (b"DECRBY a -9223372036854775808\r\n", b"-ERR decrement would overflow\r\n"),
    (
        b"SET a 9223372036854775807\r\nINCR a\r\nDECRBY a -1\r\nGET a\r\n",
        b"+OK\r\n" + b"-ERR increment or decrement would overflow\r\n" * 2 + b"$19\r\n9223372036854775807\r\n",
    ),
    (b"SET a ' 1'\r\nINCR a\r\n", b"+OK\r\n" + NUMBER),
    (b"APPEND a xy\r\nAPPEND a z\r\nGET a\r\n", b":2\r\n:3\r\n$3\r\nxyz\r\n"),
    (b"SET a 1\r\nFLUSHALL ASYNC\r\nDBSIZE\r\nFLUSHALL NOW\r\n", b"+OK\r\n+OK\r\n:0\r\n" + SYNTAX),
    (b"MSET user:1 a user:2 b x c\r\nKEYS user:*\r\n", b"+OK\r\n*2\r\n$6\r\nuser:1\r\n$6\r\nuser:2\r\n"),
    (b"SCAN x\r\nSCAN -1\r\n", b"-ERR invalid cursor\r\n" * 2),
    (b"SCAN 0 COUNT 0\r\nSCAN 0 MATCH\r\nSCAN 0 NOPE x\r\n", SYNTAX * 3),
    (b"SCAN 0 COUNT x\r\n", NUMBER),
    (b"SET a 1\r\nSCAN 0 MATCH b* COUNT 100\r\n", b"+OK\r\n*2\r\n$1\r\n0\r\n*0\r\n"),
    (b"SET a 1\r\nSCAN 0 TYPE string\r\n", b"+OK\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n"),
    (b"SET a 1\r\nSCAN 0 TYPE hash\r\nSCAN 281474976710656\r\n", b"+OK\r\n" + b"*2\r\n$1\r\n0\r\n*0\r\n" * 2),
]


@pytest.mark.parametrize(("request_", "reply"), KV, ids=[repr(each[0])[2:50] for each in KV])
def test_the_stores_commands(request_, reply):
    async def body(site: Site) -> None:
        await (await site.connect()).ask(request_, reply)

    run(body)


def test_what_is_wrong_whatever_the_state_is_never_proposed():
    async def body(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(b"SET a 1 EX 1\r\nINCRBY a x\r\nMSET a\r\n", SYNTAX + NUMBER
                      + b"-ERR wrong number of arguments for 'mset' command\r\n")  # fmt: skip
        value = b"v" * (8 << 20)
        long = b"-ERR the command is too long to be replicated: at most 8 MiB\r\n"
        await raw.ask(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%d\r\n%b\r\n" % (len(value), value), long)
        assert site.node.log == []

    run(body)


def test_without_a_store_its_commands_are_unknown():
    async def body(site: Site) -> None:
        raw = await site.connect()
        await raw.ask(b"GET a\r\n", b"-ERR unknown command 'GET', with args beginning with: 'a' \r\n")
        await raw.ask(b"DBSIZE\r\nCLUSTER COUNTKEYSINSLOT 1\r\n", b":0\r\n:0\r\n")
        await raw.ask(b"COMMAND INFO get\r\n", b"*1\r\n$-1\r\n")

    run(body, kv=False)


def test_command_docs_and_help_are_whole():
    async def body(site: Site) -> None:
        raw = await site.connect()
        table = site.port._port.commands
        await raw.ask(b"COMMAND COUNT\r\n", b":%d\r\n" % len(table))
        assert await raw.line(b"COMMAND\r\n") == b"*%d\r\n" % len(table)
        raw = await site.connect()
        assert await raw.line(b"COMMAND DOCS get set\r\n") == b"*4\r\n"
        for title in (b"CLIENT", b"CONFIG", b"COMMAND", b"DEBUG", b"CLUSTER"):
            raw = await site.connect()
            head = await raw.line(title + b" HELP\r\n")
            assert head[:1] == b"*"
            lines = [await raw.reader.readline() for _ in range(int(head[1:]))]
            assert lines[0] == b"+" + title + b" <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n"
            assert lines[-2:] == [b"+HELP\r\n", b"+    Print this help.\r\n"]
            await raw.ask(b"PING\r\n", b"+PONG\r\n")

    run(body)


def test_the_table_is_sound():
    from raftfast.server.listener import command_table

    rows = list(command_table(with_store=True).values())
    for row in [*rows, *(each for parent in rows for each in parent.subcommands.values())]:
        waits = row.kind.value == "waiting"
        assert (row.wait is not None) == waits, row.name
        assert (row.run is not None) == (not waits and (not row.subcommands or row.name == "command")), row.name
        assert row.arity != 0
