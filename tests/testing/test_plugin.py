"""The pytest plugin, as a user has it: found by its entry point, in runs of pytest of their own."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from user_pytest import ROOT, Done, UserPytest

pytestmark = pytest.mark.slow
Run = Callable[..., Done]

COUNTER = """
import pytest

import raftfast
from raftfast.testing import CALM, Faults


class Counter(raftfast.StateMachine):
    def __init__(self):
        self.value = 0

    def apply(self, index, command):
        self.value += int(command)
        return b"%d" % self.value

    def snapshot(self):
        return [b"%d" % self.value]

    def restore(self, pieces):
        self.value = int(b"".join(pieces) or b"0")


class Wrong(Counter):
    made = 0

    def __init__(self):
        super().__init__()
        Wrong.made += 1
        self.number = 1000 + Wrong.made  # another one in each node, of the same length

    def apply(self, index, command):
        self.value = self.number


def one(rng):
    return b"1"


"""

FAILING = """
@pytest.mark.raft_seeds(2)
def test_wrong(raft_sim):
    raft_sim(state_machine=Wrong, command=one, faults=CALM).run(2.0)
"""


@pytest.fixture
def run(user: UserPytest) -> Callable[..., Done]:
    """Runs a user's pytest over the text of a test module."""

    def run(tests: str, *arguments: str, **settings: Any) -> Done:
        user.write("test_it.py", COUNTER + tests)
        return user.run(*arguments, **settings)

    return run


def test_a_run_that_has_nothing_to_do_with_it_hears_nothing_of_it_and_imports_nothing_of_it(run: Run, user: UserPytest):
    user.write(
        "conftest.py",
        "import sys\n\ndef pytest_sessionfinish():\n    assert 'raftfast' not in sys.modules\n",
    )
    user.write("test_other.py", "def test_nothing():\n    pass\n")
    done = run("", "test_other.py")
    assert done.outcomes == {"passed": 1}, done.stdout + done.stderr
    assert "raftfast:" not in done.stdout
    assert "seed" not in done.stdout


def test_the_marker_gives_new_seeds_and_the_base_seed_is_told(run: Run):
    done = run(
        """
@pytest.mark.raft_seeds(3)
def test_count(raft_sim):
    raft_sim(state_machine=Counter, command=one).run(2.0)

@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.raft_seeds
def test_seed(raft_seed, size):
    assert raft_seed == 500

def test_without_mark(raft_sim):
    assert raft_sim(5, state_machine=Counter, command=one).seed == 500
""",
        "-v",
        RAFTFAST_SIM_SEED="500",
    )
    assert done.outcomes == {"passed": 6}, done.stdout
    assert "raftfast: base seed 500, RAFTFAST_SIM_SEED=500 makes the same runs again" in done.stdout
    for seed in (500, 501, 502):
        assert f"test_count[seed={seed}] PASSED" in done.stdout
    assert "test_without_mark PASSED" in done.stdout


def test_new_runs_have_new_seeds(run: Run):
    tests = "def test_it(raft_seed):\n    pass\n"
    seeds = [re.search(r"base seed (\d+)", run(tests).stdout) for _ in range(2)]
    assert seeds[0] is not None
    assert seeds[1] is not None
    assert seeds[0][1] != seeds[1][1]


def test_named_seeds(run: Run):
    tests = """
@pytest.mark.raft_seeds(seeds=[17, 4711])
class TestNamed:
    def test_named(self, raft_sim):
        assert raft_sim().seed in (17, 4711)

    def test_other(self):
        pass

    @pytest.mark.raft_seeds(seeds=(3,))
    def test_closer(self, raft_seed):
        assert raft_seed == 3
"""
    done = run(tests, "-v", "--raft-seed-count", "5")
    assert done.outcomes == {"passed": 4}, done.stdout
    assert "test_named[seed=17]" in done.stdout
    assert "test_named[seed=4711]" in done.stdout


def test_a_count_for_one_run(run: Run):
    tests = "@pytest.mark.raft_seeds(2)\ndef test_it(raft_seed):\n    pass\n"
    assert run(tests, "--raft-seed-count", "7").outcomes == {"passed": 7}


