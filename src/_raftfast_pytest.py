"""The pytest plugin: fixtures for simulated and real clusters, seeds for tests, and a report that repeats a failure.

Beside the package, not in it, and without an import of it but in the fixtures: pytest loads this in every run where
raftfast is installed, and a run that has nothing to do with it must not wait for it, nor choose its leaves too early.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from raftfast.testing import BlockingCluster, Simulation

_MARKER = (
    "raft_seeds(count=1, *, seeds=()): run a test that uses raft_sim or raft_seed once for each of `count` new seeds, "
    "or for each of those that are named"
)
_BASE_SEED = "raftfast_base_seed"
_base_seed = pytest.StashKey[int]()
_simulations = pytest.StashKey["list[Simulation]"]()
_clusters = pytest.StashKey["list[BlockingCluster]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the command line takes."""
    group = parser.getgroup("raftfast", "raftfast's simulated clusters")
    group.addoption("--raft-seed", type=int, metavar="SEED", help="run tests that use raft_sim with this seed alone")
    group.addoption("--raft-seed-count", type=int, metavar="N", help="new seeds for each test marked raft_seeds(count)")
    group.addoption(
        "--raft-trace", type=int, default=100, metavar="N", help="lines of a failure's trace to show (default: 100)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker, and the seed from which new ones are counted up: the same in all processes of a run."""
    config.addinivalue_line("markers", _MARKER)
    workerinput: dict[str, Any] = getattr(config, "workerinput", {})  # of pytest-xdist
    config.stash[_base_seed] = workerinput[_BASE_SEED] if _BASE_SEED in workerinput else _new_base_seed()


def _new_base_seed() -> int:
    given = os.environ.get("RAFTFAST_SIM_SEED", "")
    if not given:
        return time.time_ns() // 1_000_000 % 1_000_000_000
    try:
        return int(given)
    except ValueError:
        raise pytest.UsageError(f"RAFTFAST_SIM_SEED must be a whole number, not {given!r}") from None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A process of pytest-xdist is started."""
    node.workerinput[_BASE_SEED] = node.config.stash[_base_seed]


# ---------------------------------------------------------------------- seeds


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A marked test becomes one for each seed, with the seed in its id."""
    marker = metafunc.definition.get_closest_marker("raft_seeds")
    if marker is None:
        return
    seeds = _seeds_of(marker, metafunc.config)
    if "raft_seed" in metafunc.fixturenames:
        metafunc.parametrize("raft_seed", seeds, indirect=True, ids=[f"seed={seed}" for seed in seeds])
    elif marker in metafunc.definition.own_markers:  # that of a class or module may be meant for others
        pytest.fail("raft_seeds marks a test that uses neither raft_sim nor raft_seed", pytrace=False)


def _seeds_of(marker: pytest.Mark, config: pytest.Config) -> Sequence[int]:
    count, named = _read(*marker.args, **marker.kwargs)
    alone = config.getoption("--raft-seed")
    if alone is not None:
        return [alone]
    if named:
        return named
    wanted = config.getoption("--raft-seed-count")
    base = config.stash[_base_seed]
    return range(base, base + (wanted if wanted is not None else count))


def _read(*args: Any, **kwargs: Any) -> tuple[int, list[int]]:
    """The marker's arguments. Fails the test where they can't be."""

    def signature(count: int = 1, *, seeds: Sequence[int] = ()) -> tuple[int, list[int]]:
        named = list(seeds)
        if any(type(number) is not int for number in (count, *named)) or count < 1:
            raise TypeError("a count of at least 1, or seeds=[...], all whole numbers")
        return count, named

    try:
        return signature(*args, **kwargs)
    except TypeError as error:
        pytest.fail(f"raft_seeds takes something else: {error}", pytrace=False)


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """What the seeds are, where there are tests that have any."""
    if not any("raft_seed" in getattr(item, "fixturenames", ()) for item in items):
        return []
    alone, base = config.getoption("--raft-seed"), config.stash[_base_seed]
    if alone is not None:
        return [f"raftfast: seed {alone} alone"]
    return [f"raftfast: base seed {base}, RAFTFAST_SIM_SEED={base} makes the same runs again"]


# ---------------------------------------------------------------------- fixtures


@pytest.fixture
def raft_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test: of its mark `raft_seeds`, else that of --raft-seed, else a new one in each run."""
    seed: int | None = getattr(request, "param", None)
    if seed is None:
        seed = request.config.getoption("--raft-seed")
    return request.config.stash[_base_seed] if seed is None else seed


@pytest.fixture
def raft_sim(raft_seed: int, request: pytest.FixtureRequest) -> Iterator[Callable[..., Simulation]]:
    """Makes a simulated cluster of this test's seed: `raft_sim(3, state_machine=Mine, command=draw)`.

    The arguments are those of `raftfast.testing.Simulation`, without the seed.
    """
    from raftfast.testing import Simulation

    made: list[Simulation] = []
    request.node.stash[_simulations] = made
    defaults = {
        "keep": max(request.config.getoption("--raft-trace"), 1),
        "again": f"{_command(request.node, raft_seed)} runs it again",
    }

    def make(nodes: int = 3, **settings: Any) -> Simulation:
        made.append(Simulation(raft_seed, nodes, **{**defaults, **settings}))
        return made[-1]

    yield make
    del request.node.stash[_simulations]


@pytest.fixture
def raft_cluster(request: pytest.FixtureRequest) -> Iterator[Callable[..., BlockingCluster]]:
    """Makes a real cluster on loopback, formed: `raft_cluster(3, state_machine=Mine)`. It ends with the test.

    The arguments are those of `raftfast.testing.BlockingCluster`.
    """
    from raftfast.testing import BlockingCluster

    made: list[BlockingCluster] = []
    request.node.stash[_clusters] = made

    def make(size: int = 3, **settings: Any) -> BlockingCluster:
        if "directory" not in settings:
            folder = request.getfixturevalue("tmp_path") / f"cluster-{len(made)}"
            folder.mkdir()
            settings["directory"] = folder
        cluster = BlockingCluster(size, **settings)
        cluster.start()
        made.append(cluster)
        return cluster

    try:
        yield make
    finally:
        del request.node.stash[_clusters]
        for cluster in made:
            cluster.close()


# ---------------------------------------------------------------------- reports


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """A failure gets what is known of the clusters that it had."""
    simulations, clusters = item.stash.get(_simulations, []), item.stash.get(_clusters, [])
    if simulations and call.excinfo is not None:
        from raftfast.testing import SimulationFailure

        if isinstance(call.excinfo.value, SimulationFailure):
            call.excinfo.value.brief = True  # the trace is told below
    report = (yield).get_result()
    if report.failed:
        report.sections += [("raftfast simulation", _told(simulation)) for simulation in simulations]
        report.sections += [("raftfast cluster", cluster.describe()) for cluster in clusters]


def _told(simulation: Simulation) -> str:
    return (
        f"seed {simulation.seed}, {simulation.size} nodes: {simulation.again}\n\n{simulation.describe()}\n\n"
        f"{simulation.trace.text()}"
    )


def _command(item: pytest.Item, seed: int) -> str:
    """What repeats a test with its seed: its id may name the seed too, and is then the only one that there is."""
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    nodeid = "::".join((path, *item.nodeid.split("::")[1:]))
    return f"pytest {shlex.quote(nodeid)} --raft-seed {seed}"
