"""The sink against real SQLite stores: what it tells, and how often."""

from __future__ import annotations

import fcntl
import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from engram.backbone.errors import UserError
from engram.benchmarks.comparing import compare
from engram.benchmarks.driving.feeder import Feeder
from engram.benchmarks.records.lines import read_ledger
from engram.benchmarks.sink import Sink
from engram.benchmarks.worker import machine


def test_a_sweep_is_told_in_full_and_once(told, store, folders):
    trials = folders.sweep()
    sink = Sink(folders.out, None)
    assert sink.needs_sync(trials, "nets")
    report = sink.sync(trials, "nets")
    assert (report.ok, report.message, report.trials) == (True, "", 6)
    assert not sink.needs_sync(trials, "nets")
    told.assert_once(store)
    before = told.rows(store, "select count(*) from metrics")
    assert sink.sync(trials, "nets").ok
    assert told.rows(store, "select count(*) from metrics") == before

    trial = trials[0]
    ledger = [json.loads(line) for line in (folders.out / "trials" / trial / "metrics.jsonl").read_text().splitlines()]
    said = [(line["step"], line["t"], line["value"]) for line in ledger if line["name"] == "train/loss"]
    assert told.points(store, trial, "train/loss") == said
    assert told.status(store, trial) == ("FINISHED", ledger[0]["t"], ledger[-1]["t"])
    result = json.loads((folders.out / "trials" / trial / "result.json").read_text())["metrics"]
    assert told.points(store, trial, "test/accuracy")[0][2] == result["test/accuracy"]
    # the ledger has a curve of that name, so the final number has one of its own
    assert told.points(store, trial, "final/train/loss")[0][2] == result["train/loss"]


def test_tags_params_dataset_and_artifacts(told, store, folders):
    (trial,) = [folders.trial("lenet5", 1)]
    assert Sink(folders.out, None).sync([trial], None).ok
    found = told.tags(store, trial)
    assert found["git.commit"] == found["mlflow.source.git.commit"] == "0123456789abcdef0123456789abcdef01234567"
    assert found["git.dirty"] == "True"
    assert found["data.sha256"] == "ab" * 32
    assert len(found["env.sha256"]) == 64
    params = dict(told.rows(store, "select key, value from params"))
    config = json.loads((folders.out / "trials" / trial / "config.json").read_text())["config"]
    options = config.pop("backbone_options")
    config.pop("dataset_options")
    expected = {"experiment": "backbone.train", "backbone.width": str(options["width"])}
    assert params == expected | {name: str(value) for name, value in config.items()}  # defaults too
    name = told.rows(store, "select name from runs")
    assert name == [(f"backbone.train digits lenet5 epochs=4 lr=0.05 seed 1 {trial[:8]}",)]
    ((digest, source),) = told.rows(store, "select digest, dataset_source from datasets")
    assert ("ab" * 32).startswith(digest)
    assert "ab" * 32 in source
    found = files(folders.out)
    assert set(found) == {
        *("config.json", "provenance.json", "result.json", "model/model.safetensors"),
        *("figures/accuracy_vs_steps.svg", "tables/accuracy_vs_steps.csv"),
    }
    assert found["tables/accuracy_vs_steps.csv"].read_text().startswith("steps,accuracy\n1,")
    ET.fromstring(found["figures/accuracy_vs_steps.svg"].read_text())
    mine = folders.out / "trials" / trial / "model" / "model.safetensors"
    assert found["model/model.safetensors"].samefile(mine)  # no second copy of many MB
    ((location,),) = told.rows(store, "select artifact_location from experiments where name = 'engram'")
    assert Path(location.removeprefix("file://")).is_absolute()


def files(out):
    """The artifacts of the only run that has any, by their places in it."""
    (run,) = (out / "mlartifacts").iterdir()
    places = run / "artifacts"
    return {path.relative_to(places).as_posix(): path for path in places.rglob("*") if path.is_file()}


