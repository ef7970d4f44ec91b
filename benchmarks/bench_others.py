"""The compiled leaves beside other packages and beside plain C, in groups: see compare.py and c_floor.py.

Run: pytest benchmarks/bench_others.py --benchmark-only. Needs the extra `bench`. A call of the plain C goes through
cffi here and takes the interpreter's lock, which is a good part of it; `python benchmarks/c_floor.py` does without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("msgspec")
pytest.importorskip("google.protobuf")

import c_floor
import compare
from measuring import Case

GROUPS: dict[str, Callable[[], dict[str, Case]]] = {
    "decode an AE of 100 entries of 64 bytes": compare.decoding,
    "encode an AE of 100 entries of 64 bytes": compare.encoding,
    "parse 1,000 nodes": compare.nodes,
}
PLAIN_C: dict[str, Callable[[Any], Case]] = {
    "decode an AE of 100 entries of 64 bytes": c_floor.decode_case,
    "encode an AE of 100 entries of 64 bytes": c_floor.encode_case,
}
CASES = [(group, name, case) for group, cases in GROUPS.items() for name, case in cases().items()]


@pytest.fixture(scope="module")
def floor() -> Any:
    return c_floor.compiled_floor()


@pytest.mark.parametrize(("group", "name", "case"), CASES, ids=[f"{group}-{name}" for group, name, _ in CASES])
def test_other(benchmark: Any, group: str, name: str, case: Case) -> None:
    benchmark.group = group
    assert benchmark(case.call)


@pytest.mark.parametrize("group", PLAIN_C)
def test_plain_c(benchmark: Any, floor: Any, group: str) -> None:
    benchmark.group = group
    assert benchmark(PLAIN_C[group](floor).call, 1) > 0
