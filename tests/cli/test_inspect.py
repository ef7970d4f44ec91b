"""`raftfast inspect`: what it prints of a sound file, and the one line for one that isn't."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raftfast.cli import run
from raftfast.hot import nodesconf
from raftfast.storage.folder import Folder

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "nodesconf"
SOUND = VECTORS / "05_raft_full.conf"


def with_app_state(folder: Path, content: bytes, *, length: int | None = None, crc: int | None = None) -> Path:
    """A sound file that names a state file beside it, with the length and checksum given or right."""
    folder.joinpath("app-42-00112233445566ff").write_bytes(content)
    conf = nodesconf.parse(SOUND.read_bytes())
    conf.vars["appSnapshot"] = "app-42-00112233445566ff"
    conf.vars["appLength"] = len(content) if length is None else length
    conf.vars["appCrc"] = f"{nodesconf.crc64(content) if crc is None else crc:016x}"
    file = folder / "nodes.conf"
    file.write_bytes(nodesconf.dump(conf))
    return file


def test_a_sound_file_is_told_and_left_as_it_is(capsys):
    before = SOUND.read_bytes()
    assert run(["inspect", str(SOUND)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"{SOUND}: sound"
    assert "  term       8, voted for 4cc1c9658582fb0144e990f7127b79ebdfb2cbe7" in lines
    assert "  state      of index 42, term 6" in lines
    assert any(line.startswith("  log        43 to 53, terms 7 to 8: ADD_VOTER 1, ") for line in lines)
    assert "  nodes      5, of which voters 4; slots 16384 of 16384" in lines
    assert "  torn tail  none" in lines
    assert sum(" epoch " in line for line in lines) == 5
    assert err == ""
    assert SOUND.read_bytes() == before


def test_a_torn_tail_is_no_damage_but_is_told(capsys):
    assert run(["inspect", str(VECTORS / "06_raft_torn_last_line.conf")]) == 0
    out = capsys.readouterr().out
    assert "  torn tail  133 bytes, dropped" in out.splitlines()
    assert "43 to 46" in out


def test_json_holds_everything(capsys):
    assert run(["inspect", "--json", str(SOUND)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sound"] is True
    assert told["bytes"] == SOUND.stat().st_size
    assert told["vars"]["lastApplied"] == 42
    assert told["slots_assigned"] == 16384
    assert told["log"] | {"types": None} == {
        "entries": 11,
        "first_index": 43,
        "last_index": 53,
        "first_term": 7,
        "last_term": 8,
        "bytes": told["log"]["bytes"],
        "types": None,
    }
    assert sum(told["log"]["types"].values()) == 11
    assert [node["flags"] for node in told["nodes"]][1] == ["myself", "master"]
    assert told["torn_tail"] == ""


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.conf")), ids=lambda path: path.stem)
def test_every_vector_is_told_or_refused_with_its_line(path, capsys):
    """Sound exactly where the parser says so; one line with the parser's number and reason otherwise."""
    try:
        nodesconf.parse(path.read_bytes())
        fault = None
    except nodesconf.ParseError as error:
        fault = error
    code = run(["inspect", str(path)])
    out, err = capsys.readouterr()
    if fault is None:
        assert (code, err) == (0, "")
        assert out.startswith(f"{path}: sound\n")
    else:
        assert (code, out) == (1, "")
        assert err == f"{path}: {fault}\n"


def test_damage_is_one_line_with_the_number_and_as_json_too(capsys):
    path = VECTORS / "x12_raft_snapshot_crc_mismatch.conf"
    assert run(["inspect", "--json", str(path)]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"{path}: line 7: ")
    assert err.count("\n") == 1
    told = json.loads(out)
    assert (told["sound"], told["line"]) == (False, 7)


