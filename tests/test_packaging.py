"""What is built and installed: the sdist, the wheel made from it, the pure wheel, the editable install.

Built from a copy of the tree, unoptimised, so that neither the tree nor the time suffers.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import raftfast

ROOT = Path(__file__).resolve().parents[1]
LEAVES = ("log_c", "nodesconf_c", "wire_c")
HOT = Path("src") / "raftfast" / "hot"
BINARY = importlib.machinery.EXTENSION_SUFFIXES[0]
BUILT = (".c", ".so", ".pyd", ".pyc", ".html")
STALE = ("log_c.c", "wire_c.html", "wire_c.abi3.so", "log_c.cpython-39-x86_64-linux-gnu.so", "nodesconf_c.pyd")
"""What builds of long ago may have left in a tree. No interpreter that runs this loads one of these binaries."""

SMOKE = """
import json, raftfast
from raftfast import RaftLog, nodesconf, wire
from raftfast.messages import AppendEntries
log = RaftLog()
log.extend([1, 1, 2], [b"1 NOOP", b"1 APP x", b"2 NODE_JOIN a"])
sent = AppendEntries("a1" * 20, 2, 0, 0, 3, *log.entries(1, 4), None)
assert wire.FrameDecoder().feed(wire.encode(sent)) == [sent]
line = nodesconf.log_line(3, log.line(3))
assert line == b"log %016x 3 2 NODE_JOIN a\\n" % nodesconf.crc64(b"3 2 NODE_JOIN a")
node = b"a1" * 20 + b" 127.0.0.1:7000@17000, myself,master - 0 0 1 connected 0-16383"
assert nodesconf.format_node_line(nodesconf.parse_node_line(node)) == node
kinds = [module.__name__[-2:] for module in (raftfast.hot.log, wire, nodesconf)]
print(json.dumps([raftfast.COMPILED, kinds, raftfast.__file__]))
"""
"""Each leaf does its work once; says which one it is and where it is from."""
BUILD = "import setuptools.build_meta as b, sys; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAFTFAST_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**kept, **variables}, capture_output=True, text=True, timeout=400
    )


def build(kind: str, source: Path, target: Path, **variables: str) -> Path:
    """Builds a `wheel` or an `sdist` and returns the file. What is printed is shown where it fails."""
    target.mkdir(exist_ok=True)
    done = run("-c", BUILD, kind, str(target), cwd=source, RAFTFAST_CFLAGS="-O0 -g0", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.splitlines()[-1]


def copy_tree(target: Path) -> Path:
    """What a checkout holds and a build may need, and what builds of long ago left there."""
    junk = shutil.ignore_patterns("*.so", "*.c", "*.egg-info", "__pycache__")
    for name in ("src", "docs", "tests", "benchmarks", "fuzz", "tools"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=junk)
    for name in STALE:
        (target / HOT / name).write_bytes(b"stale")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    return build("sdist", copy_tree(folder / "tree"), folder / "dist")


@pytest.fixture(scope="module")
def source(sdist: Path) -> Path:
    """The unpacked sdist: what others build from."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    return sdist.parent / sdist.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def pure_wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pure")
    tree = shutil.copytree(source, folder / "tree", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    return build("wheel", tree, folder / "dist", RAFTFAST_NO_EXTENSIONS="1")


@pytest.fixture(scope="module")
def editable(source: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for sites that makes a tree of its own importable. After `wheel`: its objects are taken again."""
    folder = tmp_path_factory.mktemp("editable")
    tree = shutil.copytree(source, folder / "tree", ignore=shutil.ignore_patterns("*.egg-info"))
    return unpack(build("editable", tree, folder / "dist"), folder / "site")


def unpack(wheel: Path, target: Path) -> Path:
    """The wheel's content as an installer lays it: both wheels put everything at the archive's root."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def smoke(site: Path, cwd: Path, **variables: str) -> tuple[bool, list[str], Path]:
    """What SMOKE prints where `site` holds what is installed and `cwd`, outside of any tree, is the current folder.

    Without the site-packages of this environment: the tree itself may be installed there.
    """
    call = f"import site; site.addsitedir({str(site)!r})\n{SMOKE}"
    done = run("-P", "-S", "-c", call, cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr
    compiled, kinds, file = json.loads(done.stdout)
    return compiled, kinds, Path(file)


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_core_depends_on_nothing():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dependencies"] == []
    assert project["scripts"] == {"raftfast": "raftfast.__main__:main"}


def test_the_version_is_the_same_in_both_places():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == raftfast.__version__


def test_no_build_product_is_tracked():
    """Looked up in git's index: a developer's own tree may hold what he built."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = listed.stdout.split("\0")
    assert "setup.py" in names
    assert [name for name in names if name.endswith((".c", ".so", ".pyc", ".html"))] == []


def test_every_leaf_has_its_twin_and_its_stub():
    folder = ROOT / "src" / "raftfast" / "hot"
    present = {path.name for path in folder.iterdir()}
    for leaf in LEAVES:
        assert {f"{leaf}.pyx", f"{leaf}.pyi", leaf.replace("_c", "_py") + ".py"} <= present


@pytest.mark.slow
def test_the_sdist_holds_sources_and_nothing_built(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for leaf in LEAVES:
        assert {f"src/raftfast/hot/{leaf}.pyx", f"src/raftfast/hot/{leaf}.pyi"} <= names
    assert {str(path.relative_to(ROOT)) for path in (ROOT / HOT).glob("*.pxi")} <= names
    assert {"README.md", "CHANGELOG.md", "LICENSE", "setup.py", "tests/test_packaging.py", "fuzz/run.sh"} <= names
    assert [name for name in names if name.endswith(BUILT)] == []


@pytest.mark.slow
def test_the_compiled_wheel_holds_the_leaves_their_stubs_and_no_source_of_theirs(wheel, source):
    names = names_in(wheel)
    for leaf in LEAVES:
        assert any(name.startswith(f"raftfast/hot/{leaf}.") and name.endswith(".so") for name in names)
        assert f"raftfast/hot/{leaf}.pyi" in names
    assert "raftfast/py.typed" in names
    assert [name for name in names if name.endswith((".pyx", ".pxi", *BUILT)) and not name.endswith(BINARY)] == []
    assert len([name for name in names if name.endswith(BINARY)]) == len(LEAVES)
    assert [path for path in (source / "src").rglob("*") if path.name.endswith(BUILT)] == []
    assert {name for name in names if name.endswith(".py")} == {
        str(path.relative_to(source / "src")) for path in (source / "src").rglob("*.py")
    }
    assert "_raftfast_pytest.py" in names


@pytest.mark.slow
def test_the_pure_wheel_is_for_any_platform_and_holds_nothing_compiled(pure_wheel):
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    names = names_in(pure_wheel)
    assert "raftfast/hot/log_py.py" in names
    assert [name for name in names if name.endswith((".pyx", ".pxi", *BUILT))] == []


@pytest.mark.slow
def test_a_tree_with_leftovers_of_old_builds_gives_none_of_them_away(tmp_path):
    """Built right from a checkout, as `pip install .` does: the leftovers are there and are not taken along."""
    tree = copy_tree(tmp_path / "tree")
    assert all((tree / HOT / name).exists() for name in STALE)
    made = build("wheel", tree, tmp_path / "dist", RAFTFAST_NO_EXTENSIONS="1")
    assert [name for name in names_in(made) if name.endswith((".pyx", ".pxi", *BUILT))] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "pure_wheel", "editable"])
def test_what_is_installed_works_outside_of_the_tree(kind, request, tmp_path):
    site = made = request.getfixturevalue(kind)
    if kind != "editable":
        site = unpack(made, tmp_path / "site")
    compiled, kinds, file = smoke(site, tmp_path)
    assert (compiled, kinds) == ((False, ["py"] * 3) if kind == "pure_wheel" else (True, ["_c"] * 3))
    assert file.is_relative_to(made.parent if kind == "editable" else site)
    assert smoke(site, tmp_path, RAFTFAST_NO_EXTENSIONS="1")[:2] == (False, ["py"] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compiled", "pure"])
def test_the_installed_package_says_which_it_is(kind, request, tmp_path):
    site = unpack(request.getfixturevalue("wheel" if kind == "compiled" else "pure_wheel"), tmp_path)
    done = run("-P", "-m", "raftfast", "--version", cwd=tmp_path, PYTHONPATH=str(site))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (done.stdout, done.stderr, done.returncode) == (f"raftfast {version} ({kind})\n", "", 0)


@pytest.mark.slow
def test_the_variable_at_import_turns_the_compiled_leaves_off(wheel, tmp_path):
    site = unpack(wheel, tmp_path)
    ask = "import raftfast.hot as hot; print(hot.COMPILED, hot.log.__name__)"
    for value, answer in (
        ("", "True raftfast.hot.log_c"),
        ("0", "True raftfast.hot.log_c"),
        ("1", "False raftfast.hot.log_py"),
    ):
        done = run("-P", "-c", ask, cwd=tmp_path, PYTHONPATH=str(site), RAFTFAST_NO_EXTENSIONS=value)
        assert done.stdout.strip() == answer, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "pure_wheel"])
def test_what_is_installed_brings_its_pytest_plugin(kind, request, tmp_path):
    site = unpack(request.getfixturevalue(kind), tmp_path / "site")
    (tmp_path / "test_it.py").write_text("def test_it(raft_sim):\n    raft_sim(1).run(1.0)\n")
    done = run("-P", "-m", "pytest", "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "raftfast: base seed " in done.stdout


def binary_of(site: Path, leaf: str) -> Path:
    return site / "raftfast" / "hot" / (leaf + BINARY)


@pytest.mark.slow
@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("fault", ["no library", "empty", "its header's beginning", "its half", "another leaf's"])
def test_a_broken_binary_is_an_error_and_no_silent_fallback(wheel, tmp_path, leaf, fault):
    """An ImportError; of a half the system's loader maps what is not there, and the process may be killed instead."""
    site = unpack(wheel, tmp_path)
    binary = binary_of(site, leaf)
    whole = binary.read_bytes()
    other = binary_of(site, LEAVES[LEAVES.index(leaf) - 1]).read_bytes()
    broken = {
        "no library": b"not a library",
        "empty": b"",
        "its header's beginning": whole[:40],
        "its half": whole[: len(whole) // 2],
        "another leaf's": other,
    }
    binary.write_bytes(broken[fault])
    for module in ("raftfast", "raftfast.hot"):
        done = run("-P", "-c", f"import {module}", cwd=tmp_path, PYTHONPATH=str(site))
        if fault != "its half" or done.returncode > 0:
            assert done.returncode == 1
            assert done.stderr.splitlines()[-1].startswith("ImportError: ")
        assert done.returncode in (1, -signal.SIGBUS, -signal.SIGSEGV)
    assert smoke(site, tmp_path, RAFTFAST_NO_EXTENSIONS="1")[0] is False


@pytest.mark.slow
def test_half_built_is_an_error_and_absent_is_a_fallback(wheel, tmp_path):
    site = unpack(wheel, tmp_path / "site")
    for gone in range(1, len(LEAVES)):
        binary_of(site, LEAVES[gone - 1]).unlink()
        done = run("-P", "-c", "import raftfast", cwd=tmp_path, PYTHONPATH=str(site))
        assert done.returncode == 1
        missing = ", ".join(leaf for leaf in ("log_c", "wire_c", "nodesconf_c") if leaf in LEAVES[:gone])
        assert f"ImportError: raftfast is half built: {missing} missing" in done.stderr
    binary_of(site, LEAVES[-1]).unlink()
    assert smoke(site, tmp_path)[:2] == (False, ["py"] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["translation", "compiler"])
def test_a_failing_compile_fails_the_build_and_names_the_variable(source, tmp_path, fault):
    tree = shutil.copytree(source, tmp_path / "tree", ignore=shutil.ignore_patterns("*.egg-info"))
    variables = {}
    if fault == "translation":
        leaf = tree / "src" / "raftfast" / "hot" / "log_c.pyx"
        leaf.write_text(leaf.read_text(encoding="utf-8") + "\ncdef int broken(:\n", encoding="utf-8")
    else:
        variables["CC"] = "false"
        shutil.rmtree(tree / "build", ignore_errors=True)
    done = run("-c", BUILD, "wheel", str(tmp_path), cwd=tree, RAFTFAST_CFLAGS="-O0 -g0", **variables)
    assert done.returncode != 0
    assert "RAFTFAST_NO_EXTENSIONS=1" in done.stderr
    assert list(tmp_path.glob("*.whl")) == []


def test_without_the_command_lines_packages_one_line_says_what_to_install(tmp_path):
    """`-S` leaves out site-packages, where click and rich live."""
    call = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); from raftfast.__main__ import main; sys.exit(main([]))"
    )
    done = run("-S", "-c", call, cwd=tmp_path, RAFTFAST_NO_EXTENSIONS="1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "raftfast: click is not installed; run: pip install 'raftfast[cli]'\n"


@pytest.mark.parametrize("name", [".ci/run", "tools/sanitize.sh", "tools/pythons.sh", "fuzz/run.sh"])
def test_a_script_is_sound_bash_and_executable(name):
    script = ROOT / name
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0


def test_the_readme_gives_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install '.[cli]' && .venv/bin/raftfast demo" in text
    assert "bash .ci/run" in text
