"""A stand-in for `raftfast serve`, as a process of its own: RESP2 on a port, a dictionary, and one habit to test with.

    python fake_node.py HABIT PORT

Habits: `well` behaves; `dies` ends at once with an error line; `silent` never gets ready; `stubborn` ignores SIGTERM;
`leaderless` answers everything and never has a leader.
"""

from __future__ import annotations

import signal
import socketserver
import sys
import threading

STORE: dict[bytes, bytes] = {}
NODE_ID = b"a" * 40


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


def answer(words: list[bytes], role: bytes) -> bytes:
    name = words[0].upper()
    if name == b"PING":
        return b"+PONG\r\n"
    if name == b"SET":
        STORE[words[1]] = words[2]
        return b"+OK\r\n"
    if name == b"MGET":
        return b"*%d\r\n" % (len(words) - 1) + b"".join(bulk(STORE.get(key)) for key in words[1:])
    if name == b"CLUSTER" and words[1].upper() == b"MYID":
        return bulk(NODE_ID)
    if name == b"CLUSTER" and words[1].upper() == b"INFO":
        leader = NODE_ID if role == b"leader" else b""
        return bulk(b"cluster_size:1\r\ncluster_raft_role:%s\r\ncluster_raft_leader:%s\r\n" % (role, leader))
    if name == b"CLUSTER" and words[1].upper() == b"NODES":
        return bulk(b"%s :1@2 master,fail - 0 0 0 connected\n%s :3@4 master - 0 0 0 connected\n" % (b"b" * 40, NODE_ID))
    if name == b"INFO":
        return bulk(b"# Raftfast\r\nraft_boundary_index:7\r\n")
    return b"-ERR unknown command '%s'\r\n" % name


class Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        role = b"follower" if sys.argv[1] == "leaderless" else b"leader"
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                length = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(length + 2)[:-2])
            self.wfile.write(answer(words, role))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> int:
    habit, port = sys.argv[1], int(sys.argv[2])
    if habit == "dies":
        print("starting", file=sys.stderr)
        print("raftfast: it is not to be", file=sys.stderr)
        return 1
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if habit == "stubborn" else lambda number, frame: stopped.set())
    with Server(("127.0.0.1", port), Connection) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if habit != "silent":
            print(f"INFO ready: client 127.0.0.1:{port} bus 1 id {NODE_ID.decode()}", file=sys.stderr, flush=True)
        stopped.wait()
        server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
