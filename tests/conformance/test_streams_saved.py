"""The network of a stream is evaluated and converted on what it was taught: the same images, the same outputs."""

import pytest

STREAMS = [
    {"scenario": "domain", "head": "multi", "strategies": ("continual.joint",)},
    {"scenario": "domain"},
    {"scenario": "coloured"},
    {"scenario": "permuted", "head": "multi"},
    {"scenario": "task"},
]


@pytest.mark.parametrize("options", STREAMS, ids=lambda options: "-".join(map(str, options.values())))
def test_evaluation_and_conversion_agree_with_the_stream(bench, options):
    made = bench.run(bench.plan("continual.stream", tasks=2, epochs=1, **options))
    scored = bench.run(bench.plan("backbone.evaluate", from_trial=made.trial))
    converted = bench.run(bench.plan("snn.convert", from_trial=made.trial, steps=16))
    assert converted.metrics["ann/test/accuracy"] == scored.metrics["test/accuracy"]
    told = options.get("head") == "multi" or options["scenario"] == "task"
    if options["scenario"] in ("permuted", "coloured") and not told:  # every task has the same number of images
        assert scored.metrics["test/accuracy"] == pytest.approx(made.metrics["test/average_accuracy"])
    assert bool(scored.result["tables"].get("cautions")) == told