def test_a_file_is_handed_over_once_and_again_when_it_changed(store, folders, monkeypatch):
    """As to a server: where no link can be made, files are uploaded."""
    from mlflow import MlflowClient

    sent = []
    upload = MlflowClient.log_artifact
    trial = folders.trial("lenet5", 0)
    folder = folders.out / "trials" / trial

    def noting(self, run, path, place=None):
        if Path(path).is_relative_to(folder):
            sent.append(Path(path).name)
        upload(self, run, path, place)

    monkeypatch.setattr(MlflowClient, "log_artifact", noting)
    monkeypatch.setattr("engram.benchmarks.sink.files._link", lambda file, store, name: False)
    assert Sink(folders.out, None).sync([trial], None).ok
    assert sorted(sent) == ["config.json", "model.safetensors", "provenance.json", "result.json"]
    assert files(folders.out)["model/model.safetensors"].stat().st_size == 5000
    sent.clear()
    result = json.loads((folder / "result.json").read_text())
    folders.json(folder / "result.json", result | {"seconds": 4.0})
    sink = Sink(folders.out, None)
    assert sink.needs_sync([trial], None) and sink.sync([trial], None).ok
    assert sent == ["result.json"]


def test_files_that_are_too_large_are_named_and_stay(told, store, folders, monkeypatch):
    monkeypatch.setattr("engram.benchmarks.sink.files.LARGEST", 4000)
    trial = folders.trial("lenet5", 0)
    assert Sink(folders.out, None).sync([trial], None).ok
    assert "model/model.safetensors" not in files(folders.out)
    assert told.tags(store, trial)["engram.left_out"] == "model/model.safetensors (0 MiB)"


def test_long_values_of_options_are_cut_and_marked(told, store, folders):
    long = list(range(3000))
    trial = folders.trial("mlp", 0, options={"order": long, "teacher": None, "x" * 300: 1})
    report = Sink(folders.out, None).sync([trial], None)
    assert report.ok, report.message
    params = dict(told.rows(store, "select key, value from params"))
    assert len(params["order"]) == 6000 and params["order"].startswith("0,1,2,")
    assert params["teacher"] == "none"
    assert max(map(len, params)) <= 250


def test_children_hang_below_the_sweep_which_has_the_table(told, store, folders):
    trials = folders.sweep()
    assert Sink(folders.out, None).sync(trials, "nets").ok
    ((parent,),) = told.rows(store, "select run_uuid from tags where key = 'engram.sweep' and value = 'nets'")
    assert {told.tags(store, trial)["mlflow.parentRunId"] for trial in trials} == {parent}
    names = dict(told.rows(store, "select run_uuid, name from runs"))
    assert names.pop(parent) == "nets"
    expected = {f"backbone.train digits {net} seed {seed}" for net in ("lenet5", "mlp") for seed in range(3)}
    assert {name.rpartition(" ")[0] for name in names.values()} == expected
    held = {path.name for path in (folders.out / "mlartifacts" / parent / "artifacts").iterdir()}
    assert held == {"report.html", "plan.json", "suite.toml"}
    assert not (folders.out / "reports").exists()
    told = dict(told.rows(store, "select key, value from metrics where run_uuid = ?", parent))
    comparison = compare(folders.out, "nets")
    for group in comparison.groups:
        key = f"backbone {group.label}/test/accuracy"
        assert told[f"{key}/mean"] == group.interval.mean
        assert told[f"{key}/low"] == group.interval.low
        assert told[f"{key}/high"] == group.interval.high
        assert told[f"{key}/n"] == 3


def test_the_table_of_a_sweep_that_grew_replaces_the_old_one(told, store, folders):
    sink = Sink(folders.out, None)
    assert sink.sync(folders.sweep(seeds=2), "nets").ok
    trials = folders.sweep(seeds=3)
    assert sink.needs_sync(trials, "nets")
    assert sink.sync(trials, "nets").ok
    live = "select run_uuid from runs where lifecycle_stage = 'active'"
    found = told.rows(store, f"select run_uuid from tags where key = 'engram.sweep' and run_uuid in ({live})")
    ((parent,),) = found
    query = "select value from metrics where run_uuid = ? and key = 'backbone mlp/test/accuracy/n'"
    assert told.rows(store, query, parent) == [(3.0,)]
    assert {told.tags(store, trial)["mlflow.parentRunId"] for trial in trials} == {parent}
    told.assert_once(store)


