"""The leaves' twins, compiled (`c`) and pure (`py`): which of them this run is about, and each by its name.

RAFTFAST_PURE_TESTS=1 selects `py` alone, for the leg of CI that has no compiler. Nothing is chosen by what happens to
be built: a compiled twin that is asked for and can't be imported is an error, never a skip.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

__all__ = ["IMPLEMENTATIONS", "leaf"]

IMPLEMENTATIONS = ("py",) if os.environ.get("RAFTFAST_PURE_TESTS", "") not in ("", "0") else ("c", "py")


def leaf(impl: str, name: str) -> ModuleType:
    """The twin `impl` (`c` or `py`) of the leaf `name` (`log`, `wire`, `nodesconf`)."""
    return importlib.import_module(f"raftfast.hot.{name}_{impl}")
