"""Trials' folders that travel as tars."""

from __future__ import annotations

import io
import tarfile

import pytest

from engram.benchmarks.driving.launch import packing
from engram.benchmarks.driving.launch.packing import pack, put_back, unpack


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_back_as_it_is_there(tmp_path):
    here, there = tmp_path / "here" / "a", tmp_path / "there"
    write(here, config_json="1", log_txt="begun", lock="", ckpt__state_pt="old", progress_json="half")
    write(tmp_path / "b", result_json="2")
    unpack(pack({"b": tmp_path / "b", "a": here}, {"a/log.txt": b"sent"}), there)
    assert read(there) == {
        "a/config.json": "1",
        "a/log.txt": "sent",
        "a/ckpt/state.pt": "old",
        "a/progress.json": "half",
        "b/result.json": "2",
    }
    write(there / "a", result_json="3", log_txt="done", lock="theirs")
    (there / "a" / "ckpt" / "state.pt").unlink()
    (there / "a" / "progress.json").unlink()
    write(here, sink_json="told meanwhile")
    put_back(pack({"a": there / "a"}), here)
    told = {"sink.json": "told meanwhile"}
    assert read(here) == {"config.json": "1", "log.txt": "done", "result.json": "3", "lock": "", **told}


def test_files_that_go_while_a_folder_travels_are_no_trouble(tmp_path, monkeypatch):
    here, packed = tmp_path / "a", tar("a/x")
    walk = packing.os.walk
    monkeypatch.setattr(packing.os, "walk", lambda top: ((h, d, [*f, ".sink.json.12"]) for h, d, f in walk(top)))
    put_back(packed, here)
    assert [*read(here)] == ["x"]
    monkeypatch.setattr(packing, "_is_own", lambda path, folder: True)
    assert packed == pack({"a": here})


def test_what_says_that_others_are_there_is_written_last(tmp_path, monkeypatch):
    write(tmp_path / "a", result_json="", config_json="", weights="", ckpt__state_json="", ckpt__state_pt="")
    order = []
    monkeypatch.setattr(packing.Path, "replace", lambda self, target: order.append(target.name))
    unpack(pack({"a": tmp_path / "a"}), tmp_path / "there")
    assert {*order[:2]} == {"weights", "state.pt"}
    assert order[-1] == "result.json"


def test_links_out_do_not_travel(tmp_path):
    write(tmp_path / "a", note_txt="mine")
    write(tmp_path, secret="theirs")
    (tmp_path / "a" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "a" / "in").symlink_to("note.txt")
    unpack(pack({"a": tmp_path / "a"}), tmp_path / "there")
    assert read(tmp_path / "there") == {"a/note.txt": "mine", "a/in": "mine"}


def tar(name, kind=tarfile.REGTYPE, link=""):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as made:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        made.addfile(entry)
    return written.getvalue()


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("/etc/passwd", tarfile.REGTYPE, ""),
        ("a/../../x", tarfile.REGTYPE, ""),
        ("a/x", tarfile.SYMTYPE, "/etc/passwd"),
        ("a/x", tarfile.LNKTYPE, "../x"),
        ("a/x", tarfile.FIFOTYPE, ""),
        ("b/x", tarfile.REGTYPE, ""),
    ],
)
def test_what_leads_out_is_refused_whole(tmp_path, name, kind, link):
    (tmp_path / "out" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match="is no plain file of the folder"):
        put_back(tar(name, kind, link), tmp_path / "out" / "a")
    assert read(tmp_path) == {}


def test_a_folder_behind_a_link_is_refused(tmp_path):
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "a" / "ckpt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is no plain file of the folder"):
        put_back(tar("a/ckpt/x"), tmp_path / "out" / "a")
    assert read(tmp_path / "elsewhere") == {}


def test_a_folder_that_is_too_large_stays(tmp_path, monkeypatch):
    write(tmp_path / "a", x="1" * 100)
    monkeypatch.setattr(packing, "MOST_BYTES", 50)
    with pytest.raises(OverflowError, match="is larger than"):
        pack({"a": tmp_path / "a"})