def shown(comparison):
    return {group.label: (dict(group.scores), group.interval) for group in comparison.groups}


def test_what_left_an_edited_suite_leaves_its_sweep(told, store, folders):
    uri, sink = f"sqlite:///{store}", Sink(folders.out, None)
    first = folders.sweep(seeds=2, epochs=1, options={"lr": 0.1})
    folders.json(
        folders.out / "sweeps" / "other" / "plan.json",
        json.loads((folders.out / "sweeps" / "nets" / "plan.json").read_text()) | {"name": "other"},
    )
    assert sink.sync(first, "nets").ok and sink.sync(first, "other").ok
    before = shown(compare(folders.out, "nets"))
    edited = folders.sweep(seeds=2, epochs=4, options={"lr": 0.2})
    assert sink.sync(edited, "nets").ok
    assert before != shown(compare(folders.out, "nets")) == shown(compare(folders.out, "nets", tracking_uri=uri))
    assert before == shown(compare(folders.out, "other", tracking_uri=uri))
    live = "select run_uuid from runs where lifecycle_stage = 'active'"
    parents = dict(
        told.rows(store, f"select value, run_uuid from tags where key = 'engram.sweep' and run_uuid in ({live})")
    )
    above = {trial: told.tags(store, trial)["mlflow.parentRunId"] for trial in (*first, *edited)}
    assert above == dict.fromkeys(first, parents["other"]) | dict.fromkeys(edited, parents["nets"])
    folders.sweep(seeds=2, epochs=1, options={"lr": 0.1})  # edited back
    assert sink.sync(first, "nets").ok
    assert before == shown(compare(folders.out, "nets", tracking_uri=uri))
    told.assert_once(store)


def test_another_machine_s_trials_stay_and_two_for_a_cell_are_refused(store, folders, folders_in, tmp_path):
    uri, mine = f"sqlite:///{store}", folders.sweep(seeds=1, options={"lr": 0.1})
    assert Sink(folders.out, uri).sync(mine, "nets").ok
    there = folders_in(tmp_path / "there")
    theirs = there.sweep(seeds=1, options={"lr": 0.2})
    assert Sink(there.out, uri).sync(theirs, "nets").ok
    with pytest.raises(UserError) as caught:
        compare(folders.out, "nets", tracking_uri=uri)
    assert "must be one for each cell and seed" in str(caught.value)
    assert re.search(r"for backbone (lenet5|mlp), seed 0 \(lr 0\.[12] and 0\.[12] in them\)", str(caught.value))
    assert set(re.findall("[0-9a-f]{16}", str(caught.value))) in [set(pair) for pair in zip(mine, theirs, strict=True)]


def test_a_run_gets_its_sweep_s_values_into_its_name(told, store, folders):
    trials = folders.sweep(seeds=1, axes={"lr": [0.05]})
    assert Sink(folders.out, None).sync(trials, None).ok
    assert all("epochs=4" in name for (name,) in told.rows(store, "select name from runs"))  # what is off its default
    assert Sink(folders.out, None).sync(trials, "nets").ok
    found = {name for (name,) in told.rows(store, "select name from runs") if name != "nets"}
    assert found == {
        f"backbone.train digits {net} lr=0.05 seed 0 {trial[:8]}"
        for net, trial in zip(("lenet5", "mlp"), trials, strict=True)
    }


def test_no_table_before_the_last_trial_is_over(told, store, folders):
    trials = folders.sweep(states={("mlp", 2): "interrupted"})
    sink = Sink(folders.out, None)
    assert sink.sync(trials, "nets").ok
    query = "select count(*) from metrics where key like 'backbone %'"
    assert told.rows(store, query) == [(0,)]
    folders.sweep()
    assert sink.sync(trials, "nets").ok
    assert told.rows(store, query)[0][0] > 0
    told.assert_once(store)


