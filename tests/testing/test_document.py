"""docs/testing.md: its Python is run as a user would, its tables name what there is."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from user_pytest import ROOT, UserPytest

from raftfast.testing import Faults, SimulatedNode, Simulation
from raftfast.testing.workload import Operation

TEXT = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_it_shows_works(user: UserPytest):
    """By the same seeds each time: what new ones find is for test_simulation."""
    user.write("test_page.py", "\n\n".join(re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)))
    done = user.run(RAFTFAST_SIM_SEED="1")
    assert done.outcomes == {"passed": 15}, done.stdout


@pytest.mark.slow
def test_the_options_that_it_names_are_all_that_there_are(user: UserPytest):
    named = set(re.findall(r"--raft-[a-z-]+", TEXT))
    assert named == set(re.findall(r"--raft-[a-z-]+", user.run("--help").stdout))


def test_each_fault_has_a_row_with_its_default():
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \|(.*)\|$", TEXT.split("## Faults")[1], re.MULTILINE)}
    for field in fields(Faults):
        assert field.name in rows, f"{field.name} is missing"
        last = rows[field.name].split("|")[-1].strip()
        assert float(last) == field.default if re.fullmatch(r"[\d.]+", last) else field.default == 0.0


@pytest.mark.parametrize(("part", "kind"), [("of a simulation", Simulation), ("of a node", SimulatedNode)])
def test_each_step_is_there(part: str, kind: type):
    table = TEXT.split(f"| {part} |")[1].split("\n\n")[0]
    named = {name for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)", row)}
    assert len(named) > 7
    made = vars(Simulation(1, 1)) if kind is Simulation else {}
    assert [name for name in named if not hasattr(kind, name) and name not in made] == []
    assert {"answer", "index", "error", "state"} <= set(dir(Operation)) | set(Operation.__init__.__code__.co_names)


def test_readme_and_map_lead_to_it():
    for path in ("README.md", "docs/architecture.md"):
        assert "testing.md)" in (ROOT / path).read_text(encoding="utf-8")
