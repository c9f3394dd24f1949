"""The ledger survives a death at any byte and never says anything twice."""

from __future__ import annotations

import json

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
