"""What finished trials said is believed as long as nothing about their files changes."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from engram.benchmarks.compare.comparison import compare_outcomes
from engram.benchmarks.compare.groups import MOST_GROUPS
from engram.benchmarks.comparing import compare
from engram.benchmarks.planning import naming
from engram.benchmarks.records import memory, trials
from engram.benchmarks.records.lines import digest
from engram.benchmarks.records.memory import Memory
from engram.benchmarks.records.outcomes import Outcome, Outcomes
from engram.benchmarks.records.trials import Record, read_sweep


@pytest.fixture
def remembering(monkeypatch, tmp_path):
    """Everything is worth remembering, at once; the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "_WORTH", 1)
    monkeypatch.setattr(memory, "_SETTLED_NS", -(10**9))
    return tmp_path / "cache" / "engram" / "trials"


def rows(found):
    return [(group.label, dict(group.scores), group.seconds) for group in found.groups], found.absent


def unread(monkeypatch):
    """From now on no trial's file may be read."""

    def refuse(path: Path):
        assert path.name == "plan.json", path
        return original(path)

    original = trials.read_json
    monkeypatch.setattr(trials, "read_json", refuse)


def test_what_was_read_once_is_not_read_again(folders, remembering, monkeypatch):
    folders.sweep()
    before = rows(compare(folders.out, "nets"))
    assert len(list(remembering.iterdir())) == 1
    unread(monkeypatch)
    assert rows(compare(folders.out, "nets")) == before


@pytest.mark.parametrize("name", ["config.json", "result.json", "provenance.json", "metrics.jsonl"])
def test_any_change_is_seen_even_with_the_old_times_and_size(folders, remembering, name):
    first, *_ = folders.sweep()
    folder = folders.out / "trials" / first
    told = json.loads((folder / "result.json").read_text())
    folders.json(folder / "result.json", {**told, "ledger": digest(folder / "metrics.jsonl")})
    assert not compare(folders.out, "nets").absent
    path = folder / name
    about, text = path.stat(), path.read_bytes()
    path.write_bytes(b"]" + text[1:])  # of the same length, and no JSON
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    found = compare(folders.out, "nets")
    assert [one.trial for one in found.absent] == [first] and "damaged" in found.absent[0].why
    path.write_bytes(text)
    assert not compare(folders.out, "nets").absent


def test_only_finished_trials_that_have_settled_are_remembered(folders, remembering, monkeypatch):
    folders.sweep(states={("mlp", 1): "failed", ("mlp", 2): "interrupted"})
    monkeypatch.setattr(memory, "_SETTLED_NS", 10**12)
    compare(folders.out, "nets")
    assert not remembering.exists()
    monkeypatch.setattr(memory, "_SETTLED_NS", -(10**9))
    compare(folders.out, "nets")
    (path,) = remembering.iterdir()
    assert len(path.read_bytes().splitlines()) == 1 + 4


def test_a_file_that_changes_while_it_is_read_is_not_remembered(folders, remembering):
    trial = folders.trial()
    found = Memory(folders.out)
    record = Record(folders.out / "trials" / trial, memory=found)
    assert record.about and (record.folder / "result.json").exists()
    (record.folder / "result.json").write_bytes((record.folder / "result.json").read_bytes())
    assert record.status == "done"
    found.save()
    assert not remembering.exists()


def test_what_was_read_before_a_file_changed_is_not_remembered_whoever_asked_since(folders, remembering):
    folder = folders.out / "trials" / folders.trial()
    found = Memory(folders.out)
    record = Record(folder, memory=found)
    assert record.result["metrics"]
    (folder / "result.json").write_bytes((folder / "result.json").read_bytes().replace(b"61706", b"61707"))
    assert found.of(folder)[0]  # as another thread does
    assert record.status == "done"
    found.save()
    assert not remembering.exists()


@pytest.mark.parametrize("harm", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw.replace(b"0.9", b"0.8", 1)])
def test_a_damaged_memory_costs_time_alone(folders, remembering, harm):
    folders.sweep()
    before = rows(compare(folders.out, "nets"))
    (path,) = remembering.iterdir()
    path.write_bytes(harm(path.read_bytes()))
    assert rows(compare(folders.out, "nets")) == before


