"""The demo around its steps: what it says of a step that does not hold, and that it leaves nothing behind.

That the steps hold is shown by running it, which .ci/run does.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from raftfast.cli import demo, run
from raftfast.cli.demo import Demo, DemoFailed
from raftfast.cli.node_process import poll
from raftfast.cli.reporter import LiveReporter, PlainReporter, reporter_for
from raftfast.cli.resp_client import ReplyError


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def made(monkeypatch):
    """Every node that a demo makes."""
    nodes = []
    original = Demo._start_node

    def start(self):
        node = original(self)
        nodes.append((node, node._process.pid))  # `node.pid` is None for one that has ended already
        return node

    monkeypatch.setattr(Demo, "_start_node", start)
    return nodes


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_step_that_does_not_hold_is_one_line_and_nothing_is_left(habit, made, own_temporary_folder, capsys):
    habit("dies")
    assert run(["demo"]) == 1
    out, err = capsys.readouterr()
    assert "step 1/6: DID NOT HOLD" in out
    assert err.startswith(
        "demo: step 1 (three nodes meet, all vote, all slots are assigned) did not hold: node-1 ended"
    )
    assert err.endswith("it is not to be\n")
    assert err.count("\n") == 1
    assert len(made) == 3
    assert all(gone(pid) for _, pid in made)
    assert list(own_temporary_folder.iterdir()) == []


def test_a_field_that_no_node_tells_is_a_step_that_does_not_hold(habit, made, capsys):
    assert run(["demo"]) == 1
    assert capsys.readouterr().err.endswith("did not hold: node-1 tells no number cluster_known_nodes\n")
    assert all(gone(pid) for _, pid in made)


def test_an_error_reply_is_a_step_that_does_not_hold(habit, made, capsys, monkeypatch):
    monkeypatch.setattr(demo.NodeProcess, "number", lambda self, field: 1)
    assert run(["demo"]) == 1
    assert "did not hold: node-1: ERR unknown command 'CLUSTER'" in capsys.readouterr().err
    assert all(gone(pid) for _, pid in made)


class Answering:
    """In place of a node: one answer after the other."""

    name = "node-1"

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def call(self, *command: object) -> str:
        answer = self.answers.pop(0)
        if answer != "OK":
            raise ReplyError(answer)
        return answer


TIMEOUT = "TIMEOUT Cluster consensus not reached in time"
DOWN = "CLUSTERDOWN The cluster is down, the command has no effect"
BUSY = "ERR Slot 0 is already busy"


@pytest.mark.parametrize(
    ("answers", "refused"),
    [
        (["OK"], False),
        ([TIMEOUT, DOWN, "OK"], False),
        ([TIMEOUT, BUSY], False),
        ([TIMEOUT, DOWN, BUSY], False),
        ([BUSY], True),
        ([DOWN, BUSY], True),
        ([TIMEOUT, "ERR Invalid slot"], True),
    ],
)
def test_slots_that_a_command_without_answer_took_are_taken(tmp_path, answers, refused):
    node = Answering(*answers)
    step = Demo(tmp_path, PlainReporter(Console(file=io.StringIO()), 1), 1.0)
    ask = partial(step._ask, node, "CLUSTER", "ADDSLOTSRANGE", 0, 5, done_already="is already busy")
    if refused:
        with pytest.raises(DemoFailed, match="node-1: ERR"):
            ask()
    else:
        ask()
    assert node.answers == []


def test_what_is_not_to_be_done_already_is_an_error_after_a_timeout_too(tmp_path):
    step = Demo(tmp_path, PlainReporter(Console(file=io.StringIO()), 1), 1.0)
    with pytest.raises(DemoFailed, match="already busy"):
        step._ask(Answering(TIMEOUT, BUSY), "CLUSTER", "MEET")


def test_no_leader_is_told(habit, made, capsys, monkeypatch):
    habit("leaderless")
    monkeypatch.setattr(Demo, "_meet", lambda self, member, newcomer: None)
    monkeypatch.setattr(demo, "poll", lambda condition, *, within, what: poll(condition, within=0.2, what=what))
    assert run(["demo"]) == 1
    assert "did not hold: all nodes agree on a leader: not within 0.2 s" in capsys.readouterr().err


def test_a_folder_given_is_kept_and_must_be_empty(habit, made, tmp_path, capsys):
    habit("dies")
    folder = tmp_path / "kept"
    assert run(["demo", "--dir", str(folder)]) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["node-1.log", "node-2.log", "node-3.log"]
    capsys.readouterr()
    assert run(["demo", "--dir", str(folder)]) == 2
    assert capsys.readouterr().err == f"raftfast demo: --dir: {folder} is not empty\n"
    assert len(made) == 3


SCRIPT = """
import sys
from pathlib import Path
from raftfast.cli import node_process, run
node_process.serve_command = lambda d, port, bus, extra: [sys.executable, {fake!r}, "silent", str(port)]
original = node_process.NodeProcess.start
def start(self):
    original(self)
    print("pid", self.pid, flush=True)
node_process.NodeProcess.start = start
sys.exit(run(["demo"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_no_process_and_no_file(number, own_temporary_folder):
    fake = str(Path(__file__).with_name("fake_node.py"))
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(fake=fake)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(own_temporary_folder)},
    ) as process:
        pids = []
        while len(pids) < 3:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            if line.startswith("pid "):
                pids.append(int(line.split()[1]))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "raftfast: interrupted"
    assert all(gone(pid) for pid in pids)
    assert list(own_temporary_folder.iterdir()) == []


def tell_a_story(reporter):
    with reporter as tell:
        tell.begin("the first thing")
        tell.say("a detail")
        tell.held()
        tell.begin("the second thing")
        tell.failed()
        tell.table(("node", "role"), [("node-1", "leader"), ("node-2", "follower")])


def test_elsewhere_it_is_plain_lines_in_order():
    file = io.StringIO()
    console = Console(file=file, width=20)
    reporter = reporter_for(console, 2)
    assert isinstance(reporter, PlainReporter)
    tell_a_story(reporter)
    text = file.getvalue()
    assert text.isascii()
    assert "\x1b" not in text
    lines = [line.split(" s  ", 1)[-1] for line in text.splitlines()]
    assert lines == [
        "step 1/2: the first thing",
        "  a detail",
        "step 1/2: held",
        "step 2/2: the second thing",
        "step 2/2: DID NOT HOLD",
        "node    role",
        "node-1  leader",
        "node-2  follower",
    ]


def test_on_a_terminal_it_is_live_and_ends_with_everything_shown():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60, height=30, color_system=None)
    reporter = reporter_for(console, 2)
    assert isinstance(reporter, LiveReporter)
    tell_a_story(reporter)
    final = file.getvalue()
    for text in ("✓ 1/2 the first thing", "a detail", "✗ 2/2 the second thing", "node-2", "follower"):
        assert text in final
    assert final.rstrip().endswith("\x1b[?25h")


def test_the_steps_are_those_that_the_docs_name():
    assert len(Demo.STEPS) == 6
    assert all(title.isascii() for title, _ in Demo.STEPS)
