"""Every flipped byte and every cut of a trial's files is said, and what is damaged is done again."""

from __future__ import annotations

import json
import shutil
import zlib
from hashlib import sha256

import pytest

from engram.backbone.registry import Registry
from engram.benchmarks.cli import main
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records import trials as records
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.lines import LEDGER, read_ledger
from engram.benchmarks.records.stored import Damaged, read_json, write_json
from engram.benchmarks.records.trials import Record, find_trial
from engram.benchmarks.sink.sync import SyncReport
from engram.benchmarks.worker import provenance
from engram.benchmarks.worker.stopping import STOPPED, Stop
from engram.benchmarks.worker.trial import work

FILES = ("config.json", "provenance.json", "result.json", LEDGER)
OTHERS = [
    b"",
    b"[]",
    b'"text"',
    b"3",
    b"null",
    b"\xff\xfe",
    b"{}",
    b'{"config": 1e400}',
    b'{"config": {"a": 1' + b"0" * 400,
]
OTHERS += [b"[" * 100_000, b'{"config": ' * 50_000, b'{"experiment": 1, "config": [], "metrics": [], "message": {}}']


@pytest.fixture
def plan(tmp_path, with_plugins, monkeypatch):
    """Plan a count and write its folder."""
    monkeypatch.setattr(provenance, "git", lambda code: {})
    out = tmp_path / "runs"

    def count(**options):

        registry = Registry.discover()
        trial = Planner(registry, out, DataSets(registry, tmp_path)).add("counting.count", options)
        write_trial(trial, RunSetting(out=out, data_root=tmp_path, argv=["test"]))
        return trial.folder

    return count


@pytest.fixture
def done(plan):
    """The folder of a trial that is done."""
    folder = plan(steps=3)
    assert work(folder, Stop()) == 0
    return folder


def measured(folder):
    return [(line.name, line.step, line.value) for line in Record(folder).ledger()]


def flipped(path, step=1):
    """Damage the file once at every place, and mend it again."""
    whole = path.read_bytes()
    for place in range(0, len(whole), step):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        yield place
    path.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_of_a_finished_trial_is_said(done, name):
    assert (Record(done).status, Record(done).damage) == ("done", "")
    for place in flipped(done / name):
        found = Record(done)
        assert (found.status, found.damage.startswith(f"{name} is damaged (")) == ("damaged", True), place
        assert "\n" not in found.why
    assert Record(done).status == "done"


@pytest.mark.parametrize("name", FILES)
def test_every_cut_of_a_finished_trial_is_said(done, name):
    whole = (done / name).read_bytes()
    for end in range(0, len(whole), 7):
        (done / name).write_bytes(whole[:end])
        assert Record(done).damage.startswith(f"{name} is damaged ("), end


@pytest.mark.parametrize("name", FILES)
def test_what_is_damaged_is_done_again(done, name):
    before, result = measured(done), Record(done).metrics
    for _ in flipped(done / name, step=97):
        if name == "config.json":
            with pytest.raises(Damaged, match=r"config\.json must be whole; got"):
                work(done, Stop())  # who planned it writes it again
            continue
        assert work(done, Stop()) == 0
        assert (Record(done).status, Record(done).metrics, sorted(measured(done))) == ("done", result, sorted(before))


def test_a_ledger_loses_no_whole_line_and_lost_ones_are_logged_again(plan, tmp_path, monkeypatch, capsys, stop_after):
    """It goes on from a checkpoint that does not know of what is lost, or anew."""
    monkeypatch.setenv("ENGRAM_CHECKPOINT_SECONDS", "0")
    whole, folder, kept = plan(steps=5), plan(steps=5, pause=1e-9), tmp_path / "kept"
    assert work(whole, Stop()) == 0
    assert work(folder, stop_after(3)) == STOPPED
    shutil.copytree(folder, kept)
    lines = Record(folder).ledger()
    for place in flipped(kept / LEDGER, step=73):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        found = Record(folder)
        assert found.status == "damaged" and found.damage.startswith(f"{LEDGER} is damaged (line "), place
        assert set(found.ledger()) <= set(lines)
        assert len(lines) - len(found.ledger()) <= 2  # one, or the two at whose border it was
        survived = found.ledger()
        assert work(folder, stop_after(0)) == STOPPED  # mended, and killed at once
        assert Record(folder).ledger() == survived and Record(folder).damage == ""
        capsys.readouterr()
        assert work(folder, Stop()) == 0
        resumed = "resumed at step 2" in capsys.readouterr().out
        assert resumed == (int(found.damage.split()[4]) > 4), place  # what was lost is of the last of three steps
        assert sorted(measured(folder)) == sorted(measured(whole)), place
        assert {line.t for line in survived} <= {line.t for line in Record(folder).ledger()}