def test_a_sweep_with_a_trial_that_was_given_up_is_finished_and_has_its_table(told, store, folders):
    trials = folders.sweep(states={("mlp", 2): "interrupted"})
    folders.json(folders.out / "trials" / trials[-1] / "pruned.json", {"why": "worse than the others"})
    assert Sink(folders.out, None).sync(trials, "nets", now=True).ok
    query = "select status from runs join tags using (run_uuid) where tags.key = 'engram.sweep'"
    assert told.rows(store, query) == [("FINISHED",)]
    assert told.rows(store, "select count(*) from metrics where key like 'backbone %'")[0][0] > 0


@pytest.mark.parametrize("forget", [False, True])
def test_replay_after_every_cut_of_the_ledger(told, store, folders, forget):
    """A worker dies at any byte, is resumed, dies again: the sink follows, with its own memory or without."""
    trial = folders.trial("mlp", 0, epochs=3, state="interrupted")
    ledger = folders.out / "trials" / trial / "metrics.jsonl"
    whole = ledger.read_bytes()
    for cut in range(0, len(whole), 37):
        ledger.write_bytes(whole[:cut])
        if forget:
            (ledger.parent / "sink.json").unlink(missing_ok=True)
        report = Sink(folders.out, None).sync([trial], None)
        assert report.ok, report.message
    ledger.write_bytes(whole)
    sink = Sink(folders.out, None)
    assert sink.sync([trial], None).ok
    assert not sink.needs_sync([trial], None)
    told.assert_once(store)
    assert len(told.points(store, trial, "train/loss")) == 3
    assert told.status(store, trial)[0] == "KILLED"


def test_a_tail_lost_with_the_power_and_logged_again_is_not_doubled(told, store, folders):
    trial = folders.trial("mlp", 0, state="interrupted")
    ledger = folders.out / "trials" / trial / "metrics.jsonl"
    lines = ledger.read_text().splitlines()
    assert Sink(folders.out, None).sync([trial], None).ok
    later = [json.dumps(json.loads(line) | {"t": json.loads(line)["t"] + 5000}) for line in lines[-3:]]
    ledger.write_text("\n".join([*lines[:-3], *later]) + "\n")
    sink = Sink(folders.out, None)
    assert sink.needs_sync([trial], None)
    assert sink.sync([trial], None).ok
    told.assert_once(store)
    assert not sink.needs_sync([trial], None)


def test_states_follow_the_trial(told, store, folders):
    trial = folders.trial("mlp", 0, state="interrupted")
    folder = folders.out / "trials" / trial
    sink = Sink(folders.out, None)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sink.sync([trial], None).ok
        assert told.status(store, trial)[0] == "RUNNING"
    assert sink.sync([trial], None).ok
    assert told.status(store, trial)[0] == "KILLED"
    folders.trial("mlp", 0, state="failed")
    assert sink.sync([trial], None).ok
    assert told.status(store, trial)[0] == "FAILED"
    assert told.tags(store, trial)["engram.error"] == "loss must be finite; got nan."
    (folder / "error.json").unlink()
    folders.trial("mlp", 0)
    assert sink.sync([trial], None).ok
    assert told.status(store, trial)[0] == "FINISHED"
    told.assert_once(store)


def test_a_trial_that_has_not_begun_has_no_run(told, store, folders):
    trial = folders.trial("mlp", 0, state="new")
    sink = Sink(folders.out, None)
    assert not sink.needs_sync([trial], None)
    assert sink.sync([trial], None).ok
    assert told.rows(store, "select count(*) from tags where key = 'engram.trial'") == [(0,)]


def test_the_marks_are_lost_and_found_by_tag(told, store, folders):
    trials = folders.sweep()
    assert Sink(folders.out, None).sync(trials, "nets").ok
    before = told.rows(store, "select count(*) from runs"), told.rows(store, "select count(*) from metrics")
    for path in folders.out.rglob("sink.json"):
        path.unlink()
    assert Sink(folders.out, None).sync(trials, "nets").ok
    assert (told.rows(store, "select count(*) from runs"), told.rows(store, "select count(*) from metrics")) == before
    told.assert_once(store)


