"""The mutation proof: runs every mutant of the core and writes docs/mutations.md, with the tests of each known bug.

    python tools/mutations.py            runs all of them (a few minutes) and writes the document
    python tools/mutations.py --check    runs none: does the document name the mutants and tests that there are?

A tool of the repository: it imports the tests, and nothing imports it. Exit code 1 where a mutant survives.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "mutations.md"
CORE = (
    "test_stricter",
    "test_stricter_members",
    "test_sentences_taken_out",
    "test_pitfalls_put_back",
    "test_rules_taken_out",
)
"""The modules of tests/consensus whose `CASES` are mutants."""

SIMULATED = {
    "a_step_down_clears_the_vote": "PROTOCOL 4",
    "votes_are_granted_twice_in_a_term": "figure 3.1, RequestVote 2",
    "votes_are_granted_to_who_is_behind": "figure 3.1, RequestVote 2",
    "the_own_vote_counts_before_it_is_durable": "PROTOCOL 4",
    "half_is_a_majority": "figure 3.1, Candidates",
    "promises_do_not_wait_for_the_disk": "PROTOCOL 5.5",
    "the_last_index_is_acknowledged": "PROTOCOL 5.3",
    "an_unverified_tail_is_acknowledged": "PROTOCOL 5.3",
    "what_is_not_durable_is_acknowledged": "PROTOCOL 5.3",
    "an_earlier_term_is_committed_by_counting": "PROTOCOL 5.4",
    "the_own_copy_counts_before_it_is_durable": "PROTOCOL 5.4",
    "a_follower_commits_its_own_tail": "PROTOCOL 5.1",
    "verified_outlives_its_term": "PROTOCOL 5.3",
    "a_write_in_flight_vouches_for_what_was_truncated": "PITFALLS, replication",
    "voter_changes_do_not_wait_for_each_other": "PROTOCOL 8",
    "a_voter_set_does_not_roll_back": "PROTOCOL 8",
    "the_vote_is_lost_by_a_restart": "PROTOCOL 11",
    "reads_are_not_confirmed": "PROTOCOL 5.6",
    "snapshots_forget_the_sessions": "PROTOCOL 6.3",
    "a_snapshot_has_the_label_of_the_commit_index": "PROTOCOL 7",
    "closed_sessions_are_not_remembered": "PROTOCOL 6.3",
    "a_failover_does_not_count_in_the_epoch": "PROTOCOL 10",
    "what_is_stale_is_applied": "PROTOCOL 10",
    "a_failed_sync_is_taken_for_stored": "PROTOCOL 11",
}
"""Where the rule stands that each mutation of tests/testing takes out."""


class Row(NamedTuple):
    rule: str
    source: str
    where: str
    killed_by: str
    result: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.rule, self.where


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="runs every mutant and writes docs/mutations.md")
    parser.add_argument("--check", action="store_true", help="run none, look whether the document is of today")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    chosen = parser.parse_args(arguments)
    sys.path[:0] = [str(ROOT / part) for part in ("tools", "tests/consensus", "tests/testing", "src")]
    if chosen.check:
        faults = check(chosen.document.read_text(encoding="utf-8"))
        print("\n".join(faults) or "docs/mutations.md is of today")
        return 1 if faults else 0
    core, simulated = run_core(), run_simulated()
    chosen.document.write_text(document(core, simulated), encoding="utf-8")
    survivors = [row.rule for row in core + simulated if row.result == "SURVIVED"]
    print(f"{len(core)} mutants of the core, {len(simulated)} in the simulator; survivors: {survivors or 'none'}")
    return 1 if survivors else 0


# ---------------------------------------------------------------------- the mutants


def core_cases() -> list[tuple[Row, Any]]:
    """Every mutant that a named test kills."""
    found = []
    for module in CORE:
        for parameters in importlib.import_module(module).CASES:
            case = parameters.values[0]
            where = ", ".join(sorted({name for name, _, _ in case.changes}))
            killer = case.test.__name__
            found.append((Row(case.rule, case.source or source_of(module, killer), where, killer), case))
    return found


def simulated_rows() -> list[Row]:
    """Every mutation that the simulator finds."""
    names = importlib.import_module("test_mutations").MUTATIONS
    return [Row(name.replace("_", " "), SIMULATED.get(name, "-"), "simulator", "the simulator") for name in names]


def source_of(module: str, test: str) -> str:
    """Where the rule stands that a named test is of: its name tells."""
    if module == "test_pitfalls_put_back":
        return "PITFALLS"
    if module == "test_sentences_taken_out":
        figure = "figure 5.3" if test.startswith("test_install") else "figure 3.1"
        return f"{figure}, {test.split('_')[1]}"
    numbers = re.match(r"test_(\d+)_(\d*)", test)
    if numbers is None:
        raise ValueError(f"{test} of {module} tells no section, and its mutant no source")
    return "PROTOCOL " + ".".join(number for number in numbers.groups() if number)


def run_core() -> list[Row]:
    import pytest
    from mutants import is_killed

    rows = []
    for row, case in core_cases():
        with pytest.MonkeyPatch.context() as patch:
            rows.append(row._replace(result="killed" if is_killed(case, patch) else "SURVIVED"))
    return rows


def run_simulated() -> list[Row]:
    import pytest
    import test_mutations

    rows = []
    for row, (name, patch) in zip(simulated_rows(), test_mutations.MUTATIONS.items(), strict=True):
        with pytest.MonkeyPatch.context() as patched:
            patch(patched)
            seed, reason = test_mutations.seeds_to_failure(name)
        seen = " ".join(re.sub(r"[|`]", " ", reason).split())
        killed_by = f"seed {seed} of {test_mutations.MOST_SEEDS}: {seen[:110]}" if reason else "no seed"
        rows.append(row._replace(killed_by=killed_by, result="killed" if reason else "SURVIVED"))
    return rows


# ---------------------------------------------------------------------- the document

OPENING = """# Mutation proof