def test_a_line_that_is_missing_is_noticed_by_the_numbers_of_the_others(done):
    texts = (done / LEDGER).read_bytes().splitlines(keepends=True)
    for gone in range(len(texts) - 1):
        (done / LEDGER).write_bytes(b"".join(texts[:gone] + texts[gone + 1 :]))
        found = read_ledger(done / LEDGER)
        assert (found.whole, found.lost, len(found.lines)) == (
            gone,
            f"line {gone + 1} is not the one that was written",
            len(texts) - 1,
        )


def test_a_checkpoint_that_knows_more_than_the_ledger_is_not_gone_on_from(plan, stop_after):
    """After a power cut the end of the ledger may be gone."""
    whole, folder = plan(steps=5), plan(steps=5, pause=1e-9)
    assert work(whole, Stop()) == 0
    assert work(folder, stop_after(3)) == STOPPED
    path = folder / LEDGER
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert work(folder, Stop()) == 0
    assert measured(folder) == measured(whole)


def test_checksums_can_be_computed_by_hand(done):
    text = (done / "result.json").read_text()
    head = "".join(text.splitlines(keepends=True)[:-2])
    assert json.loads(text)["sha256"] == sha256(head.encode()).hexdigest()
    assert json.loads(text)["ledger"] == sha256((done / LEDGER).read_bytes()).hexdigest()
    for number, line in enumerate((done / LEDGER).read_text().splitlines()):
        said = json.loads(line)
        assert said["n"] == number
        assert int(said["crc"], 16) == zlib.crc32(line.rpartition(', "crc"')[0].encode())


def test_trials_of_the_release_before_have_no_checksums(done, tmp_path):
    result = {key: value for key, value in json.loads((done / "result.json").read_text()).items() if key != "ledger"}
    for name, value in (("config.json", read_json(done / "config.json")), ("result.json", result)):
        value.pop("sha256", None)
        (done / name).write_text(json.dumps(value, indent=1) + "\n")
    old = [dict(vars(line)) for line in Record(done).ledger()]
    (done / LEDGER).write_text("".join(json.dumps(line) + "\n" for line in old))
    assert (Record(done).status, Record(done).damage, len(measured(done))) == ("done", "", len(old))
    (done / "result.json").unlink()
    (done / LEDGER).write_text("".join(json.dumps(line) + "\n" for line in old[:3]) + '{"t": 1, "st')
    assert Record(done).status == "unfinished"
    assert work(done, Stop()) == 0
    assert [line["name"] for line in old] == [line.name for line in Record(done).ledger()]
    assert (Record(done).status, Record(done).damage) == ("done", "")


