#!/usr/bin/env bash
# Builds the wheel with each CPython from 3.11 to 3.14 that is here, installs it into a virtual environment of its own
# and runs tests/hot on it, from a folder in which the sources are not.
#
#   tools/pythons.sh [pytest arguments]     PYTHONS: the interpreters, where not those on the path and pyenv's
#
# Needs PyPI for what the build and the tests need. The exit is 0 only if every one passed, and there was one.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset RAFTFAST_NO_EXTENSIONS RAFTFAST_PURE_TESTS PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=() failed=()

build_and_test() {  # && throughout: what `if` calls is not ended by a failure
  local python=$2/venv/bin/python
  "$1" -m venv "$2/venv" &&
    "$python" -m pip install --quiet 'setuptools>=77' 'cython>=3.1' cffi hypothesis pytest pytest-timeout click rich &&
    RAFTFAST_CFLAGS='-O1 -g0' "$python" -m pip install --quiet --no-build-isolation --no-deps "$2/tree" &&
    (
      cd "$2/outside" &&
        "$python" -c 'import raftfast, sys; sys.exit(not raftfast.COMPILED)' &&
        "$python" -m pytest -q -p no:cacheprovider -m 'not processes' tests/hot "${@:3}" </dev/null
    )
}

for name in ${PYTHONS:-python3.11 python3.12 python3.13 python3.14 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-4].*/bin/python}; do
  command -v "$name" >/dev/null || continue
  # The tag tells a pyenv shim without its version, PyPy, and one that was met under another name.
  tag=$("$name" -c 'import sys; print(sys.implementation.cache_tag)' 2>/dev/null) || continue
  [[ $tag == cpython-* ]] && [ ! -e "$work/$tag" ] || continue
  folder=$work/$tag
  mkdir -p "$folder/tree" "$folder/outside"
  printf '==> %s, %s\n' "$("$name" -VV | head -n 1)" "$name"
  tar -c --exclude='*.so' --exclude='*.egg-info' --exclude=__pycache__ src setup.py pyproject.toml MANIFEST.in \
    README.md LICENSE | tar -x -C "$folder/tree"
  tar -c --exclude=__pycache__ tests/conftest.py tests/tally.py tests/twins.py tests/hot tests/vectors fuzz \
    pyproject.toml | tar -x -C "$folder/outside"
  if build_and_test "$name" "$folder" "$@"; then passed+=("$tag"); else failed+=("$tag"); fi
done

printf '\npassed: %s\nfailed: %s\n' "${passed[*]:-none}" "${failed[*]:-none}"
[ ${#failed[@]} -eq 0 ] && [ ${#passed[@]} -gt 0 ]