Each row of the first two tables is one rule taken out of the core, or turned round, by a patch in memory, and what saw
it gone. `python tools/mutations.py` runs all of them and writes this file; the same mutants are tests of
`tests/consensus` and `tests/testing`. A survivor would stand here as SURVIVED. A mutant that makes the core hang, or
crash otherwise than by a failed check, proves nothing and is not here. The third part names the tests of the bugs that
other Raft systems shipped ("PITFALLS"), the fourth those of the rules in which this protocol is stricter than its
public form; what no test is known of would stand there as MISSING.

"""


def document(core: list[Row], simulated: list[Row]) -> str:
    from pitfalls import PITFALLS, STRICTER

    parts = [OPENING, f"## Killed by a named test ({len(core)})\n\n"]
    parts += table(("rule taken out", "source", "module", "killed by", "result"), core)
    parts += [f"\n## Killed by the simulator ({len(simulated)})\n\n"]
    parts += table(("rule taken out", "source", "module", "killed by", "result"), simulated)
    parts += ["\n## Bugs that others shipped, and their tests\n"]
    for section, bugs in PITFALLS.items():
        parts += [f"\n### {section}\n\n", *table(("bug", "tests"), linked(bugs))]
    parts += ["\n## Where the protocol is stricter, and the tests\n\n", *table(("rule", "tests"), linked(STRICTER))]
    return "".join(parts)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(line) + " |\n" for line in lines]


def linked(bugs: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(bug, ", ".join(f"`{test}`" for test in tests) or "MISSING") for bug, tests in bugs.items()]


def check(text: str) -> list[str]:
    """What the document names that is not there, and what is there that it does not name."""
    from pitfalls import PITFALLS, STRICTER

    faults = []
    rows = [line for line in text.split("\n") if line.endswith((" killed |", " SURVIVED |"))]
    written = [tuple(line.strip("|\n ").split(" | ")) for line in rows]
    told = [(row[0], row[2]) for row in written]
    there = [row.key for row, _ in core_cases()] + [row.key for row in simulated_rows()]
    faults += [f"not in docs/mutations.md: {rule} ({where})" for rule, where in there if (rule, where) not in told]
    faults += [f"no such mutant any more: {rule} ({where})" for rule, where in told if (rule, where) not in there]
    faults += [f"{len(told)} rows for {len(there)} mutants"] if len(told) != len(there) else []
    faults += [f"a survivor: {row[0]}" for row in written if row[-1] == "SURVIVED"]
    faults += [f"no source: {row.rule}: name it in SIMULATED" for row in simulated_rows() if row.source == "-"]
    for bug, tests in [pair for bugs in (*PITFALLS.values(), STRICTER) for pair in bugs.items()]:
        faults += [f"{bug}: no such test: {test}" for test in tests if not exists(test)]
        faults += [f"docs/mutations.md lacks: {bug}"] if (bug not in text) else []
        faults += [f"docs/mutations.md lacks, of {bug}: {test}" for test in tests if f"`{test}`" not in text]
    return faults


def exists(test: str) -> bool:
    """`folder/module::name` is a test function or class, `folder/name.txt` a story, `folder/module` a whole module."""
    path, _, name = test.partition("::")
    if path.endswith(".txt"):
        return (ROOT / "tests" / path).is_file()
    file = ROOT / "tests" / f"{path}.py"
    if not file.is_file():
        return False
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return not name or any(isinstance(node, defined) and node.name == name for node in tree)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