def test_a_failure_tells_its_seed_and_what_happened_and_the_command_in_it_fails_in_the_same_way(run: Run):
    done = run(FAILING, RAFTFAST_SIM_SEED="500")
    assert done.outcomes == {"failed": 2}, done.stdout
    assert "E       raftfast.testing.simulation.SimulationFailure: MachineFault: " in done.stdout
    assert "apply() must depend on the state and the commands alone" in done.stdout
    assert re.search(r"-+ raftfast simulation -+\nseed 501, 3 nodes: pytest ", done.stdout)
    assert re.search(r"\nn1 [0-9a-f]{8} member (leader|follower) term 1 ", done.stdout)
    assert done.stdout.count(" AppendEntries(") > 1
    assert done.stdout.count(" AppendEntries(") < 220, "each trace is told once"
    found = re.search(r"pytest '(test_it\.py::test_wrong\[seed=501\])' --raft-seed 501 runs it again", done.stdout)
    assert found is not None, done.stdout
    again = run(FAILING, found[1], "--raft-seed", "501")
    assert again.outcomes == {"failed": 1}
    assert "raftfast: seed 501 alone" in again.stdout
    assert trace(again) == trace(done)[-len(trace(again)) :] != []


def trace(done: Done) -> list[str]:
    """The lines of the trace of seed 501: what happened, and when."""
    section = done.stdout[done.stdout.index("\nseed 501, 3 nodes: pytest ") :]
    return re.findall(r"^ *\d+\.\d{4}  n\d+ +\S+", section, re.MULTILINE)


def test_a_failed_assertion_of_the_test_is_told_likewise(run: Run):
    done = run(
        """
def test_it(raft_sim):
    simulation = raft_sim(state_machine=Counter, command=one, faults=CALM)
    simulation.form()
    assert simulation.leader() is None
""",
        "--raft-seed=42",
        "--raft-trace=7",
    )
    assert done.outcomes == {"failed": 1}
    assert "pytest test_it.py::test_it --raft-seed 42 runs it again" in done.stdout
    assert len(re.findall(r"^ *\d+\.\d{4}  ", done.stdout, re.MULTILINE)) == 7


def test_the_traceback_shows_the_test_and_the_machine_and_no_simulator(run: Run):
    done = run(
        """
class Raises(Counter):
    def apply(self, index, command):
        raise KeyError("no")

def test_it(raft_sim):
    raft_sim(state_machine=Raises, command=one, faults=CALM).run()
"""
    )
    assert done.outcomes == {"failed": 1}
    assert '>       raise KeyError("no")' in done.stdout
    assert ">       raft_sim(state_machine=Raises, command=one, faults=CALM).run()" in done.stdout
    assert "raises KeyError('no')" in done.stdout
    assert not re.findall(r"^\S*/testing/\w+\.py:\d+", done.stdout, re.MULTILINE)


def test_it_is_run_from_another_folder(run: Run, user: UserPytest):
    done = run(FAILING, "--raft-seed=1", "tests", cwd=user.folder.parent)
    assert "pytest 'tests/test_it.py::test_wrong[seed=1]' --raft-seed 1" in done.stdout


def test_marks_that_can_not_be_are_errors_of_their_tests(run: Run, user: UserPytest):
    bad = {
        "(0)": "a count of at least 1",
        "('many')": "all whole numbers",
        "(seeds=[1.5])": "all whole numbers",
        "(seeds=4)": "raft_seeds takes something else",
        "(number=4)": "unexpected keyword argument",
        "(1, 2)": "positional argument",
    }
    for number, mark in enumerate(bad):
        user.write(
            f"test_bad_{number}.py",
            f"import pytest\n\n@pytest.mark.raft_seeds{mark}\ndef test_it(raft_seed):\n    pass\n",
        )
    done = run("def test_good(raft_seed):\n    pass\n")
    assert done.outcomes == {"errors": len(bad)}, done.stdout
    for number, told in enumerate(bad.values()):
        part = done.stdout.split(f"ERROR collecting test_bad_{number}.py")[1].split("ERROR collecting")[0]
        assert told in part


