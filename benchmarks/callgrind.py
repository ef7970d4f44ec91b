"""Instructions that a verb takes, counted by valgrind: a before-and-after that noise can't hide.

Run: python benchmarks/callgrind.py [--functions N] [--pure] [words of the verbs to count]. Each verb is run twice under
`valgrind --tool=callgrind`, with different numbers of calls; the difference is what the calls took, without Python's
start and the making of the data. `--functions` lists the N functions that took the most. Needs: valgrind.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from cases import VERBS, Verb

FEW, MANY = 2, 12


def run(name: str, twin: str, number: int) -> None:
    """What the counted process does: makes the case, and calls it so many times."""
    verb = next(each for each in VERBS if each.name == name)
    case = verb.case(importlib.import_module(f"raftfast.hot.{verb.leaf}_{twin}"))
    for _ in range(number):
        if case.setup is None:
            case.call()
        else:
            case.call(case.setup())


def counted(verb: Verb, twin: str, number: int) -> Counter[str]:
    """Instructions by function, of a whole process that makes `number` calls."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "callgrind"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={file}", "--compress-strings=no"]
        command += ["--compress-pos=no", sys.executable, __file__, "--run", verb.name, twin, str(number)]
        environ = os.environ | {"PYTHONHASHSEED": "0"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
        if done.returncode:
            raise SystemExit(done.stderr)
        return own_costs(file.read_text())


def own_costs(profile: str) -> Counter[str]:
    """The cost of each function itself: of the lines behind `fn=`, but for those that tell of a call."""
    costs: Counter[str] = Counter()
    function, after_call = "", False
    for line in profile.splitlines():
        if line.startswith("fn="):
            function = line[3:]
        elif line.startswith("calls="):
            after_call = True
        elif line[:1].isdigit():
            if not after_call:
                costs[function] += int(line.split()[1])
            after_call = False
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--functions", type=int, default=0, metavar="N")
    parser.add_argument("--pure", action="store_true", help="the pure twin")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given.run[0], given.run[1], int(given.run[2]))
        return
    for verb in VERBS:
        if not all(word in verb.name for word in given.words):
            continue
        twin = "py" if given.pure else "c"
        many, few = counted(verb, twin, MANY), counted(verb, twin, FEW)
        many.subtract(few)
        print(f"{verb.name:48}{sum(many.values()) // (MANY - FEW):>16,}", flush=True)
        for function, cost in many.most_common(given.functions):
            print(f"    {function[:60]:60}{cost // (MANY - FEW):>16,}")


if __name__ == "__main__":
    main()
