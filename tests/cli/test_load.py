"""The load: what it counts as acknowledged is what was, also while nodes die below it."""

from __future__ import annotations

from raftfast.cli.load import Load, missing, write_batch
from raftfast.cli.node_process import poll

FOREVER = 60.0


def test_acknowledged_writes_are_on_the_node_and_keys_are_used_once(make):
    node = make()
    node.wait_ready(within=FOREVER)
    with Load("t", [node.client], writers=3, depth=8) as load:
        assert load.wait_for(200, within=FOREVER)
    keys = load.acknowledged
    assert len(keys) == len(set(keys)) >= 200
    with node.client() as client:
        assert missing(client, keys) == []
        assert missing(client, ["t:none", *keys]) == ["t:none"]


def test_writers_go_on_with_another_node_when_theirs_dies(make):
    first, second = make(), make()
    for node in (first, second):
        node.wait_ready(within=FOREVER)
    with Load("t", [first.client, second.client]) as load:
        assert load.wait_for(100, within=FOREVER)
        with second.client() as client:
            poll(lambda: bool(missing(client, load.acknowledged)), within=FOREVER, what="the first has some of them")
        first.kill()
        assert load.wait_for(len(load.acknowledged) + 200, within=FOREVER)
    with second.client() as client:
        on_first = set(missing(client, load.acknowledged))
    assert 0 < len(on_first) < len(load.acknowledged)


def test_nothing_counts_where_nothing_answers(make):
    node = make("dies")
    poll(lambda: not node.running, within=FOREVER, what="ended")
    with Load("t", [node.client]) as load:
        assert not load.wait_for(1, within=0.2)
    assert load.acknowledged == []


def test_a_batch_gives_the_replies_that_came(make):
    node = make()
    node.wait_ready(within=FOREVER)
    client = node.client()
    assert write_batch(client, ["a", "b"]) == ["OK", "OK"]
    node.kill()
    assert write_batch(client, ["c"]) == []