def test_a_cache_that_cannot_be_written_is_done_without(folders, remembering):
    remembering.parent.mkdir(parents=True)
    remembering.write_text("in the way")
    folders.sweep()
    assert len(compare(folders.out, "nets").groups) == 2


def test_lines_of_another_form_are_passed_over(folders, remembering):
    first, *others = folders.sweep()
    compare(folders.out, "nets")
    (path,) = remembering.iterdir()
    lines = path.read_bytes().partition(b"\n")[2].splitlines()
    text = b"\n".join(line.rpartition(b"\t")[0] if line.startswith(first.encode()) else line for line in lines)
    path.write_bytes(sha256(text).hexdigest().encode() + b"\n" + text)
    found = Memory(folders.out)
    assert found.of(folders.out / "trials" / first)[1] is None
    assert all(found.of(folders.out / "trials" / other)[1] for other in others)


@pytest.mark.parametrize("name", ["of a\ttab", "of\ntwo lines", "\udcff"])
def test_a_strangers_name_that_no_line_can_hold_is_not_remembered(folders, remembering, name):
    folder = folders.out / "trials" / name
    (folders.out / "trials" / folders.trial()).rename(folder)
    found = Memory(folders.out)
    assert Record(folder, memory=found).status == "done"
    found.save()
    assert not remembering.exists()


def test_few_files_are_kept(folders, folders_in, remembering, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_MOST_FILES", 2)
    for index in range(3):
        each = folders_in(tmp_path / str(index))
        each.sweep(backbones=("mlp",), seeds=1)
        compare(each.out, "nets")
    assert len(list(remembering.iterdir())) == 2


def test_a_few_trials_are_not_worth_a_file(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders.sweep()
    compare(folders.out, "nets")
    assert not (tmp_path / "cache").exists()


def test_a_remembered_trial_still_has_its_tables(folders, remembering):
    folders.sweep()
    compare(folders.out, "nets")
    finished = [record.finished for record in read_sweep(folders.out, "nets").records]
    assert all(each is not None and each.tables["accuracy_vs_steps"] for each in finished)


def test_of_very_many_groups_those_with_the_best_are_tested_more_strictly():
    def found(count):
        scores = {f"{index:03}": [1 - index / 1000 + seed / 10_000 for seed in range(14)] for index in range(count)}
        done = [
            Outcome(f"{name}{seed}", "x", {"net": name, "seed": seed}, {"score": score}, "done")
            for name, each in scores.items()
            for seed, score in enumerate(each)
        ]
        return compare_outcomes(Outcomes("s", ("net",), done))

    few, many = found(MOST_GROUPS), found(MOST_GROUPS + 1)
    assert len(few.pairs) == MOST_GROUPS * (MOST_GROUPS - 1) // 2
    assert [(pair.group, pair.against) for pair in many.pairs] == [(g.label, "000") for g in many.groups[1:]]
    assert many.pairs[0].p == pytest.approx(min(1, MOST_GROUPS * (MOST_GROUPS + 1) // 2 * 2 / 2**14))
    assert many.pairs[0].verdict == "no difference shown" or many.pairs[0].verdict.startswith("too few seeds")
    assert len(many.against_best()) == MOST_GROUPS


def test_trials_that_differ_in_their_seed_are_looked_up_once(folders, monkeypatch):
    asked = []
    original = naming.off_default
    monkeypatch.setattr(naming, "off_default", lambda record: asked.append(record.trial) or original(record))
    trials = [folders.trial("mlp", seed, options={"lr": lr}) for lr in (0.1, 0.2) for seed in range(3)]
    said = [" ".join(naming.record_words(Record(folders.out / "trials" / trial))) for trial in trials]
    assert len(asked) == 2 and ["lr=0.1" in each for each in said] == [True] * 3 + [False] * 3
    assert [each.rpartition(" ")[2] for each in said] == ["0", "1", "2"] * 2
