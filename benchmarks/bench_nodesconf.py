"""nodes.conf: both twins on 1,000 nodes, 100,000 log lines and CRC-64; redis-py's CLUSTER NODES parser beside them.

Run: pytest benchmarks/bench_nodesconf.py --benchmark-only --benchmark-group-by=group
The figures that count are the ratios inside one group of one run.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

VECTORS = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "nodesconf"
THOUSAND_NODES = (VECTORS / "09_thousand_nodes.conf").read_bytes()
HEAD = (VECTORS / "05_raft_full.conf").read_bytes().partition(b"crc ")[0]
ENTRIES = 100_000
ENTRY = b"8 APP " + b"c" * 40 + b":123456 SET key:000000123456 " + b"v" * 32


@pytest.fixture(params=["c", "py"])
def nodesconf(request):
    return importlib.import_module(f"raftfast.hot.nodesconf_{request.param}")


def raft_file(nodesconf) -> bytes:
    crc = b"crc %016x\n" % nodesconf.crc64(HEAD)
    return HEAD + crc + nodesconf.log_lines(43, [ENTRY] * ENTRIES)


@pytest.mark.benchmark(group="parse 1000 nodes")
def test_parse_nodes(benchmark, nodesconf):
    conf = benchmark(nodesconf.parse, THOUSAND_NODES)
    assert len(conf.nodes) == 1000


@pytest.mark.benchmark(group="parse 1000 nodes")
def test_redis_py_parses_cluster_nodes(benchmark):
    """redis-py's own parser on the same nodes without aux fields: it keeps text, and checks nothing."""
    helpers = pytest.importorskip("redis._parsers.helpers")
    lines = [line.split(b" ") for line in THOUSAND_NODES.splitlines() if not line.startswith(b"vars")]
    for columns in lines:
        columns[1] = b",".join(columns[1].split(b",")[:2])
    text = b"\n".join(b" ".join(columns) for columns in lines).decode()
    nodes = benchmark(helpers.parse_cluster_nodes, text)
    assert len(nodes) == 1000


@pytest.mark.benchmark(group="format 1000 nodes")
def test_dump_nodes(benchmark, nodesconf):
    conf = nodesconf.parse(THOUSAND_NODES)
    assert len(benchmark(nodesconf.dump, conf)) > 100_000


@pytest.mark.benchmark(group="parse 100,000 log lines")
def test_parse_log_lines(benchmark, nodesconf):
    data = raft_file(nodesconf)
    conf = benchmark.pedantic(nodesconf.parse, (data,), rounds=3)
    assert len(conf.entries) == ENTRIES


@pytest.mark.benchmark(group="write 100,000 log lines")
def test_log_lines(benchmark, nodesconf):
    text = benchmark.pedantic(nodesconf.log_lines, (43, [ENTRY] * ENTRIES), rounds=3)
    assert text.count(b"\n") == ENTRIES


@pytest.mark.parametrize("size", [64, 4096, 1 << 20])
def test_crc64(benchmark, nodesconf, size):
    benchmark.group = f"crc64 of {size} bytes"
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert benchmark(nodesconf.crc64, data)
