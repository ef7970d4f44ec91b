"""The three Cython extensions and the variables that steer their build; all else is in pyproject.toml.

RAFTFAST_NO_EXTENSIONS=1 builds the pure package; RAFTFAST_CFLAGS takes the place of the compiler's flags.
"""

import os

from setuptools import Extension, setup

LEAVES = ("log_c", "wire_c", "nodesconf_c")
FAILED = "raftfast: a compiled leaf could not be built ({}); RAFTFAST_NO_EXTENSIONS=1 builds the pure package instead"


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
        raise SystemExit(FAILED.format(error)) from error


ext_modules = extensions()
try:
    setup(ext_modules=ext_modules)
except SystemExit as error:
    # Where nothing is compiled the failure is another's, and told as it is.
    if not ext_modules or error.code in (None, 0):
        raise
    raise SystemExit(FAILED.format(error)) from error
