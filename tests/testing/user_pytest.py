"""pytest as a user has it: raftfast installed, by its metadata, and tests of their own in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Done(NamedTuple):
    """What a run printed, its exit code, and how many tests ended how."""

    stdout: str
    stderr: str
    code: int

    @property
    def outcomes(self) -> dict[str, int]:
        last = (self.stdout.rstrip().splitlines() or [""])[-1]
        return {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)}


class UserPytest:
    """A place that makes the tree an installed package, and beside it the folder for tests."""

    def __init__(self, place: Path) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        info = place / "site" / f"raftfast-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: raftfast\nVersion: {project['version']}\n")
        entries = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["pytest11"].items())
        (info / "entry_points.txt").write_text(f"[pytest11]\n{entries}")
        self.site = place / "site"
        self.folder = place / "tests"
        self.folder.mkdir()
        (self.folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers --strict-config\n")

    def write(self, name: str, text: str) -> None:
        """A file in the folder."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> Done:
        """A run of pytest."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAFTFAST_SIM", "PYTEST"))}
        path = os.pathsep.join([str(self.site), str(ROOT / "src")])
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *arguments],
            cwd=cwd if cwd is not None else self.folder,
            env={**kept, "PYTHONPATH": path, "COLUMNS": "120", **variables},
            capture_output=True,
            text=True,
            timeout=580,
        )
        return Done(done.stdout, done.stderr, done.returncode)
