"""The sink against MLflow's server on PostgreSQL, with both killed in the middle of what they do."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest

from engram.benchmarks.records.lines import Line, encoded
from engram.benchmarks.records.trials import Record, trial_names

pytestmark = [pytest.mark.services, pytest.mark.slow]

SUITE = """
experiment = "counting.count"
seeds = 3
[options]
pause = 0.1
steps = {steps}
"""


def sweep_in(folder, name, steps):
    (folder / f"{name}.toml").write_text(SUITE.format(steps=steps))


def records(out):
    return [Record(out / "trials" / trial) for trial in trial_names(out)]


def written(out, trials, rows, base=0):
    """Trials that were broken off after so many measurements."""
    for number in range(base, base + trials):
        folder = out / "trials" / f"{number:016x}"
        folder.mkdir(parents=True)
        about = {"experiment": "counting.count", "version": 1, "config": {"seed": number}, "inputs": {}}
        (folder / "config.json").write_text(json.dumps(about))
        (folder / "provenance.json").write_text(json.dumps({"facts": {"data_sha256": "ab" * 32}}))
        lines = (Line(1_700_000_000_000 + n, n // 5, f"m{n % 5}", n / 7) for n in range(rows))
        (folder / "metrics.jsonl").write_bytes(b"".join(encoded(line, n) for n, line in enumerate(lines)))
    return records(out)


def test_a_sweep_with_its_files_over_http_is_told_once(engram, here, database, tracking, told, tmp_path):
    sweep_in(tmp_path, "whole", 5)
    done = engram("sweep", "whole.toml", "--workers", "2", "--json", "--tracking-uri", tracking.uri)
    assert done.code == 0, done.err
    out = tmp_path / "runs"
    assert here("sync", "--tracking-uri", tracking.uri).code == 0  # on a busy machine the driver's patience runs out
    told.assert_complete(records(out))
    told.assert_nothing_runs()
    tables = ("metrics", "runs", "tags", "params", "latest_metrics", "experiments", "inputs")

    def counts():
        return {table: told.rows(f"select count(*) from {table}") for table in tables}

    before = counts()
    assert here("sync", "--tracking-uri", tracking.uri).out == "3 trials are in MLflow\n"
    for path in out.rglob("sink.json"):
        path.unlink()
    assert here("sync", "--tracking-uri", tracking.uri).code == 0  # all marks lost: found again, nothing doubled
    assert counts() == before
    from mlflow import MlflowClient

    client, runs = MlflowClient(tracking_uri=tracking.uri), told.runs(trial_names(out))
    for trial, (run, _) in runs.items():
        assert client.get_run(run).info.artifact_uri.startswith("mlflow-artifacts:/")
        for name in ("note.txt", "result.json"):
            there = Path(client.download_artifacts(run, name, str(tmp_path)))
            assert there.read_bytes() == (out / "trials" / trial / name).read_bytes()
    theirs = here("compare", "whole", "--json", "--out", "nowhere", "--tracking-uri", tracking.uri)
    assert theirs.code == 0 and theirs.json == here("compare", "whole", "--json").json
    query = "select name from experiments where name like 'engram/%%'"
    assert ("engram/whole",) in told.rows(query)


def killed_while(servers, process, told, trials, rng):
    """Kill each of ``servers`` once while a sync goes on, as soon as it has told something more."""
    for server in servers:
        had = told.count(trials)
        deadline = time.monotonic() + 120
        while told.count(trials) <= had and process.poll() is None and time.monotonic() < deadline:
            time.sleep(rng.uniform(0, 0.2))
        server.kill()
        yield server


@pytest.mark.parametrize("which", ["server", "database"])
def test_killed_in_the_middle_of_a_sync(engram, database, tracking, told, tmp_path, which):
    server = {"server": tracking, "database": database}[which]
    found = written(tmp_path / "runs", 2, 12_000, base={"server": 0, "database": 100}[which])
    trials, rng = [record.trial for record in found], random.Random(which)
    process = engram.start("sync", "--tracking-uri", tracking.uri)
    for each in killed_while([server], process, told, trials, rng):
        _, err = process.communicate(timeout=300)
        assert process.returncode == 1, err
        assert err.count("\n") == 1 and "MLflow is not complete" in err
        each.start()
    assert 0 < told.count(trials) < 24_000
    done = engram("sync", "--tracking-uri", tracking.uri)
    assert (done.code, done.out) == (0, "2 trials are in MLflow\n"), done.err
    assert told.count(trials) == 24_000
    told.assert_complete(found)


def test_both_killed_during_a_sweep(engram, database, tracking, told, tmp_path):
    sweep_in(tmp_path, "killed", 90)
    driver = engram.start("sweep", "killed.toml", "--workers", "3", "--json", "--tracking-uri", tracking.uri)
    out = tmp_path / "runs"
    for server in (database, tracking):
        while driver.poll() is None and not (out.exists() and told.count(trial_names(out)) > 0):
            time.sleep(0.1)
        server.restart()
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    found = records(out)
    assert [record.status for record in found] == ["done"] * 3
    if "not all trials are in MLflow yet" in err:  # the servers were down for longer than the driver waits
        assert engram("sync", "--tracking-uri", tracking.uri).code == 0
    told.assert_complete(found)
    told.assert_nothing_runs()


def test_tables_locked_by_another(here, database, tracking, told, tmp_path, monkeypatch):
    """The server carries out what it was asked for after the client gave up: nothing is doubled by that."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    found = written(tmp_path / "runs", 2, 50, base=200)
    holder = database.connect()
    holder.cursor().execute("lock table runs, metrics in access exclusive mode")
    try:
        failed = here("sync", "--tracking-uri", tracking.uri, MLFLOW_HTTP_REQUEST_TIMEOUT="3")
    finally:
        holder.rollback()
        holder.close()
    assert failed.code == 1 and len(failed.complaints) == 1
    assert here("sync", "--tracking-uri", tracking.uri).code == 0
    told.assert_complete(found)


