"""Files are read quickly where nothing is wrong with them, and say the same as where something is."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engram.benchmarks.records import stored
from engram.benchmarks.records.stored import Damaged, decoded, read_json, write_json

LEAVES = st.none() | st.booleans() | st.integers(-(10**320), 10**320) | st.floats(allow_nan=False) | st.text(max_size=9)
VALUES = st.dictionaries(st.text(max_size=9), LEAVES | st.lists(LEAVES, max_size=3), max_size=5)


@given(VALUES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_both_ways_of_reading_say_the_same(tmp_path, values):
    path = tmp_path / "config.json"
    write_json(path, {"experiment": "a", "config": values})
    quick = _said(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "_quickly", lambda raw, name: None)
        assert repr(_said(path)) == repr(quick)


def _said(path):
    try:
        return read_json(path)
    except Damaged as error:
        return error.why


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("1e400", "the number 1e400, which no float holds"),
        ("9" * 301, "a number of 301 digits"),
        ("-" + "9" * 301, "a number of 302 digits"),
        ("1" * 9999, "a number of 9999 digits"),
        ("NaN", "config.x of another type"),
    ],
)
def test_numbers_that_no_float_holds_are_said(tmp_path, value, why):
    path = tmp_path / "config.json"
    path.write_text(f'{{"experiment": "a", "config": {{"x": {value}}}}}')
    assert _said(path) == why


def test_a_result_is_parsed_once_where_nothing_is_wrong(tmp_path, monkeypatch):
    path = tmp_path / "provenance.json"
    write_json(path, {"facts": {"x": 10**99, "y": 1e150}})
    monkeypatch.setattr(stored, "decoded", lambda raw: pytest.fail("slowly"))
    assert read_json(path) == {"facts": {"x": 10**99, "y": 1e150}}


def test_lone_surrogates_are_damage(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"experiment": "\ud800", "config": {}}))
    assert decoded(path.read_bytes()) and "config.json must be whole" in str(_error(path))


def _error(path):
    with pytest.raises(Damaged) as caught:
        read_json(path)
    return caught.value
