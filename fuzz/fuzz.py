"""Fuzzes one leaf under atheris: `python fuzz/fuzz.py LEAF [libFuzzer's arguments]`; run.sh calls it.

Guided by the coverage of the pure twin's Python, and of the compiled twin's C where clang built it for that.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["raftfast.hot"]):
    import targets

if __name__ == "__main__":
    leaf = sys.argv.pop(1)
    atheris.Setup(sys.argv, targets.TARGETS[leaf])
    atheris.Fuzz()