@pytest.mark.parametrize("content", OTHERS, ids=lambda content: repr(content[:12]))
def test_json_of_another_shape_is_damage(tmp_path, content):
    for name in ("config.json", "result.json", "error.json", "plan.json", "progress.json"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Damaged, match=rf"{name} must be whole; got .*\. Bring it back") as caught:
            read_json(tmp_path / name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("result.json", ("metrics", "total"), "many"),
        ("result.json", ("metrics", "total"), True),
        ("result.json", ("tables",), {"counts": [3]}),
        ("result.json", ("tables",), {"counts": {"n": 3}}),
        ("result.json", ("figures", "count", "series"), {"count": [1, 2]}),
        (
            "result.json",
            ("figures", "count"),
            {"title": "", "x_label": "", "y_label": "", "columns": ["a"], "rows": []},
        ),
        ("result.json", ("artifacts",), ["note.txt"]),
        ("result.json", ("seconds",), -1),
        ("config.json", ("inputs",), {"count": 3}),
        ("config.json", ("config", "steps"), {"a": {"b": {"c": {"d": 1}}}}),
        ("provenance.json", ("facts",), 3),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_entries_of_another_type_are_damage(done, name, path, value):
    said = read_json(done / name)
    place = said
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    write_json(done / name, said)
    assert Record(done).damage.startswith(f"{name} is damaged ({'.'.join(path)}")


@pytest.mark.parametrize(
    "text",
    [
        *(b'{"t": 1, "step": 1, "name": "a", "value": 1e400}', b'{"t": 1e400, "step": 1, "name": "a", "value": 1}'),
        b'{"t": 1, "step": 1' + b"0" * 400 + b', "name": "a", "value": 1}',
        *(b"[" * 100_000, b"[]", b"3", b"null", b'"a"', b'{"t": 1, "step": 1, "name": 3, "value": 1}'),
        *(b'{"t": true, "step": 1, "name": "a", "value": 1}', b"\xff\xfe", b'{"t": 1, "step": 1, "name": "a"}'),
    ],
    ids=lambda text: repr(text[:60]),
)
def test_a_line_of_another_shape_is_lost_and_no_other(done, text):
    whole = (done / LEDGER).read_bytes()
    (done / LEDGER).write_bytes(text + b"\n" + whole)
    found = read_ledger(done / LEDGER)
    assert (found.whole, len(found.lines)) == (0, whole.count(b"\n"))
    assert Record(done).damage == f"{LEDGER} is damaged (line 1 is not the one that was written)"


def test_links_and_pipes_are_not_read(done, tmp_path):
    secret = tmp_path / "secret"
    shutil.move(done / "result.json", secret)
    (done / "result.json").symlink_to(secret)
    assert Record(done).damage == "result.json is damaged (a file that is not readable here (leads out of its folder))"
    assert Record(done).result == {}


@pytest.fixture
def no_store(monkeypatch):
    """A tracking store that has everything."""
    monkeypatch.setattr("engram.benchmarks.sink.Sink.needs_sync", lambda *args: False)
    monkeypatch.setattr("engram.benchmarks.sink.Sink.count", lambda self, trials: SyncReport(True, "", len(trials)))


def said_by(capsys, *words):
    code = main(list(map(str, words)))
    return code, capsys.readouterr()


@pytest.mark.parametrize("name", FILES)
def test_every_command_says_damage_in_a_line(folders, capsys, monkeypatch, no_store, name):
    """None of them fails with it, and the others count."""
    trials = folders.sweep(seeds=2)
    folder = folders.out / "trials" / trials[0]
    write_json(folder / "result.json", {**read_json(folder / "result.json"), "ledger": "0" * 64})
    if name != LEDGER:
        (folder / name).write_bytes(b"")
    what, out = f"{name} is damaged (", ("--out", folders.out)
    monkeypatch.setenv("COLUMNS", "400")
    code, shown = said_by(capsys, "status", *out)
    assert code == 0 and [line for line in shown.out.splitlines() if what in line and trials[0] in line]
    code, shown = said_by(capsys, "compare", "nets", *out)
    assert code == 0 and shown.out.count(what) == 1
    code, shown = said_by(capsys, "report", "nets", *out)
    assert code == 0 and what in (folders.out / "reports" / "nets.html").read_text()
    code, shown = said_by(capsys, "sync", *out)
    assert code == 1 and shown.err.startswith(f"engram: trial {trials[0]}: {what}") and shown.err.count("\n") == 1
    code, shown = said_by(capsys, "run", "backbone.evaluate", "--from", trials[0], *out)
    assert code == 2 and shown.err.startswith("engram: --from must be a finished trial; got") and what in shown.err


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"trials": 3}', b'{"trials": [{"trial": "../../x"}]}', b"[" * 100_000]
)
def test_a_damaged_plan_is_said_and_the_others_count(folders, capsys, no_store, content):
    folders.sweep("good", seeds=1)
    folders.sweep("bad", seeds=1)
    plan = folders.out / "sweeps" / "bad" / "plan.json"
    plan.write_bytes(content)
    complaint = f"engram: {plan} must be whole; got "
    for words, code in ((("status",), 0), (("sync",), 1), (("compare", "bad"), 2), (("report", "bad"), 2)):
        found, shown = said_by(capsys, *words, "--out", folders.out)
        assert (found, shown.err.startswith(complaint), shown.err.count("\n")) == (code, True, 1), words


def test_what_is_damaged_is_no_input(done):
    (done / "result.json").write_bytes(b"")
    with pytest.raises(Exception, match=r"which is damaged \(result\.json is damaged \(an empty file\)\)"):
        find_trial(done.parents[1], done.name, "--from")


def test_trials_that_are_made_from_each_other_end(folders):
    """No one's trials are; a stranger's may be."""
    first, second = folders.trial("lenet5"), folders.trial("mlp")
    for one, other in ((first, second), (second, first)):
        path = folders.out / "trials" / one / "config.json"
        config = {"from": other, "backbone": "mlp", "epochs": None}
        folders.json(path, {**json.loads(path.read_text()), "config": config, "inputs": {"trained": other}})
    assert records.Record(folders.out / "trials" / first).origin.trial in (first, second)
