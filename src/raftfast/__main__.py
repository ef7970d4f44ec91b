"""The command line's entry: `raftfast …` and `python -m raftfast …`.

Floor 6. Finds out whether the command line's packages are there; what the commands do is in `cli`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_NEEDED = ("click", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit code; `arguments` are those of the process where None."""
    try:
        from .cli import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        print(f"raftfast: {error.name} is not installed; run: pip install 'raftfast[cli]'", file=sys.stderr)
        return 2
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