def experiments(told, store):
    """The experiment of each run, by the trial or the sweep that it is of."""
    query = """select t.value, e.name from runs r join experiments e on e.experiment_id = r.experiment_id
               join tags t on t.run_uuid = r.run_uuid where t.key in ('engram.trial', 'engram.sweep')
               and r.lifecycle_stage = 'active'"""
    return dict(told.rows(store, query))


def test_each_sweep_has_an_experiment_and_shared_trials_live_in_the_first(told, store, folders):
    uri = f"sqlite:///{store}"
    alone = folders.trial("mlp", 0)
    assert Sink(folders.out, None).sync([alone], None).ok
    first, second = folders.sweep("first", seeds=2), folders.sweep("second", ("mlp", "vgg-tiny"), seeds=2)
    assert Sink(folders.out, None).sync(first, "first").ok and Sink(folders.out, None).sync(second, "second").ok
    shared = {*first, alone}
    expected = dict.fromkeys(first, "engram/first") | dict.fromkeys({*second} - shared, "engram/second")
    expected |= {"first": "engram/first", "second": "engram/second", alone: "engram"}
    assert experiments(told, store) == expected
    query = """select e.name, t.value from tags t join runs r on r.run_uuid = t.run_uuid
               join experiments e on e.experiment_id = r.experiment_id where t.key = 'engram.elsewhere' order by 1"""
    said = [("engram/first", "engram (1)"), ("engram/second", "engram (1), engram/first (1)")]
    assert told.rows(store, query) == said
    for sweep in ("first", "second"):
        assert shown(compare(folders.out, sweep)) == shown(compare(folders.out, sweep, tracking_uri=uri))
    assert Sink(folders.out, None).count([*first, *second]).trials == 6
    for path in folders.out.rglob("sink.json"):
        path.unlink()
    assert Sink(folders.out, None).sync(first, "second").ok  # marks lost: found in whichever experiment they are
    assert experiments(told, store) == expected
    told.assert_once(store)


def test_a_sweep_that_was_told_before_there_were_experiments_stays(told, store, folders, monkeypatch):
    uri = f"sqlite:///{store}"
    with monkeypatch.context() as before:
        before.setattr("engram.benchmarks.sink.sync.experiment_of", lambda sweep: "engram")
        assert Sink(folders.out, None).sync(folders.sweep(seeds=2), "nets").ok
    trials = folders.sweep(seeds=3)
    assert Sink(folders.out, None).sync(trials, "nets").ok
    assert set(experiments(told, store).values()) == {"engram"}
    assert shown(compare(folders.out, "nets")) == shown(compare(folders.out, "nets", tracking_uri=uri))


def test_a_sweep_whose_experiment_was_deleted_is_left_so_until_there_is_news(told, store, folders):
    from mlflow import MlflowClient

    trials, client = folders.sweep(seeds=1), MlflowClient(tracking_uri=f"sqlite:///{store}")
    other = folders.trial("vgg-tiny")
    assert Sink(folders.out, None).sync(trials, "nets").ok
    client.delete_experiment(client.get_experiment_by_name("engram/nets").experiment_id)
    sink = Sink(folders.out, None)
    assert not sink.needs_sync(trials, "nets")
    assert sink.sync([other], None).ok
    more = folders.sweep(seeds=2)
    assert sink.sync(more, "nets").ok
    assert "mlflow experiments restore --experiment-id" in sink.refused["sweep nets"]
    assert experiments(told, store)[other] == "engram"