def test_a_state_file_that_is_as_named_is_sound(tmp_path, capsys):
    assert run(["inspect", str(with_app_state(tmp_path, b"state" * 1000))]) == 0
    assert "  app state  app-42-00112233445566ff, 5000 bytes, checksum right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"length": 4}, "has 5 bytes, nodes.conf says 4"),
        ({"crc": 0}, "nodes.conf says 0000000000000000"),
        ({"crc": 1}, "nodes.conf says 0000000000000001"),
    ],
)
def test_a_state_file_that_is_not_as_named_is_damage(tmp_path, capsys, wrong, reason):
    file = with_app_state(tmp_path, b"state", **wrong)
    assert run(["inspect", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{tmp_path}/app-42-00112233445566ff: ")
    assert err.endswith(f"{reason}\n")


def test_a_state_file_that_is_missing_is_damage(tmp_path, capsys):
    file = with_app_state(tmp_path, b"state")
    tmp_path.joinpath("app-42-00112233445566ff").unlink()
    assert run(["inspect", "--json", str(file)]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"{tmp_path}/app-42-00112233445566ff: ")
    assert err.endswith("No such file or directory\n")
    assert json.loads(out)["sound"] is False


def test_a_file_that_cannot_be_read_is_one_line(tmp_path, capsys):
    for path, told in ((tmp_path / "none", tmp_path / "none"), (tmp_path, tmp_path / "nodes.conf")):
        assert run(["inspect", str(path)]) == 1
        assert capsys.readouterr() == ("", f"{told}: No such file or directory\n")


def test_a_folder_is_told_with_what_lies_in_it(tmp_path, capsys):
    with_app_state(tmp_path, b"state")
    tmp_path.joinpath("raftfast.lock").write_text("4711\n")
    tmp_path.joinpath("app-41-ffffffffffffffff").write_bytes(b"")
    tmp_path.joinpath("nodes.conf.copy-1").write_bytes(b"")
    assert run(["inspect", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}/nodes.conf: sound"
    assert lines[-3:] == [
        "  stray      app-41-ffffffffffffffff: being written, or left by a crash; removed by the node",
        "  copy       nodes.conf.copy-1: kept by a repair or a recovery",
        "  lock       last taken by process 4711",
    ]


def damaged_tail(folder: Path) -> Path:
    data = bytearray(SOUND.read_bytes())
    data[-3] ^= 1
    file = folder / "nodes.conf"
    file.write_bytes(data)
    return file


def test_a_damaged_last_line_is_dropped_and_a_copy_kept(tmp_path, capsys):
    file = damaged_tail(tmp_path)
    before = file.read_bytes()
    assert run(["inspect", str(file)]) == 1
    assert "CRC mismatch" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert run(["inspect", "--repair-tail", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "CRC mismatch" in out
    (copy,) = tmp_path.glob("nodes.conf.copy-*")
    assert str(copy) in out
    assert copy.read_bytes() == before
    assert before.startswith(file.read_bytes())
    assert [len(nodesconf.parse(each).entries) for each in (SOUND.read_bytes(), file.read_bytes())] == [11, 10]
    assert run(["inspect", "--repair-tail", str(file)]) == 0
    assert "sound, nothing to repair" in capsys.readouterr().out
    assert len(list(tmp_path.glob("nodes.conf.copy-*"))) == 1


def test_damage_anywhere_else_is_not_repaired(tmp_path, capsys):
    sound = SOUND.read_bytes()
    file = tmp_path / "nodes.conf"
    lines = sound.splitlines(keepends=True)
    for number in range(len(lines) - 1):
        start = sum(map(len, lines[:number]))
        data = bytearray(sound)
        data[start + len(lines[number]) // 2] ^= 1
        file.write_bytes(data)
        assert run(["inspect", "--repair-tail", str(tmp_path)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "no repair is safe here" in err
        assert file.read_bytes() == bytes(data)
    assert list(tmp_path.glob("nodes.conf.copy-*")) == []
    vote = nodesconf.appended_vars(9, None, nodesconf.crc64(sound))
    file.write_bytes(sound + vote[:-3] + b"0\n")
    assert run(["inspect", "--repair-tail", str(tmp_path)]) == 1
    assert "a term or vote is never dropped" in capsys.readouterr().err


def test_a_last_line_that_only_lacks_its_end_is_kept(tmp_path, capsys):
    file = tmp_path / "nodes.conf"
    file.write_bytes(SOUND.read_bytes()[:-1] + b"*")
    assert run(["inspect", str(file)]) == 1
    assert run(["inspect", "--repair-tail", str(file)]) == 0
    assert file.read_bytes() == SOUND.read_bytes()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_in_use_is_not_repaired(tmp_path, capsys):
    file = damaged_tail(tmp_path)
    before = file.read_bytes()
    folder = Folder(tmp_path)
    assert run(["inspect", "--repair-tail", str(file)]) == 1
    assert "in use" in capsys.readouterr().err
    assert file.read_bytes() == before
    folder.close()


def test_an_empty_file_is_what_a_fresh_node_has(tmp_path, capsys):
    file = tmp_path / "nodes.conf"
    file.touch()
    assert run(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    assert "  file       0 bytes, empty" in out
    assert "  nodes      0, of which voters 0; slots 0 of 16384" in out


def test_nothing_in_a_file_reaches_the_terminal_as_a_command(tmp_path, capsys):
    conf = nodesconf.parse(SOUND.read_bytes())
    conf.vars["later"] = "\u202e\udcff"
    file = tmp_path / "nodes.conf"
    file.write_bytes(nodesconf.dump(conf))
    assert run(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    assert "\u202e" not in out
    assert "later \\u202e\\xff" in out
