"""Leases: what keeps two machines out of one folder."""

from __future__ import annotations

import pytest

from engram.benchmarks.records import lease as module
from engram.benchmarks.records.layout import Busy
from engram.benchmarks.records.lease import lease


def test_another_machine_is_refused_as_long_as_there_are_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    path = tmp_path / "lease"
    with lease(path, "trial a"):
        monkeypatch.setattr(module, "machine", lambda: "other")
        with pytest.raises(Busy, match="trial a is held by another engram on "), lease(path, "trial a"):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_lease_without_beats_is_taken_over(tmp_path, monkeypatch):
    path = tmp_path / "lease"
    path.write_text("other\nnode7 12 abc\n")
    monkeypatch.setattr(module, "STALE_SECONDS", 0.2)
    with lease(path, "trial a"):
        assert path.read_text().startswith(module.machine())
    assert not path.exists()


def test_what_a_process_of_this_machine_left_is_taken_over_at_once(tmp_path):
    """Its lock is free, or nobody would get here."""
    path = tmp_path / "lease"
    path.write_text(f"{module.machine()}\nnode7 12 abc\n")
    with lease(path, "trial a"):
        pass
    path.write_text("")
    with lease(path, "trial a"):
        pass
    assert not path.exists()


def test_what_another_machine_took_over_is_left_to_it(tmp_path):
    path = tmp_path / "lease"
    with lease(path, "trial a"):
        path.write_text("other\nnode7 12 abc\n")
    assert path.exists()


def test_of_two_that_wait_for_a_stale_one_the_second_finds_the_first(tmp_path, monkeypatch):
    """It is not the lease that was found stale any more, and is not taken away."""
    path = tmp_path / "lease"
    path.write_text("other\nnode7 12 abc\n")
    monkeypatch.setattr(module, "STALE_SECONDS", 0.5)
    looks = []

    def beat(path):
        looks.append(path.read_text())
        if len(looks) == 2:
            path.write_text("third\nnode8 5 def\n")  # the first one was quicker
        return len(looks) if len(looks) > 2 else 0  # and beats

    monkeypatch.setattr(module, "_beat", beat)
    with pytest.raises(Busy, match="held by another engram on node8"), lease(path, "trial a"):
        pass
    assert path.read_text().startswith("third")


def test_a_lease_is_whole_at_once_with_hard_links_and_without(tmp_path, monkeypatch):
    for _ in range(2):
        assert module._create(tmp_path / "lease", "mine\n")
        assert not module._create(tmp_path / "lease", "theirs\n")
        assert [path.name for path in tmp_path.iterdir()] == ["lease"]
        assert (tmp_path / "lease").read_text() == "mine\n"
        (tmp_path / "lease").unlink()

        def refuse(*_):
            raise PermissionError("no hard links here")

        monkeypatch.setattr(module.os, "link", refuse)


def test_a_lease_whose_beginning_another_machine_removed_is_made_again(tmp_path, monkeypatch):
    link, path = module.os.link, tmp_path / "lease"

    def swept(beginning, place):
        monkeypatch.setattr(module.os, "link", link)
        beginning.unlink()
        link(beginning, place)

    monkeypatch.setattr(module.os, "link", swept)
    monkeypatch.setattr(module, "_create_empty", lambda *_: pytest.fail("whoever reads it then takes it for nobody's"))
    with lease(path, "trial a"):
        assert path.read_text().startswith(module.machine())
