#!/usr/bin/env bash
# Fuzzes the leaves, each for SECONDS, one after the other: both twins on the same bytes, guided by coverage.
#
#   fuzz/run.sh SECONDS [log|wire|nodesconf ...]     PYTHON: the interpreter (python3, of a version that atheris has)
#
# Needs PyPI for atheris, cython and hypothesis. Where clang is installed the leaves are built by it with the fuzzer's
# instrumentation and AddressSanitizer, so that the C guides too and a read out of bounds is a find; without it they are
# built as usual, and the pure twins' Python alone guides. Works in build/fuzz of the checkout: the corpus, which begins
# with the vectors, is kept there from run to run, and so are finds (play one again: `python fuzz/targets.py LEAF FILE`).
# The exit is 0 only if no leaf had a find.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:?usage: fuzz/run.sh SECONDS [LEAF ...]}
shift
leaves=("$@")
[ $# -gt 0 ] || leaves=(log wire nodesconf)
work=$PWD/build/fuzz
python=$work/venv/bin/python
tree=$work/tree
mkdir -p "$work"
unset RAFTFAST_NO_EXTENSIONS RAFTFAST_PURE_TESTS
export PIP_DISABLE_PIP_VERSION_CHECK=1

[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$work/venv"
"$python" -m pip install --quiet atheris 'cython>=3.1' 'hypothesis>=6.100' 'setuptools>=77'

# A copy: the checkout's own binaries stay what they are.
rm -rf "$tree"
mkdir "$tree"
tar -c --exclude='*.so' --exclude='*.egg-info' --exclude=__pycache__ src tests fuzz setup.py pyproject.toml README.md \
  LICENSE | tar -x -C "$tree"
cd "$tree"

preload=
if command -v clang >/dev/null; then
  RAFTFAST_CFLAGS='-O1 -g -fno-omit-frame-pointer -fsanitize=address -fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp' CC=clang LDSHARED='clang -shared' \
    "$python" setup.py -q build_ext --inplace
  # The runtime of both comes with atheris and must be the first library of the process.
  preload=$("$python" -c 'import atheris, os; print(os.path.join(atheris.path(), "asan_with_fuzzer.so"))')
  export PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_segv=1
else
  echo 'no clang: the compiled leaves give no coverage and are watched by nothing' >&2
  RAFTFAST_CFLAGS='-O1 -g' "$python" setup.py -q build_ext --inplace
fi

export PYTHONPATH=$tree/src:$tree/fuzz
failed=0
for leaf in "${leaves[@]}"; do
  mkdir -p "$work/corpus/$leaf" "$work/finds/$leaf"
  LD_PRELOAD=$preload "$python" - "$leaf" "$work/corpus/$leaf" <<'PY'
import hashlib, pathlib, sys

import targets

for data in targets.seeds(sys.argv[1]):
    (pathlib.Path(sys.argv[2]) / ("seed-" + hashlib.sha256(data).hexdigest()[:20])).write_bytes(data)
PY
  printf '==> %s, %s seconds\n' "$leaf" "$seconds"
  LD_PRELOAD=$preload "$python" fuzz/fuzz.py "$leaf" -max_total_time="$seconds" -max_len=6000 -timeout=20 \
    -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="$work/finds/$leaf/" "$work/corpus/$leaf" || failed=1
done
exit "$failed"
