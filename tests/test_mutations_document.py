"""docs/mutations.md names the mutants and the tests that there are: all of them, and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "mutations.md"


def check(document: Path) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "tools" / "mutations.py"), "--check", "--document", str(document)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_document_is_of_today() -> None:
    code, said = check(DOCUMENT)
    assert (code, said) == (0, "docs/mutations.md is of today\n"), said + "run tools/mutations.py"


def test_a_document_that_is_not_of_today_is_seen(tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [line for line in text.split("\n") if line.endswith(" killed |")]
    assert len(rows) >= 40
    other = tmp_path / "mutations.md"
    other.write_text(
        text.replace(rows[0] + "\n", "")
        .replace(rows[1], rows[1].replace("| ", "| no ", 1))
        .replace(rows[2], rows[2].replace(" killed |", " SURVIVED |"))
        .replace("half-open links", "links"),
        encoding="utf-8",
    )
    code, said = check(other)
    assert code == 1
    for fault in (
        f"not in docs/mutations.md: {rows[0].split(' | ')[0][2:]} (",
        f"no such mutant any more: no {rows[1].split(' | ')[0][2:]} (",
        f"a survivor: {rows[2].split(' | ')[0][2:]}\n",
        "docs/mutations.md lacks: half-open links that swallow messages\n",
    ):
        assert fault in said, said
