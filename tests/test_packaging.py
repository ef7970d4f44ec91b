"""What is built and installed: the sdist, the compiled wheel made from it, the pure wheel.

Built from a copy of the tree, unoptimised, so that neither the tree nor the time suffers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEAVES = ("log_c", "nodesconf_c", "wire_c")
BUILD = "import setuptools.build_meta as b, sys; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAFTFAST_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**kept, **variables}, capture_output=True, text=True, timeout=110
    )


def build(kind: str, source: Path, target: Path, **variables: str) -> Path:
    """Builds a `wheel` or an `sdist` and returns the file. What is printed is shown where it fails."""
    target.mkdir(exist_ok=True)
    done = run("-c", BUILD, kind, str(target), cwd=source, RAFTFAST_CFLAGS="-O0 -g0", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.splitlines()[-1]


def copy_tree(target: Path) -> Path:
    """What a checkout holds and a build may need, without anything built."""
    junk = shutil.ignore_patterns("*.so", "*.c", "*.egg-info", "__pycache__")
    for name in ("src", "docs", "tests", "benchmarks"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=junk)
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


def unpack(wheel: Path, target: Path) -> Path:
    """The wheel's content as an installer lays it: both wheels put everything at the archive's root."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_core_depends_on_nothing():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dependencies"] == []
    assert project["scripts"] == {"raftfast": "raftfast.__main__:main"}


def test_the_version_is_the_same_in_both_places():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'__version__ = "{project["version"]}"' in (ROOT / "src" / "raftfast" / "__init__.py").read_text("utf-8")


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
    assert {"README.md", "CHANGELOG.md", "LICENSE", "setup.py", "tests/test_packaging.py"} <= names
    assert [name for name in names if name.endswith((".c", ".so", ".pyc"))] == []


@pytest.mark.slow
def test_the_compiled_wheel_holds_the_leaves_their_stubs_and_no_source_of_theirs(wheel, source):
    names = names_in(wheel)
    for leaf in LEAVES:
        assert any(name.startswith(f"raftfast/hot/{leaf}.") and name.endswith(".so") for name in names)
        assert f"raftfast/hot/{leaf}.pyi" in names
    assert "raftfast/py.typed" in names
    assert [name for name in names if name.endswith((".pyx", ".pxi", ".c"))] == []
    assert [path for path in (source / "src").rglob("*") if path.suffix in (".c", ".so")] == []


@pytest.mark.slow
def test_the_pure_wheel_is_for_any_platform_and_holds_nothing_compiled(pure_wheel):
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    names = names_in(pure_wheel)
    assert "raftfast/hot/log_py.py" in names
    assert [name for name in names if name.endswith((".so", ".pyx", ".pxi", ".c"))] == []


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
def test_a_half_built_or_broken_install_is_an_error_and_no_silent_fallback(wheel, tmp_path):
    site = unpack(wheel, tmp_path)
    binary = next((site / "raftfast" / "hot").glob("wire_c.*.so"))
    binary.write_bytes(b"not a library")
    broken = run("-P", "-c", "import raftfast.hot", cwd=tmp_path, PYTHONPATH=str(site))
    assert broken.returncode == 1
    assert "ImportError" in broken.stderr
    binary.unlink()
    half = run("-P", "-c", "import raftfast.hot", cwd=tmp_path, PYTHONPATH=str(site))
    assert half.returncode == 1
    assert "half built: wire_c missing" in half.stderr


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


def test_the_ci_script_is_sound_bash_and_executable():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0


def test_the_readme_gives_both_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install '.[cli]' && .venv/bin/raftfast demo" in text
    assert "bash .ci/run" in text
