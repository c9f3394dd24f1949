"""The speed scripts: their arithmetic, their fairness, and one small run of each comparison."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest
import torch

from engram.backbone.data.load import load
from engram.backbone.errors import UserError
from engram.benchmarks.perf import __main__ as command
from engram.benchmarks.perf import causal_objectives, conversion, feedback, fewshot, harness, loihi, plans, training
from engram.benchmarks.perf.curves import charts, page
from engram.benchmarks.records.trials import read_sweep
from engram.snn.loihi.simulator import Simulator

KEYS = ["name", "ours", "peer", "peer_name", "ratio", "unit", "higher_is_better", "n"]
SMALL = replace(conversion.WITHOUT_MNIST, epochs=5, timed=8, scored=40)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return load("digits", {}, root=tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(digits):
    return conversion.trained(SMALL, digits)


@pytest.fixture
def row():
    return harness.Row(name="x", ours=4.0, peer=2.0, peer_name="them", unit="s", higher_is_better=False, n=3)


def test_a_ratio_above_one_means_that_we_are_better(row):
    assert row.ratio == 0.5  # twice the seconds
    assert replace(row, unit="images/s", higher_is_better=True).ratio == 2.0


def test_a_row_as_json(row):
    assert list(row.as_json()) == KEYS
    assert row.as_json()["ratio"] == 0.5


def test_turns_alternate_and_the_warm_up_is_not_counted(monkeypatch):
    order, took = [], {"a": iter([100.0, 1.0, 2.0, 9.0]), "b": iter([100.0, 5.0, 4.0, 6.0])}
    monkeypatch.setattr(harness, "seconds", lambda work: next(took[work()]))

    def work(name):
        return lambda: order.append(name) or name

    assert harness.interleaved(work("a"), work("b"), rounds=3) == (2.0, 5.0)
    assert "".join(order) == "abbaabba"


def test_the_least_processor_time_is_kept(monkeypatch):
    clock, cost = [0.0], {"a": iter([9.0, 3.0, 2.0]), "b": iter([9.0, 4.0, 5.0])}
    monkeypatch.setattr(harness.time, "thread_time", lambda: clock[0])

    def work(name):
        return lambda: clock.__setitem__(0, clock[0] + next(cost[name]))

    assert harness.least([work("a"), work("b")], rounds=2) == [2.0, 4.0]


def test_feedback_is_timed_against_the_passes_that_it_runs_again(monkeypatch):
    monkeypatch.setattr(feedback, "ROUNDS", 1)
    rows = feedback._speed("vgg-tiny", 2)
    assert [row.name for row in rows] == ["feedback/vgg-tiny/infer", "feedback/vgg-tiny/train"]
    net, x = feedback.plain("vgg-tiny").eval(), feedback.images(2)
    with torch.no_grad():  # the same work: what begins as the wrapped network gives the same features
        torch.testing.assert_close(feedback.passes(net, 0, x), net(x).expand(feedback.STEPS, -1, -1))


def test_an_unknown_script_exits_2_and_names_the_nearest(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["conversoin"]) == 2
    assert "got conversoin. Did you mean conversion?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_scripts_are_run_by_name_and_written(tmp_path, monkeypatch, row, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conversion, "measure", lambda: [row])
    assert command.main(["conversion"]) == 0
    assert '"ratio": 0.5' in (tmp_path / "perf.json").read_text()
    assert "them" in capsys.readouterr().out


def test_rows_are_told_apart_in_80_columns(row):
    names = [
        f"snn-training/{precision}/T16/{what}"
        for precision in ("fp32", "bf16")
        for what in ("train", "infer", "memory")
    ]
    rows = [replace(row, name=name, ours=123456.7, peer_name="SpikingJelly, multi-step mode, cupy") for name in names]
    lines = command.table(rows, 80).splitlines()
    assert max(map(len, lines)) <= 80
    shown = "".join(line[2:].split("  ")[0].strip() for line in lines)
    assert all(name in shown for name in names)
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)


def test_what_was_measured_at_several_steps_is_drawn(row):
    rows = [
        replace(row, name=f"snn/T{steps}/{what}", ours=float(steps))
        for steps in (4, 8)
        for what in ("train", "train-checkpointed")
    ]
    (chart,) = charts([*rows, replace(row, name="snn/train"), replace(row, name="snn/T4/infer")])
    assert chart.title == "snn: train" and chart.y_label == row.unit
    assert [series.name for series in chart.series] == ["ours", row.peer_name, "ours, checkpointed"]
    assert chart.series[2].points == [(4.0, 4.0), (8.0, 8.0)]
    assert "<svg" in page(rows, "a machine") and page([row], "a machine") is None


def test_both_trainings_see_the_same_number_of_images(digits):
    seen = {"ours": 0, "peer": 0}
    few = replace(digits, train=digits.train.select(torch.arange(3 * 128)))
    trainer, peer = training._ours("mlp", few, epochs=2), training._Peer("mlp", digits)
    for side, model in (("ours", trainer.progress.model), ("peer", peer.model)):

        def count(_module, inputs, side=side):
            seen[side] += len(inputs[0])

        model.head.register_forward_pre_hook(count)
    training._epoch(trainer)
    peer.run(3)
    assert seen == {"ours": 3 * 128, "peer": 3 * 128}
    first = [next(iter(net.state_dict().values())).shape for net in (trainer.progress.model, peer.model)]
    peer.close()
    assert first[0] == first[1]


def test_what_is_asked_for_when_spikingjelly_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "spikingjelly.activation_based", None)
    for name in ("ann2snn", "functional"):
        monkeypatch.delitem(sys.modules, f"spikingjelly.activation_based.{name}", raising=False)
    with pytest.raises(UserError, match="make perf"):
        conversion.measure()


def test_the_peer_converts_the_same_function(digits, model):
    images = conversion.images(conversion.first(digits.train, 20))
    with torch.inference_mode():
        torch.testing.assert_close(conversion.analog(model)(model.normalise(images)), model(images))


def test_spikingjelly_s_network_and_ours_agree(digits, model):
    pytest.importorskip("spikingjelly")
    calibration = conversion.images(conversion.first(digits.train, 100))
    x = model.normalise(conversion.images(conversion.first(digits.validation, 60)))
    with torch.inference_mode():
        peer = conversion.Peer(model, model.normalise(calibration))
        stepped, at_once = peer.logits(x, 32), peer.multi_step(x, 32)
        ours = conversion.convert(
            model, [calibration], len(calibration), steps=32, threshold="percentile", calibration="none"
        )
        same = ours.head(ours.backbone(x)).argmax(1) == at_once.argmax(1)
    torch.testing.assert_close(stepped[-1], at_once, atol=1e-4, rtol=1e-4)
    assert stepped.shape == (32, 60, 10)
    assert same.float().mean() > 0.9


def test_the_rows_of_one_conversion(digits, model, monkeypatch):
    pytest.importorskip("spikingjelly")
    monkeypatch.setattr(conversion, "trained", lambda _case, _data: model)
    monkeypatch.setattr(conversion, "ROUNDS", 1)
    monkeypatch.setattr(conversion, "CALIBRATION", 50)
    rows = {row.name.removeprefix("conversion/lenet5/digits/"): row for row in conversion.compare(SMALL, digits)}
    accuracies = [*(f"accuracy-T{t}" for t in (4, 8, 16, 32)), "accuracy-T32-same-recipe", "accuracy-T32-floor"]
    others = [f"accuracy-T{t}-{recipe}" for recipe in ("per-layer", "ltb") for t in (4, 8, 16, 32)]
    assert list(rows) == [*accuracies, *others, "simulation-T32", "simulation-T32-multi-step", "simulation-T32-floor"]
    assert all(rows[name].unit == "fraction" and 0.5 < rows[name].peer <= 1 for name in accuracies)
    assert all(
        0 <= rows[name].peer <= 1 and rows[name].ours == rows[name.rpartition("-")[0]].ours for name in others[4:]
    )
    assert {rows[name].unit for name in ("simulation-T32", "simulation-T32-multi-step")} == {"images/s"}
    assert rows["simulation-T32-floor"].unit == "s"
    assert not rows["simulation-T32-floor"].higher_is_better


def test_loihis_integers_are_timed_against_lava_on_equal_spikes(model, digits, monkeypatch):
    network, shown = loihi.chip_network(model, digits, steps=3)
    assert shown.shape[0] == loihi.BATCH

    def lavas(network, images, keep):
        return Simulator(network).run(images, keep).kept

    monkeypatch.setattr(loihi, "ROUNDS", 1)
    monkeypatch.setattr(loihi, "run_in_lava", lavas)
    row, *_ = loihi.compare("x", network, shown)
    assert (row.name, row.unit, row.higher_is_better) == ("x-B256", "images/s", True)
    monkeypatch.setattr(
        loihi, "run_in_lava", lambda *given: {k: {"spikes": -v["spikes"]} for k, v in lavas(*given).items()}
    )
    with pytest.raises(RuntimeError, match="the same"):
        loihi.compare("x", network, shown)


def test_episodes_against_a_library_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "easyfsl", None)
    with pytest.raises(UserError, match="easyfsl must be installed to be measured against; got none"):
        fewshot.frozen()


def test_what_episodes_cost_as_they_grow(monkeypatch):
    monkeypatch.setattr(fewshot, "ROUNDS", 1)
    monkeypatch.setattr(fewshot, "GROWN", 4)
    monkeypatch.setattr(fewshot, "_memory", lambda shape, count: 1.0)  # of a process of its own
    rows = fewshot.growth()
    assert [row.name.split("/")[2] for row in rows[::2]] == ["episodes", "ways", "shots"]
    assert all(row.ours > 0 and row.peer > 0 for row in rows)


def test_a_step_of_irm_is_compared_with_equal_losses():
    rows = causal_objectives.compared("tiny", causal_objectives.Setup((1, 8, 8), 32, 16, "mlp", {"units": 4}, 1))
    assert [row.peer_name for row in rows] == ["cross-entropy", "gradients of gradients"]
    assert all(row.ours > 0 and row.peer > 0 for row in rows)


def test_the_plan_that_is_measured_is_finished_and_starts_nothing(tmp_path, monkeypatch):
    small = re.sub(r"(\[0[.\d]*, 0[.\d]*)[^\]]*", r"\1", plans.SUITE).replace("seeds = 100", "seeds = 1")
    monkeypatch.setattr(plans, "SUITE", small)
    monkeypatch.setattr(plans, "SETTLING", 0.0)
    assert plans.build(tmp_path) == 2 * 2
    assert {record.status for record in read_sweep(tmp_path / "runs", "plans").records} == {"done"}
    clock, processor = plans.took(tmp_path, plans.COMMANDS["listed"])
    assert 0 < processor < 60 and clock > 0
    assert not (tmp_path / "runs" / "mlflow.db").exists()
