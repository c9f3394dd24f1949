import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch

from engram.backbone.saved.states import drop_states, load_latest, save_state, write_atomically


def state(value):
    return {"tensor": torch.full((5,), float(value)), "nested": {"list": [1, 2.5, "x", None]}, "value": value}


def flip(path, place=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 0x10
    path.write_bytes(data)


@pytest.fixture
def two(tmp_path):
    """A folder with the states of steps 10 and 20."""
    save_state(tmp_path, 10, state(10))
    save_state(tmp_path, 20, state(20))
    return tmp_path


def newest(folder):
    found = load_latest(folder)
    return None if found is None else found[0]


def test_round_trip(two):
    step, found = load_latest(two)
    assert step == 20 and found["value"] == 20
    assert torch.equal(found["tensor"], torch.full((5,), 20.0))
    assert found["nested"] == {"list": [1, 2.5, "x", None]}


def test_nothing_there(tmp_path):
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "none") is None


def test_the_newest_two_stay(tmp_path):
    for step in (9, 10, 999_999_999, 1000):
        save_state(tmp_path, step, state(step))
    assert newest(tmp_path) == 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"state-{step:09d}.{kind}" for step in (10, 1000) for kind in ("json", "pt")
    ]


def test_any_flipped_byte_of_the_newest_is_noticed(two, caplog):
    path, only = two / "state-000000020.pt", two / "only"
    shutil.copytree(two, only, ignore=shutil.ignore_patterns("*10.*"))
    for place in range(path.stat().st_size):
        flip(only / path.name, place)
        assert newest(only) is None
        flip(only / path.name, place)
    assert newest(only) == 20
    for place in (0, path.stat().st_size - 1):
        flip(path, place)
        assert newest(two) == 10
        flip(path, place)
    assert newest(two) == 20
    damaged = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert damaged and "state-000000020.pt is damaged" in damaged[0].getMessage()


def test_any_flipped_byte_of_the_manifest_is_noticed(two):
    path = two / "state-000000020.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        flip(path, place)
        found = load_latest(two)
        assert found is not None and found[0] == found[1]["value"]
        path.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{}", b"\xff\xfe", b'{"step": "x", "sha256": 1}', b"null"])
def test_a_broken_manifest(two, content):
    (two / "state-000000020.json").write_bytes(content)
    assert newest(two) == 10


def test_both_damaged_then_work_goes_on(two):
    for step in (10, 20):
        flip(two / f"state-0000000{step}.pt")
    assert load_latest(two) is None
    for step in (3, 6, 9):  # the damaged ones of later steps must not displace these
        save_state(two, step, state(step))
        assert newest(two) == step
    assert len(list(two.iterdir())) == 4


def test_truncated_missing_and_orphaned_files(two):
    path = two / "state-000000020.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert newest(two) == 10
    path.write_bytes(b"")
    assert newest(two) == 10
    path.unlink()
    assert newest(two) == 10
    (two / "state-000000030.pt").write_bytes(whole)  # killed before its manifest was written
    assert newest(two) == 10
    save_state(two, 40, state(40))
    assert newest(two) == 40
    assert not (two / "state-000000030.pt").exists()


def test_killed_while_overwriting_a_step(two):
    (two / "state-000000020.pt").write_bytes(b"half a file")  # its old manifest is still there
    assert newest(two) == 10


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("plain", [True, False])
def test_no_code_in_a_checkpoint_is_run(two, tmp_path, plain):
    target, path = tmp_path / "exploded", two / "state-000000020.pt"
    if plain:
        path.write_bytes(pickle.dumps({"x": Bomb(target)}, protocol=2))
    else:
        torch.save({"x": Bomb(target)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"step": 20, "sha256": digest}))
    assert newest(two) == 10
    assert not target.exists()


def test_kill_between_the_two_writes(tmp_path):
    code = (
        "import os, signal, sys, torch, pathlib\n"
        "import engram.backbone.saved.states as checkpoint\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "checkpoint.save_state(folder, 1, {'value': 1})\n"
        "checkpoint.write_atomically = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.save_state(folder, 2, {'value': 2})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == -9
    assert (tmp_path / "state-000000002.pt").exists()
    assert newest(tmp_path) == 1


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")
    assert path.read_bytes() == b"old"


def signed(folder, step, write):
    """A state that a stranger wrote, with a right checksum."""
    path = folder / f"state-{step:09d}.pt"
    write(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"step": step, "sha256": digest}))


def packed(path):
    torch.save({"x": torch.zeros(2**20)}, path)
    with zipfile.ZipFile(path) as whole:
        members = {member.filename: whole.read(member) for member in whole.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for name, data in members.items():
            small.writestr(name, data)


@pytest.mark.parametrize(
    "write",
    [
        packed,
        lambda path: torch.save({"x": torch.zeros(1).expand(2**40)}, path),
        lambda path: torch.save({"x": [torch.zeros(1).expand(2**25) for _ in range(8)]}, path),
        lambda path: path.write_bytes(b"no archive"),
    ],
    ids=["packed", "one value for all", "in a list", "no archive"],
)
def test_a_state_that_would_take_far_more_memory_than_its_size(two, write):
    signed(two, 30, write)
    assert newest(two) == 20


def test_values_that_share_their_bytes_are_a_state_like_any_other(tmp_path):
    save_state(tmp_path, 1, {"mean": torch.tensor([0.5]).expand(3), "set": {1, 2}})
    assert torch.equal(load_latest(tmp_path)[1]["mean"], torch.full((3,), 0.5))


def test_states_that_know_of_more_than_was_kept_go(tmp_path):
    for step, logged in ((1, 4), (2, 8)):
        save_state(tmp_path, step, state(step), logged=logged)
    drop_states(tmp_path, beyond=8)
    assert newest(tmp_path) == 2
    drop_states(tmp_path, beyond=7)
    assert newest(tmp_path) == 1 and len(list(tmp_path.iterdir())) == 2
    (tmp_path / "state-000000001.json").write_text("[" * 100_000)
    drop_states(tmp_path, beyond=0)
    assert load_latest(tmp_path) is None
