"""What RAFTFAST_NO_EXTENSIONS=1 costs: every verb of the leaves, compiled and pure, in one table.

Run: python benchmarks/price.py [words of the verbs to time]. Times are the least of one run (µs, ms, s); the ratio is
that of the least times, in brackets that of the medians. For what a plain C program needs: c_floor.py.
"""

from __future__ import annotations

import importlib
import sys

from cases import VERBS, filled
from measuring import measure, ratio, shown


def main(words: list[str]) -> None:
    print(f"{'verb':48}{'compiled':>12}{'pure':>12}{'ratio':>18}  at least")
    for verb in VERBS:
        if not all(word in verb.name for word in words):
            continue
        compiled, pure = (importlib.import_module(f"raftfast.hot.{verb.leaf}_{twin}") for twin in ("c", "py"))
        times = measure({"c": verb.case(compiled), "py": verb.case(pure)})
        c, py = times["c"], times["py"]
        wanted = f"{verb.at_least:g}" if verb.at_least else ""
        print(f"{verb.name:48}{shown(c.least):>12}{shown(py.least):>12}{ratio(py, c):>18}  {wanted}", flush=True)
    if not words:
        memory()


def memory() -> None:
    """Bytes that a log of a million entries takes, besides the lines: an exact count, not a time."""
    sizes = []
    for twin in ("c", "py"):
        log = filled(importlib.import_module(f"raftfast.hot.log_{twin}"), 1_000_000)
        sizes.append(sys.getsizeof(log) / len(log))
    print(f"{'bytes an entry of 1,000,000, beyond the lines':48}{sizes[0]:>12.2f}{sizes[1]:>12.2f}{'at most 16':>28}")


if __name__ == "__main__":
    main(sys.argv[1:])
