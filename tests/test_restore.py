"""What restoring and recovering make of files: the plan for each kind of survivor, each call of the disk failing."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path

import pytest

from raftfast.cluster.entries import AddVoter, DelVoter, Failover, NodeForget, NodeJoin, SlotChange, parse_line
from raftfast.cluster.snapshot import node_lines
from raftfast.cluster.state import ClusterState
from raftfast.errors import RaftError, SnapshotError, StorageError
from raftfast.hot import nodesconf
from raftfast.member import Origin
from raftfast.records import Address, HardState, NodeRecord, NodesConf
from raftfast.restore import plan_of_folder, plan_recovery, recover, restore
from raftfast.storage import BackupFile, BackupHead, BackupWriter, Disk, Storage, StoredState, inspect, repair_tail

ME, B, C, D = "a" * 40, "b" * 40, "c" * 40, "d" * 40
OLD = "0" * 40
HERE = Address("127.0.0.1", 7000, 17000, "", {"tls-port": "0"})


def record(node_id: str, *flags: str, slots=(), primary_id: str | None = None, shard: str = "") -> NodeRecord:
    aux = {"tls-port": "0", "shard-id": shard or node_id}
    return NodeRecord(
        node_id, "127.0.0.1", 7000, 17000, aux=aux, flags=flags, primary_id=primary_id, slots=tuple(slots)
    )


THREE = (
    record(ME, "myself", "master", slots=[(0, 99)]),
    record(B, "master", slots=[(100, 200)]),
    record(C, "master"),
)


def conf_of(nodes, lines=(), index: int = 5, **more) -> NodesConf:
    entries = tuple((index + 1 + at, int(line.split(b" ")[0]), line) for at, line in enumerate(lines))
    pairs = {"currentTerm": 3, "lastApplied": index, "snapshotTerm": 2, "clusterId": OLD, **more}
    return nodesconf.parse(nodesconf.dump(NodesConf(nodes=tuple(nodes), vars=pairs, entries=entries)))


def becomes(conf: NodesConf) -> tuple[ClusterState, set[str]]:
    """The state after the plan, by the same code that applies entries, and the voters in force by the log."""
    plan = plan_recovery(conf)
    origin = Origin.of_file(conf, HERE)
    state, voters = origin.state, set(origin.state.voters())
    for index, _, line in origin.entries:
        if line.split(b" ")[1] != b"APP":
            state.apply(index, parse_line(line)[1])
    voters = set(state.voters())
    for at, entry in enumerate(plan.entries):
        verdict = state.apply(plan.last_index + 1 + at, entry)
        assert verdict.success, entry
        if isinstance(entry, AddVoter):
            voters.add(entry.node_id)
        if isinstance(entry, DelVoter):
            voters.discard(entry.node_id)
            assert voters, "the voters in force are never none"
    state.verify()
    return state, voters


def test_a_voter_of_three_takes_votes_and_slots_and_forgets_the_others():
    conf = conf_of(THREE, [b"3 APP - x", b"3 NOOP"])
    plan = plan_recovery(conf)
    assert [type(entry) for entry in plan.entries] == [DelVoter, DelVoter, SlotChange, NodeForget, NodeForget]
    assert (plan.left_behind, plan.last_index, plan.last_term, plan.uncertain) == ((B, C), 7, 3, 2)
    assert not plan.learner
    state, voters = becomes(conf)
    assert (set(state.nodes), voters, state.voters()) == ({ME}, {ME}, {ME})
    assert state.slots_of(ME) == ((0, 200),)


def test_what_the_end_of_the_log_changed_is_seen():
    join = NodeJoin(D, f"127.0.0.1:1@2,,tls-port=0,shard-id={D}").encode()
    lines = [b"3 " + join, b"3 " + AddVoter(D).encode(), b"3 " + SlotChange(None, 0, D, 0, ((300, 301),)).encode()]
    state, voters = becomes(conf_of(THREE, lines))
    assert (set(state.nodes), voters) == ({ME}, {ME})
    assert state.slots_of(ME) == ((0, 200), (300, 301))
    taken_out = [b"3 " + DelVoter(C).encode(), b"3 " + DelVoter(B).encode()]
    plan = plan_recovery(conf_of(THREE, taken_out))
    assert DelVoter not in {type(entry) for entry in plan.entries}


def test_a_learner_becomes_the_voter():
    nodes = (record(ME, "myself", "master", "learner"), record(B, "master", slots=[(0, 16383)]), record(C, "master"))
    plan = plan_recovery(conf_of(nodes))
    assert plan.learner
    assert plan.entries[0] == AddVoter(ME)
    state, voters = becomes(conf_of(nodes))
    assert (set(state.nodes), voters) == ({ME}, {ME})
    assert state.slots_of(ME) == ((0, 16383),)


def test_a_replica_takes_its_shard_over_and_replicas_are_forgotten_before_their_primaries():
    nodes = (
        record(ME, "myself", "slave", primary_id=B, shard=B),
        record(B, "master", slots=[(0, 50)], shard=B),
        record(C, "master", slots=[(60, 70)], shard=C),
        record(D, "slave", primary_id=C, shard=C),
    )
    plan = plan_recovery(conf_of(nodes))
    assert Failover in {type(entry) for entry in plan.entries}
    state, voters = becomes(conf_of(nodes))
    assert (set(state.nodes), voters) == ({ME}, {ME})
    assert state.slots_of(ME) == ((0, 50), (60, 70))
    assert state.is_primary(ME)


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        (conf_of(THREE[:1]), "cluster of one already"),
        (conf_of(THREE[:1], index=0, snapshotTerm=0), "singleton"),
        (conf_of(THREE[:1], index=0, snapshotTerm=0, joining=1), "joiner"),
        (conf_of(THREE, removed="1"), "removed"),
        (
            conf_of(
                (record(ME, "myself", "master"), *THREE[1:]),
                [b"3 " + DelVoter(ME).encode(), b"3 " + NodeForget(ME, 0).encode()],
            ),
            "forgotten",
        ),
    ],
)
def test_what_is_no_survivor_is_refused(conf, reason):
    with pytest.raises(StorageError, match=reason):
        plan_recovery(conf)


# ---------------------------------------------------------------------- recovering, with a disk that fails


class FailingDisk(Disk):
    """Fails its n-th call that changes anything."""

    def __init__(self, fail_at: int) -> None:
        self.left = fail_at
        self.failed = False

    def due(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.failed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _failing(call: str):
    def method(self, *args):
        self.due()
        return getattr(Disk, call)(self, *args)

    return method


for _name in ("open", "pwrite", "ftruncate", "fsync", "fdatasync", "rename", "fsync_folder"):
    setattr(FailingDisk, _name, _failing(_name))


def survivor(folder: Path) -> None:
    storage, _ = Storage.open(folder)
    app = storage.write_app(5, [b"sessions 0\n", b"the state"])
    storage.rewrite(StoredState(THREE, 5, 2, cluster_id=OLD, app=app), None, hard_state=HardState(3, B))
    storage.append(None, None, 6, [b"3 APP - x", b"3 NOOP"])
    storage.close()


def test_recovering_with_each_call_failing_once_never_leads_the_old_cluster(tmp_path):
    tried = 0
    for fail_at in range(200):
        folder = tmp_path / str(fail_at)
        survivor(folder)
        disk = FailingDisk(fail_at)
        error = None
        try:
            recover(str(folder), disk)
        except StorageError as raised:
            error = raised
            tried += 1
        conf = inspect(folder / "nodes.conf")
        done = any(b"DEL_VOTER" in line for _, _, line in conf.entries)
        assert not (done and conf.vars["clusterId"] == OLD), "alone in the old cluster: two leaders of it could be"
        assert error is not None or done
        if not done:
            recover(str(folder))
            conf = inspect(folder / "nodes.conf")
        state = Origin.of_file(conf, HERE).state
        for index, _, line in conf.entries:
            if line.split(b" ")[1] != b"APP":
                state.apply(index, parse_line(line)[1])
        assert (set(state.nodes), state.voters()) == ({ME}, {ME})
        assert [line for _, _, line in conf.entries][:2] == [b"3 APP - x", b"3 NOOP"]
        assert int(conf.vars["currentTerm"]) > 3
        assert conf.vars["clusterId"] != OLD
        shutil.rmtree(folder)
        if not disk.failed:
            break
    print(f"{tried} calls failed, one a recovery")
    assert tried > 10


def test_a_damaged_file_is_refused_alike_by_who_looks_and_by_who_recovers(tmp_path):
    survivor(tmp_path)
    file = tmp_path / "nodes.conf"
    sound = file.read_bytes()
    assert plan_of_folder(str(tmp_path)) == (plan_recovery(inspect(file)), sound)
    damaged = sound.replace(b"NOOP", b"NOPE")
    file.write_bytes(damaged)
    for call in (plan_of_folder, recover):
        with pytest.raises(StorageError, match=r"nodes\.conf: line \d+: .*; a damaged file can't be recovered from"):
            call(str(tmp_path))
    assert file.read_bytes() == damaged
    assert list(tmp_path.glob("nodes.conf.copy-*")) == []


def test_what_no_node_starts_on_is_refused_alike_too(tmp_path):
    survivor(tmp_path)
    file = tmp_path / "nodes.conf"
    sound = file.read_bytes()
    stored = b"".join(sound.splitlines(keepends=True)[:4])  # node lines and vars
    no_term = stored.replace(b" snapshotTerm 2", b"")
    in_handshake = stored.replace(b" master ", b" master,handshake ")
    for data, reason in ((no_term, "lastApplied without snapshotTerm"), (in_handshake, "is in handshake")):
        file.write_bytes(data)
        for call in (plan_of_folder, recover):
            with pytest.raises(StorageError, match=rf"nodes\.conf: .*{reason}"):
                call(str(tmp_path))
        assert file.read_bytes() == data
    assert list(tmp_path.glob("nodes.conf.copy-*")) == []


def test_a_repair_with_each_call_failing_once_leaves_the_old_file_or_the_repaired_one(tmp_path):
    for fail_at in range(60):
        folder = tmp_path / str(fail_at)
        survivor(folder)
        file = folder / "nodes.conf"
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
        disk = FailingDisk(fail_at)
        try:
            assert repair_tail(str(folder), disk=disk) is not None
        except StorageError:
            assert disk.failed
        found = file.read_bytes()
        assert found == bytes(data) or len(nodesconf.parse(found).entries) == 1
        if found != bytes(data):
            assert any(copy.read_bytes() == bytes(data) for copy in folder.glob("nodes.conf.copy-*"))
        if not disk.failed:
            break
    assert not disk.failed


# ---------------------------------------------------------------------- backups


def backup(path: Path, app: bytes | None = b"sessions 0\n" + b"state" * 1000, index: int = 9) -> Path:
    nodes = node_lines(ClusterState.from_records([record(ME, "master", slots=[(0, 9)]), *THREE[1:]]))
    data = nodes if app is None else nodes + b"app %d %016x\n" % (len(app), nodesconf.crc64(app)) + app
    writer = BackupWriter(str(path), BackupHead(index, 2 if index else 0, 4, OLD, len(data)))
    for start in range(0, len(data), 700):
        writer.write(data[start : start + 700])
    writer.finish()
    return path


@pytest.mark.parametrize("app", [None, b"", b"sessions 0\n" + b"x" * (3 << 20)], ids=["no state", "empty", "large"])
def test_a_backup_is_restored_as_it_was(tmp_path, app):
    done = restore(str(backup(tmp_path / "b", app)), str(tmp_path / "d"))
    storage, loaded = Storage.open(tmp_path / "d")
    (mine,) = loaded.conf.nodes
    assert (mine.id, mine.slots, mine.flags) == (done.node_id, ((0, 9), (100, 200)), ("myself", "master"))
    assert (loaded.stored.last_applied, loaded.stored.snapshot_term, loaded.hard_state.current_term) == (9, 2, 4)
    assert loaded.stored.cluster_id == done.cluster_id != OLD
    assert (None if loaded.app is None else b"".join(storage.read_app(loaded.app))) == app
    storage.close()


def test_a_backup_of_a_node_that_was_in_no_cluster_gives_a_fresh_one_with_its_slots(tmp_path):
    restore(str(backup(tmp_path / "b", index=0)), str(tmp_path / "d"))
    origin = Origin.of_file(inspect(tmp_path / "d" / "nodes.conf"), HERE)
    assert origin.standing.value == "singleton"
    assert origin.state.slots_of(origin.identity.node_id) == ((0, 9), (100, 200))


def test_restoring_with_each_call_failing_once_leaves_no_node_or_a_whole_one(tmp_path):
    file = backup(tmp_path / "b")
    tried = 0
    for fail_at in range(100):
        folder, disk = tmp_path / str(fail_at), FailingDisk(fail_at)
        try:
            restore(str(file), str(folder), disk)
        except StorageError:
            tried += 1
            left = set(os.listdir(folder)) if folder.exists() else set()
            if "nodes.conf" in left:  # the rename was made, and what followed failed
                storage, loaded = Storage.open(folder)
                assert loaded.stored.last_applied == 9
                assert loaded.app is not None
                storage.close()
            else:
                assert left <= {"raftfast.lock"}
                restore(str(file), str(folder))
        if not disk.failed:
            break
    assert tried > 8
    assert not disk.failed


def test_a_backup_that_is_not_whole_gets_no_name(tmp_path):
    head = BackupHead(1, 1, 1, None, 10)
    writer = BackupWriter(str(tmp_path / "b"), head)
    writer.write(b"12345")
    with pytest.raises(SnapshotError, match="missing"):
        writer.finish()
    with pytest.raises(SnapshotError, match="more than"):
        writer.write(b"1234567")
    writer.abandon()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
    for fail_at in range(20):
        disk = FailingDisk(fail_at)
        writer = None
        try:
            writer = BackupWriter(str(tmp_path / "b"), head, disk)
            writer.write(b"012345678\n")
            writer.finish()
        except RaftError:
            assert disk.failed
        finally:
            if writer is not None:
                writer.abandon()
        assert [path.name for path in tmp_path.iterdir()] in ([], ["b"])
        if (tmp_path / "b").exists():
            BackupFile(str(tmp_path / "b")).close()
            (tmp_path / "b").unlink()
        if not disk.failed:
            break
    assert not disk.failed


NODES_ONLY = b"012345678\n"


def begun(path: Path) -> BackupWriter:
    """A backup of which all but its end is written."""
    writer = BackupWriter(str(path), BackupHead(1, 1, 1, None, len(NODES_ONLY)))
    writer.write(NODES_ONLY)
    return writer


def test_two_that_write_the_same_backup_leave_each_other_alone(tmp_path):
    first, second = begun(tmp_path / "b"), begun(tmp_path / "b")
    first.finish()
    first.abandon()
    with pytest.raises(StorageError, match="File exists"):
        second.finish()
    second.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    BackupFile(str(tmp_path / "b")).close()


def test_a_part_that_is_not_its_own_is_left_as_it_is(tmp_path, monkeypatch):
    """As one is that a killed process left behind, should chance give its name again."""
    monkeypatch.setattr(secrets, "token_hex", lambda nbytes: "0" * 2 * nbytes)
    first = begun(tmp_path / "b")
    with pytest.raises(StorageError, match="File exists"):
        begun(tmp_path / "b")
    first.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


class NoHardLinks:
    """In place of `os.link`: a file system that has none."""

    def __init__(self, number: int, monkeypatch) -> None:
        self.number = number
        monkeypatch.setattr(os, "link", self)

    def __call__(self, source: str, target: str) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("name", ["EPERM", "EOPNOTSUPP", "ENOTSUP", "ENOSYS"])
def test_a_file_system_without_hard_links_takes_a_backup(tmp_path, monkeypatch, name):
    NoHardLinks(getattr(errno, name), monkeypatch)
    writer = begun(tmp_path / "b")
    assert writer.finish() == (tmp_path / "b").stat().st_size
    writer.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    BackupFile(str(tmp_path / "b")).close()


def test_without_hard_links_too_a_file_that_came_meanwhile_is_left_as_it_is(tmp_path, monkeypatch):
    NoHardLinks(errno.EPERM, monkeypatch)
    writer = begun(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"another's")
    with pytest.raises(StorageError, match="File exists"):
        writer.finish()
    writer.abandon()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("b", b"another's")]


def test_another_error_of_linking_is_told(tmp_path, monkeypatch):
    NoHardLinks(errno.EIO, monkeypatch)
    writer = begun(tmp_path / "b")
    with pytest.raises(StorageError, match="Input/output error"):
        writer.finish()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links_each_call_failing_once_leaves_nothing_or_a_whole_backup(tmp_path, monkeypatch):
    NoHardLinks(errno.EPERM, monkeypatch)
    renames: list[bool] = []

    class Watched(FailingDisk):
        def rename(self, source: str, target: str) -> None:
            renames.append(False)
            super().rename(source, target)
            renames[-1] = True

    for fail_at in range(30):
        disk, writer, finished = Watched(fail_at), None, False
        try:
            writer = BackupWriter(str(tmp_path / "b"), BackupHead(1, 1, 1, None, len(NODES_ONLY)), disk)
            writer.write(NODES_ONLY)
            writer.finish()
            finished = True
        except StorageError:
            assert disk.failed
        finally:
            if writer is not None:
                writer.abandon()
        left = [path.name for path in tmp_path.iterdir()]
        assert left == ["b"] if finished else left in ([], ["b"])
        if left:
            BackupFile(str(tmp_path / "b")).close()
            (tmp_path / "b").unlink()
        if not disk.failed:
            break
    assert not disk.failed
    assert renames == [False, True, True]  # it failed, then what followed it, then nothing


NODE_LINES = node_lines(ClusterState.from_records([record(ME, "master")]))
APP = b"sessions 0\n" + b"state" * 500_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (NODE_LINES + b"app %d %016x\n" % (len(APP), nodesconf.crc64(APP)) + APP[:-1] + b"X", "has the checksum"),
        (NODE_LINES + b"app %d %016x\n" % (len(APP), 0) + APP, "has the checksum"),
        (NODE_LINES + b"app 0 0000000000000001\n", "has the checksum"),
        (NODE_LINES + b"app 2 0000000000000000\n1", "does not fill"),
        (NODE_LINES + b"app 01 0000000000000000\n1", "bad app line"),
        (NODE_LINES + b"app 1 00", "ends within a line"),
        (NODE_LINES[:-1], "ends within a line"),
    ],
)
def test_a_backup_of_bytes_that_the_node_read_wrong_is_none(tmp_path, data, reason):
    """Its own checksum is right: what is in it was wrong before it was written."""
    head = BackupHead(9, 2, 4, OLD, len(data))
    writer = BackupWriter(str(tmp_path / "written"), head)
    writer.write(data)
    with pytest.raises(StorageError, match=reason):
        writer.finish()
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "b"
    file.write_bytes(head.encode() + data + b"crc %016x\n" % nodesconf.crc64(head.encode() + data))
    for look in (lambda: BackupFile(str(file)), lambda: restore(str(file), str(tmp_path / "d"))):
        with pytest.raises(StorageError, match=reason):
            look()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_heads_that_are_none_are_refused():
    good = BackupHead(1, 2, 3, OLD, 4).encode()
    assert BackupHead.decode(good) == BackupHead(1, 2, 3, OLD, 4)
    assert BackupHead.decode(BackupHead(1, 2, 3, None, 4).encode()).cluster_id is None
    for bad in (b"", b"\n", good[:-1], good.replace(b" 1 1 ", b" 2 1 "), good.replace(b" 2 ", b" 02 "), good + b"x"):
        with pytest.raises(SnapshotError):
            BackupHead.decode(bad)
    with pytest.raises(SnapshotError, match="too large"):
        BackupHead.decode(good.replace(b" 2 3 ", b" 2 99999999999999999999 "))
