"""The doctor's rows about this machine, which plugins bring."""

from __future__ import annotations

import json
import shutil

import pytest

from engram.backbone.contract import Check, Places, Plugin
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.benchmarks.commands import doctor
from engram.benchmarks.commands.flags import Doctoring
from engram.benchmarks.given import Given
from engram.snn.checks import compiler, engines


def rows(capsys: pytest.CaptureFixture[str], tmp_path, *plugins: Plugin, code: int = 0) -> list[dict[str, str]]:
    """What the doctor finds with these plugins alone."""
    registry = Registry({plugin.name: plugin for plugin in plugins}, {"lost": "it imports nothing"} if code else {})
    given = Given(["doctor"], [], Doctoring(out=tmp_path, json=True), None, lambda: registry)
    assert doctor.show(given) == code
    return json.loads(capsys.readouterr().out)["checks"]


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    return Places(out=tmp_path, data=tmp_path)


def test_a_compiler_that_works(places):
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no compiler here")
    (row,) = compiler(places)
    assert row.state == "ok" and "kernels of spiking networks" in row.found


def test_no_compiler_is_worth_knowing_and_no_failure(places, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    (row,) = compiler(places)
    assert row.state == "note" and "in PyTorch alone, slower" in row.found and "Install gcc" in row.remedy


@pytest.mark.parametrize("broken", ["/nowhere/cc", "false"])
def test_a_compiler_that_compiles_nothing_is_none(places, monkeypatch, broken):
    monkeypatch.setenv("CC", broken)
    (row,) = compiler(places)
    assert row.state == "note" and f"{broken} fails" in row.found


def test_engines_that_are_there_and_not(places, monkeypatch):
    monkeypatch.setattr("engram.snn.checks.find_spec", lambda name: name == "norse" or None)
    assert list(engines(places)) == [Check("engines", "ok", "fused, norse; not installed: snntorch")]


def test_everything_a_plugin_offers_is_counted(tmp_path, capsys):
    plugins = Registry.discover().plugins
    (row,) = rows(capsys, tmp_path, plugins["continual"])
    assert row["found"] == f"1 experiment, {len(plugins['continual'].strategies)} strategies"


def damp(places: Places) -> list[Check]:
    return [Check("cellar", "note", f"damp, {places.out.name}", "Air it.")]


def test_a_plugin_brings_rows_and_one_that_cannot_be_made_is_a_finding(tmp_path, capsys):
    brought = {"cellar": f"{__name__}:damp", "attic": "nowhere_at_all:attic"}
    cellar, attic, plugin, lost = rows(capsys, tmp_path, Plugin(name="house", checks=brought), code=1)
    assert cellar == {"name": "cellar", "state": "note", "found": f"damp, {tmp_path.name}", "remedy": "Air it."}
    assert attic["state"] == "bad" and "No module named 'nowhere_at_all'" in attic["found"]
    assert (plugin["found"], lost["name"], lost["state"]) == ("2 checks", "plugin lost", "bad")


def cellar(say) -> str:
    say("digging")
    return "a cellar"


def test_what_a_plugin_installs_is_made_first_and_said_beside_the_rows(tmp_path, capsys):
    house = Plugin(name="house", installs={"cellar": f"{__name__}:cellar"})
    registry = Registry({"house": house}, {})

    def doctor_of(name):
        return doctor.show(
            Given(["doctor"], [], Doctoring(out=tmp_path, json=True, install=name), None, lambda: registry)
        )

    assert doctor_of("cellar") == 0
    said = capsys.readouterr()
    assert said.err == "cellar: digging ...\na cellar\n" and json.loads(said.out)["checks"][0]["found"] == "1 install"
    with pytest.raises(UserError, match=r"^--install must be one of cellar; got attic\. Give one of these\.$"):
        doctor_of("attic")