def test_an_answer_that_is_lost_makes_no_second_run(here, tracking, told, tmp_path, monkeypatch):
    """As of a database that is killed and back at once: the run is there, and its trial is set aside with an error."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    create = MlflowClient.create_run

    def made_in_vain(self, *args, **kwargs):
        create(self, *args, **kwargs)
        raise MlflowException("server closed the connection unexpectedly")

    found = written(tmp_path / "runs", 3, 20, base=500)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", made_in_vain)
        assert here("sync", "--tracking-uri", tracking.uri).code == 1
    assert here("sync", "--tracking-uri", tracking.uri).code == 0
    told.assert_complete(found)


def test_the_database_behind_the_server_is_refused(here, database, tmp_path):
    written(tmp_path / "runs", 1, 5, base=300)
    done = here("sync", "--tracking-uri", database.uri)
    assert (done.code, done.out, len(done.complaints)) == (2, "", 1)
    assert "Name the server in front of it: mlflow server " in done.err and database.password not in done.err


def test_a_copied_folder_tells_the_same_runs(engram, here, tracking, told, tmp_path):
    """Copied before or after it was told, to another place: neither a trial nor a sweep has a second run."""
    sweep_in(tmp_path, "copied", 3)
    assert engram("sweep", "copied.toml", "--workers", "2", "--json").code == 0  # into its own mlflow.db
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    for out in ("runs", "copy", "runs"):
        assert here("sync", "--out", out, "--tracking-uri", tracking.uri).code == 0
    shutil.copytree(tmp_path / "runs", tmp_path / "again")
    shutil.rmtree(tmp_path / "runs")
    assert here("sync", "--out", "again", "--tracking-uri", tracking.uri).code == 0
    told.assert_complete(records(tmp_path / "again"))
    query = """select count(*) from tags t join runs r on r.run_uuid = t.run_uuid
               where t.key = 'engram.sweep' and t.value = 'copied' and r.lifecycle_stage = 'active'"""
    assert told.rows(query) == [(1,)]


def test_two_that_tell_at_once(engram, tracking, told, tmp_path):
    """Two machines, each with several trials under way, all of one data set; one of them is killed, and comes back."""
    first, second = tmp_path / "first", tmp_path / "second"
    found = [*written(first, 20, 60, base=400), *written(second, 20, 60, base=440)]
    trials = [record.trial for record in found]
    words = [("sync", "--out", out, "--tracking-uri", tracking.uri) for out in (first, second)]
    killed, other = (engram.start(*each) for each in words)
    while len(told.runs(trials)) < 5:
        time.sleep(0.02)
    killed.kill()
    _, err = other.communicate(timeout=300)
    killed.communicate()
    assert (other.returncode, err) == (0, "")
    assert len(told.runs(trials)) < len(trials)
    done = engram(*words[0])
    assert (done.code, done.err) == (0, "")
    told.assert_complete(found)
    query = "select count(*) from inputs i join tags t on t.run_uuid = i.destination_id where t.value = any(%s)"
    assert told.rows(query, trials) == [(len(trials),)]


def test_a_network_is_promoted_and_comes_back_over_http(here, tracking, tmp_path, monkeypatch):
    import torch
    from mlflow import MlflowClient, artifacts

    import engram

    run = ("run", "backbone.train", "--epochs", "1", "--backbone", "mlp", "--backbone.width", "0.1", "--json")
    trial = here(*run).json["trial"]
    words = ("promote", trial[:6], "digits-mlp", "--alias", "champion", "--tracking-uri", tracking.uri)
    first, second = here(*words), here(*words)
    assert first.out == second.out == "models:/digits-mlp@champion\n"
    client = MlflowClient(tracking_uri=tracking.uri)
    (version,) = client.search_model_versions("name = 'digits-mlp'")
    assert version.tags["engram.trial"] == trial
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    back = artifacts.download_artifacts(first.out.strip(), dst_path=str(tmp_path / "back"))
    ours, theirs = engram.load(tmp_path / "runs" / "trials" / trial), engram.load(back)
    images = torch.rand(8, *ours.made.in_shape)
    assert torch.equal(ours.predict(images), theirs.predict(images))
    run = ("run", "backbone.evaluate", "--json", "--tracking-uri", tracking.uri)
    (planned,) = here(*run, "--from", trial, "--dry-run").json["trials"]
    done = here(*run, "--from", "models:/digits-mlp@champion", "--out", "elsewhere")
    assert done.code == 0 and done.json["trial"] == planned["trial"], done.err
