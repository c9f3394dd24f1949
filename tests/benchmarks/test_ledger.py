"""The ledger survives a death at any byte and never says anything twice."""

from __future__ import annotations

import json

from engram.benchmarks.records.lines import Extent, extent_of, first_line, last_line, lost_in, read_ledger
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.ledger import Ledger


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_repaired_after_a_cut_at_any_byte(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with Ledger(path) as ledger:
        for step in range(3):
            ledger.log(step, {"loss": step / 3, "accuracy/über": 1.0})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        read = len(Record(tmp_path).ledger())
        assert whole.count(b"\n", 0, cut) <= read <= whole.count(b"\n", 0, cut + 1)
        with Ledger(path) as ledger:
            for step in range(3):
                ledger.log(step, {"loss": step / 3, "accuracy/über": 1.0})
        found = [(line["name"], line["step"], line["value"]) for line in lines(tmp_path)]
        assert len(set(found)) == len(found) == 6


def test_a_pair_is_written_once(tmp_path):
    with Ledger(tmp_path / "metrics.jsonl") as ledger:
        ledger.log(1, {"loss": 0.5})
        ledger.log(1, {"loss": 0.7, "other": 1})
    assert [(line["name"], line["value"]) for line in lines(tmp_path)] == [("loss", 0.5), ("other", 1.0)]
    assert all(isinstance(line["t"], int) and line["t"] > 1e12 for line in lines(tmp_path))


def test_its_ends_and_extent_are_those_of_its_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert (extent_of(path), first_line(path), last_line(path), lost_in(path)) == (None, None, None, "")
    with Ledger(path) as ledger:
        for step in (7, 3, 2000):
            ledger.log(step, {"loss": step / 3, "x" * 5000: 1.0})
    whole = path.read_bytes()
    for cut in (len(whole), len(whole) - 1, whole.index(b"\n") + 1):
        path.write_bytes(whole[:cut])
        lines = Record(tmp_path).ledger()
        found = Extent(lines[0], lines[-1], max(line.step for line in lines), frozenset(line.name for line in lines))
        assert extent_of(path) == found
        assert (first_line(path), last_line(path)) == (lines[0], lines[-1])
    path.write_bytes(whole.replace(b'"step": 3', b'"step": 4'))
    assert lost_in(path) == read_ledger(path).lost == "line 3 is not the one that was written"
