"""A third party's network, head, objective, data set, experiment, figure and command, from training to the report."""

from __future__ import annotations

import pytest

from engram.backbone.errors import UserError
from engram.backbone.saved.model import load_model


def test_all_of_it_together(strangers_bench, here):
    bench = strangers_bench
    toy = {
        "dataset": "toy.spots",
        "objective": "toy.groups",
        "head": "toy.tempered",
        "head_options": {"temperature": 4},
    }
    gated = bench.run(bench.plan("backbone.train", adapter="toy.gated", adapter_options={"steps": 2}, **toy))
    model, made = load_model(gated.folder / "model")
    assert [adapter.name for adapter in made.adapters] == ["toy.gated"] and made.head.name == "toy.tempered"
    assert model.backbone.steps == 2 and model.head.temperature == 4
    assert model.backbone.gate.weight.any()  # it has learned from its gate
    scored = bench.run(bench.plan("backbone.evaluate", from_trial=gated.trial))
    assert scored.metrics["test/accuracy"] == gated.metrics["test/accuracy"] > 0.5

    with pytest.raises(UserError, match="must be Traceable; got Gated"):
        bench.run(bench.plan("snn.convert", from_trial=gated.trial))
    plain = bench.run(bench.plan("backbone.train", **toy))
    converted = bench.run(bench.plan("snn.convert", from_trial=plain.trial))
    assert converted.metrics["ann/test/accuracy"] == plain.metrics["test/accuracy"]

    audit = bench.run(bench.plan("toy.audit", from_trial=gated.trial))
    worst = here("toy-worst", audit.trial, "--out", bench.out)
    assert worst.code == 0 and worst.out.endswith(f"{audit.metrics['test/worst_group_accuracy']:.3f}\n")
    wrong = here("toy-worst", gated.trial, "--out", bench.out)
    assert (wrong.code, len(wrong.complaints)) == (2, 1)
    assert here("report", audit.trial, "--out", bench.out).code == 0
    (page,) = (path.read_text() for path in bench.out.rglob("*.html"))
    assert "Accuracy by group" in page and "group 3" in page
