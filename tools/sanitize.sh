#!/usr/bin/env bash
# Builds the compiled leaves under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the tree, and runs
# tests/hot on them: any read or write out of bounds, use after free or undefined arithmetic ends the run.
#
#   tools/sanitize.sh [pytest arguments]     PYTHON: the interpreter (python3), with what `.[test]` installs; CC: gcc
#
# Python's own allocator is turned off, so that every object is a block that the sanitizer watches. What is left out:
# test_guard_pages (its objects lie unaligned on purpose, and it looks for the same reads by other means) and test_leaks
# (the sanitizer keeps what is freed).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
compiler=${CC:-gcc}
copy=$(mktemp -d)
# pytest holds the standard error of a process that dies; the sanitizer's report goes to a file, shown at the end.
trap 'code=$?; cat "$copy"/report.* >&2 2>/dev/null || true; rm -rf "$copy"; exit "$code"' EXIT

tar -c --exclude='*.so' --exclude='*.egg-info' --exclude=__pycache__ \
  src tests fuzz setup.py pyproject.toml README.md LICENSE | tar -x -C "$copy"
cd "$copy"
unset RAFTFAST_NO_EXTENSIONS RAFTFAST_PURE_TESTS

# A fault found is the end, not a line on the terminal.
export RAFTFAST_CFLAGS='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined'
CC=$compiler LDFLAGS='-fsanitize=address,undefined' "$python" setup.py -q build_ext --inplace

for leaf in log_c wire_c nodesconf_c; do
  grep -q __asan_report "src/raftfast/hot/$leaf".*.so || { echo "$leaf was built without the sanitizer" >&2; exit 1; }
done

# The interpreter itself is not sanitized: it must load the runtime before all else. What it leaks at its end is its own.
export LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1:log_path=$copy/report
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path=$copy/report
export PYTHONMALLOC=malloc PYTHONPATH=src PYTHONFAULTHANDLER=1
"$python" -m pytest -q -p no:cacheprovider -m "not processes" --timeout=600 tests/hot \
  --ignore=tests/hot/test_guard_pages.py --ignore=tests/hot/test_leaks.py "$@" </dev/null
