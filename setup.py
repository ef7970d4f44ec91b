"""The three Cython extensions and the variables that steer their build; all else is in pyproject.toml."""

import os

from setuptools import Extension, setup

LEAVES = ("log_c", "wire_c", "nodesconf_c")


def extensions():
    """The extensions to build: none where RAFTFAST_NO_EXTENSIONS asks for the pure package."""
    if os.environ.get("RAFTFAST_NO_EXTENSIONS", "") not in ("", "0"):
        return []
    from Cython.Build import cythonize

    flags = os.environ.get("RAFTFAST_CFLAGS", "-O3 -g0").split()
    modules = [
        Extension(f"raftfast.hot.{leaf}", [f"src/raftfast/hot/{leaf}.pyx"], extra_compile_args=flags) for leaf in LEAVES
    ]
    try:
        return cythonize(modules, build_dir="build/cython", language_level=3)
    except Exception as error:
        raise SystemExit(
            f"raftfast: a Cython extension could not be translated ({error}); set RAFTFAST_NO_EXTENSIONS=1 to build "
            "the pure-Python package instead"
        ) from error


setup(ext_modules=extensions())
