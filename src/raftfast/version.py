"""The version of raftfast, for all that tell it; `pyproject.toml` has the same, which a test holds.

Floor 0. Nothing else.
"""

from __future__ import annotations

from typing import Final

__all__ = ["VERSION"]

VERSION: Final = "0.1.0"