def test_a_mark_on_a_test_without_seeds_is_an_error(run: Run):
    done = run("@pytest.mark.raft_seeds(2)\ndef test_it():\n    pass\n")
    assert done.outcomes == {"error": 1}
    assert "raft_seeds marks a test that uses neither raft_sim nor raft_seed" in done.stdout


def test_a_variable_that_is_no_number_is_one_clear_error(run: Run):
    done = run("", RAFTFAST_SIM_SEED="x")
    assert done.code == pytest.ExitCode.USAGE_ERROR
    assert "RAFTFAST_SIM_SEED must be a whole number, not 'x'" in done.stderr


def test_the_marker_and_the_options_are_told_to_who_asks(run: Run):
    assert "@pytest.mark.raft_seeds(count=1, *, seeds=())" in run("", "--markers").stdout
    assert "--raft-seed=SEED" in run("", "--help").stdout
    done = run("def test_it(raft_seed):\n    pass\n", "--fixtures")
    for name in ("raft_seed", "raft_sim", "raft_cluster"):
        assert re.search(rf"^{name} -- ", done.stdout, re.MULTILINE)


def test_it_can_be_turned_off(run: Run):
    done = run("def test_it(raft_sim):\n    pass\n", "-p", "no:raftfast")
    assert done.outcomes == {"error": 1}
    assert "fixture 'raft_sim' not found" in done.stdout


def test_the_simulator_works_without_it(run: Run):
    done = run(
        """
from raftfast.testing import Simulation, SimulationFailure

def test_it():
    Simulation(1, state_machine=Counter, command=one).run(2.0)
    with pytest.raises(SimulationFailure):
        Simulation(1, state_machine=Wrong, command=one).run(2.0)
""",
        "-p",
        "no:raftfast",
    )
    assert done.outcomes == {"passed": 1}, done.stdout


CLUSTER = """
import threading

def test_right(raft_cluster):
    cluster = raft_cluster(3, state_machine=Counter)
    with cluster.nodes[1].session() as session:
        session.propose(b"2")
    cluster.wait_until(cluster.converged)
    assert [machine.value for machine in cluster.machines] == [2, 2, 2]

def test_wrong(raft_cluster):
    cluster = raft_cluster(2, state_machine=Counter)
    cluster.kill(cluster.nodes[1])
    assert len(cluster.live) == 2

def test_nothing_is_left():
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("raftfast")]
"""


def test_a_real_cluster_ends_with_its_test_and_a_failure_tells_its_state(run: Run):
    done = run(CLUSTER, "-W", "error")
    assert done.outcomes == {"failed": 1, "passed": 2}, done.stdout
    assert re.search(r"-+ raftfast cluster -+\nnodes\[0\]: [0-9a-f]{8} member ", done.stdout)
    assert "\nnodes[1]: has ended" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_all_processes_of_xdist_have_the_same_seeds(run: Run):
    done = run(FAILING, "-n2")
    assert done.outcomes == {"failed": 2}, done.stdout + done.stderr
    assert done.stdout.count(" raftfast simulation ") == 2


def test_processes_take_the_base_seed_of_who_started_them():
    """What pytest-xdist does with the hooks, where it is not installed: a worker has its `workerinput`."""
    sys.path.insert(0, str(ROOT / "src"))
    import _raftfast_pytest as plugin

    class Config:
        def __init__(self) -> None:
            self.stash = pytest.Stash()

        def addinivalue_line(self, name: str, line: str) -> None:
            assert (name, line.split("(")[0]) == ("markers", "raft_seeds")

    controller, worker, node = Config(), Config(), Config()
    plugin.pytest_configure(controller)  # type: ignore[arg-type]
    node.config, node.workerinput = controller, {}  # type: ignore[attr-defined]
    plugin.pytest_configure_node(node)
    worker.workerinput = node.workerinput  # type: ignore[attr-defined]
    controller.stash[plugin._base_seed] += 1
    plugin.pytest_configure(worker)  # type: ignore[arg-type]
    assert worker.stash[plugin._base_seed] == controller.stash[plugin._base_seed] - 1