def test_how_busy_the_machine_was_is_told_once_on_the_sweep_s_run(told, store, folders, monkeypatch, wait_for):
    monkeypatch.setattr(machine, "SECONDS", 0.05)
    trials = folders.sweep(seeds=1)
    ledger = folders.out / "sweeps" / "nets" / "metrics.jsonl"
    for least in (2, 4):  # the second driver goes on where the first one stopped
        feeder = Feeder(folders.out, None, trials, "nets")
        feeder.start()
        wait_for(lambda least=least: ledger.exists() and ledger.read_text().count("system_memory_usage_p") >= least)
        assert feeder.finish() == ""
    lines = read_ledger(ledger).lines
    query = """select m.key, m.step, m.timestamp, m.value from metrics m join tags t on t.run_uuid = m.run_uuid
               where t.key = 'engram.sweep' and m.key like 'system/%'"""
    assert set(told.rows(store, query)) == {(line.name, line.step, line.t, line.value) for line in lines}
    assert {"system/cpu_utilization_percentage", "system/disk_usage_percentage"} <= {line.name for line in lines}
    assert all(0 <= line.value <= 100 for line in lines if line.name.endswith("percentage"))
    assert not Sink(folders.out, None).needs_sync(trials, "nets")
    folders.sweep(seeds=2)  # another table, hence another run: it has them all, too
    assert Sink(folders.out, None).sync(folders.sweep(seeds=2), "nets").ok
    live = "and t.run_uuid in (select run_uuid from runs where lifecycle_stage = 'active')"
    assert len(told.rows(store, query + live)) == len(lines)
    told.assert_once(store)


def test_how_busy_other_machines_were_is_told_under_their_names(told, store, folders, monkeypatch, wait_for):
    monkeypatch.setattr(machine, "SECONDS", 0.05)
    monkeypatch.setattr(machine, "FIRST_SECONDS", 0.01)
    trials = folders.sweep(seeds=1)
    sweep = folders.out / "sweeps" / "nets"
    ledger, sent = sweep / "machines" / "n7" / "metrics.jsonl", folders.out / "trials" / trials[0]
    two = [machine.Watch(home / "machines" / "n7", str(sweep), "n7") for home in (sweep, sent)]
    for watch in two:
        watch.start()
    wait_for(lambda: any(each.folder.exists() for each in two))
    for watch in two:  # one alone has sampled, or the other one when it had ended
        watch.stop()
    machine.gather(sent, str(sweep))
    lines = read_ledger(ledger)
    assert lines.lost == ""
    assert {line.name.rpartition("/")[0] for line in lines.lines} == {"system/n7"}
    assert len({line.step for line in lines.lines}) == len({line.t for line in lines.lines})
    sink = Sink(folders.out, None)
    query = """select m.key, m.step, m.timestamp, m.value from metrics m join tags t on t.run_uuid = m.run_uuid
               join runs r on r.run_uuid = m.run_uuid
               where t.key = 'engram.sweep' and m.key like 'system/%' and r.lifecycle_stage = 'active'"""
    for seeds in (1, 2):  # another table is another run, which has them all, too
        trials = folders.sweep(seeds=seeds)
        assert sink.needs_sync(trials, "nets")
        assert sink.sync(trials, "nets").ok
        assert not sink.needs_sync(trials, "nets")
        assert set(told.rows(store, query)) == {(each.name, each.step, each.t, each.value) for each in lines.lines}
    machine._append(ledger, {lines.lines[-1].t: {"system/n7/x": 1.0}, 2**45: {"system/n7/x": 2.0}})
    assert [(line.step, line.value) for line in read_ledger(ledger).lines if line.name.endswith("x")] == [
        (lines.lines[-1].step + 1, 2.0)  # that of a time which is there has come back twice
    ]
    assert sink.needs_sync(trials, "nets")
    assert sink.sync(trials, "nets").ok
    told.assert_once(store)


def test_a_sample_that_a_kill_tore_spoils_none_after_it(tmp_path):
    ledger = tmp_path / "metrics.jsonl"
    machine._append(ledger, {1: {"a": 1.0}, 2: {"a": 2.0}})
    ledger.write_bytes(ledger.read_bytes()[:-7])
    machine._append(ledger, {3: {"a": 3.0}})
    assert [(line.t, line.step, line.value) for line in read_ledger(ledger).lines] == [(1, 0, 1.0), (3, 1, 3.0)]


def test_what_nvidia_s_program_says(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '37, 1024, 81559, [N/A]'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine._graphics() == {
        "gpu_0_utilization_percentage": 37.0,
        "gpu_0_memory_usage_megabytes": 1024.0,
        "gpu_0_memory_total_megabytes": 81559.0,
    }
