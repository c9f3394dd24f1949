import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch

from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import build
from engram.backbone.saved.states import drop_states, load_latest, load_model, save_model, save_state, write_atomically


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
    size = (two / "state-000000020.pt").stat().st_size
    for place in range(0, size, 97):
        flip(two / "state-000000020.pt", place)
        assert newest(two) == 10
        flip(two / "state-000000020.pt", place)
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
        "from backbone import checkpoint\n"
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


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, randomise):
    """A folder with a model, and the model."""
    options = {"width": 0.5, "pooling": "stride"}
    model = build("resnet-tiny", options, (2, 9, 12), 3, torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4]))
    randomise(model).to(memory_format=torch.channels_last)
    about = {"backbone": "resnet-tiny", "backbone_options": options, "in_shape": [2, 9, 12], "classes": ["a", "b", "é"]}
    save_model(tmp_path / "model", model, about)
    return tmp_path / "model", model.eval()


def test_a_model_comes_back_bit_for_bit(saved):
    folder, model = saved
    found, about = load_model(folder)
    assert not found.training and about["classes"] == ["a", "b", "é"]
    wanted = model.state_dict()
    assert found.state_dict().keys() == wanted.keys()
    for name, value in found.state_dict().items():
        assert value.dtype == wanted[name].dtype and torch.equal(value, wanted[name]), name
    x = torch.randint(0, 256, (4, 2, 9, 12), dtype=torch.uint8)
    torch.testing.assert_close(found(x), model(x))


def test_any_flipped_byte_of_the_weights_is_one_clear_error(saved):
    folder, _ = saved
    path = folder / "model.safetensors"
    for place in range(0, path.stat().st_size, 9973):
        flip(path, place)
        with pytest.raises(UserError, match=r"a whole trained model must be in .*sha256.* Train it again\."):
            load_model(folder)
        flip(path, place)
    load_model(folder)


def test_a_flipped_byte_of_the_manifest_is_never_a_crash(saved):
    folder, _ = saved
    path = folder / "model.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        flip(path, place)
        try:
            load_model(folder)
        except UserError as error:
            assert "\n" not in str(error)
        path.write_bytes(whole)


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors"])
def test_a_missing_file(saved, missing):
    folder, _ = saved
    (folder / missing).unlink()
    with pytest.raises(UserError, match=r"a whole trained model must be in .*got FileNotFoundError"):
        load_model(folder)


def test_weights_of_another_network(saved):
    folder, _ = saved
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, "backbone": "vgg-tiny"}))
    with pytest.raises(UserError, match=r"got RuntimeError: Error\(s\) in loading state_dict"):
        load_model(folder)


HUGE = [
    {"in_shape": [2, 60_000, 60_000]},
    {"in_shape": [2, 8000, 8000]},
    {"backbone_options": {"width": 64, "depth": 64}},
]


@pytest.mark.parametrize("asked", HUGE, ids=str)
def test_a_manifest_cannot_ask_for_more_than_its_weights(saved, monkeypatch, asked):
    """Nothing of that size is made: a tensor of the largest here would be refused by the system itself."""
    folder, _ = saved
    about = json.loads((folder / "model.json").read_text())
    small = {"backbone": "mlp", "backbone_options": {}, "classes": ["a"]}
    (folder / "model.json").write_text(json.dumps({**about, **small, **asked}))
    with pytest.raises(UserError, match=r"got ValueError: a network of \d+ values or more, for weights"):
        load_model(folder)


@pytest.mark.parametrize(
    "about",
    [
        *([], 3, None, "text", {"in_shape": [2, 9]}, {"in_shape": [2, -9, 12]}, {"in_shape": [2, 10**400, 12]}),
        *({"in_shape": [3, 9, 12]}, {"classes": "abc"}, {"classes": 10**9}, {"backbone_options": [1]}, {"backbone": 1}),
        *({"adapters": {"name": "snn.qcfs"}}, {"adapters": [{"name": "snn.qcfs"}]}, {"sha256": 7}, {"view": "all"}),
    ],
    ids=lambda about: str(about)[:30],
)
def test_a_manifest_of_another_shape_is_one_clear_error(saved, about):
    folder, _ = saved
    whole = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**whole, **about} if isinstance(about, dict) else about))
    with pytest.raises(UserError, match=r"a whole trained model must be in .*; got (Value|Type)Error") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_endless_nesting_in_a_manifest(saved):
    folder, _ = saved
    (folder / "model.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="a whole trained model must be in"):
        load_model(folder)


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


def test_a_network_comes_back_with_its_adapters(tmp_path):
    adapters = [{"name": "snn.qcfs", "options": {"levels": 7}}]
    args = ("vgg-tiny", {"width": 0.25}, (1, 8, 8), 2, torch.tensor([0.1]), torch.tensor([0.3]))
    model = build(*args, adapters=adapters)
    about = {"backbone": "vgg-tiny", "backbone_options": {"width": 0.25}, "in_shape": [1, 8, 8], "classes": ["a", "b"]}
    save_model(tmp_path, model, {**about, "adapters": adapters})
    found, again = load_model(tmp_path)
    assert again["adapters"] == adapters
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(found(x), model.eval()(x)) and not torch.equal(found(x), build(*args).eval()(x))
    save_model(tmp_path, model, {**about, "adapters": [{"name": "no.such", "options": {}}]})
    with pytest.raises(UserError, match=r"adapter must be a registered name; got 'no\.such'"):
        load_model(tmp_path)
