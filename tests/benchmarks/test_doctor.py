"""The doctor's rows about this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engram.backbone.registry import Registry
from engram.benchmarks.commands import doctor


def check_of(name: str, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert doctor.doctor(out, as_json=True) == 0
    (row,) = [check for check in json.loads(capsys.readouterr().out)["checks"] if check["name"] == name]
    return row


@pytest.fixture
def compiler(monkeypatch):
    """Let only the compiler be looked for: the other checks have nothing to do with it."""
    for group in ("_python", "_torch", "_store", "_plugins", "_data"):
        monkeypatch.setattr(doctor, group, lambda _out: iter(()))
    monkeypatch.delenv("CC", raising=False)


def test_a_compiler_that_works(compiler, tmp_path, capsys):
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no compiler here")
    row = check_of("C compiler", tmp_path, capsys)
    assert row["state"] == "ok" and "kernels of spiking networks" in row["found"]


def test_no_compiler_is_worth_knowing_and_no_failure(compiler, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    row = check_of("C compiler", tmp_path, capsys)
    assert row["state"] == "note" and "in PyTorch alone, slower" in row["found"] and "Install gcc" in row["remedy"]


@pytest.mark.parametrize("broken", ["/nowhere/cc", "false"])
def test_a_compiler_that_compiles_nothing_is_none(compiler, tmp_path, capsys, monkeypatch, broken):
    monkeypatch.setenv("CC", broken)
    row = check_of("C compiler", tmp_path, capsys)
    assert row["state"] == "note" and f"{broken} fails" in row["found"]


def test_everything_a_plugin_offers_is_counted(tmp_path, capsys):
    row = check_of("plugin continual", tmp_path, capsys)
    strategies = len([name for name in Registry.discover().names("strategies") if not name.startswith("tests.")])
    assert row["found"] == f"1 experiment, {strategies} strategies"
