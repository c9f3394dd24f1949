"""What a third party's strategy declares is respected as ours is."""

import pytest
import torch

from engram.continual.experiment.configs import StreamConfig
from engram.continual.traits import because, in_turn, traits

pytestmark = pytest.mark.usefixtures("with_plugins")
FIRST = "remembering.first"


def test_traits_are_those_of_the_entry_and_the_options():
    assert traits(FIRST).buffer and traits(FIRST).replays and traits(FIRST).boundaries
    assert not traits(FIRST, {"unaware": True}).boundaries
    assert because(FIRST, {"unaware": True, "rows": 4}, "boundaries") == {"unaware": True}
    assert in_turn(["continual.ewc", "continual.agem", FIRST, "continual.si"]) == [
        "continual.si",
        FIRST,
        "continual.ewc",
        "continual.agem",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scenario": "task-free"}, "--strategies must do without task boundaries for --scenario task-free; got rem"),
        (
            {"strategies": (FIRST, "continual.hat"), "scenario": "task"},
            "must not mix hat, which works on one task at a time, with replay of others; got remembering.first",
        ),
        ({"strategies": (FIRST, "continual.er"), "buffer": 1}, "--buffer must be at least 2, one for each of 2"),
    ],
)
def test_what_it_needs_is_asked_for_when_a_trial_is_planned(options, said):
    assert said in "\n".join(StreamConfig.resolve({"strategies": (FIRST,), **options}).problems())


def test_a_buffer_makes_another_trial_where_somebody_keeps_one():
    def resolved(name, buffer):
        return StreamConfig.resolve({"strategies": (name,), "buffer": buffer})

    assert resolved(FIRST, 50) != resolved(FIRST, 60)
    assert resolved("continual.finetune", 50) == resolved("continual.finetune", 60)


def test_it_learns_in_its_turn_with_its_share_and_is_resumed_bit_for_bit(learn, resume):
    options = {"tasks": 2, "epochs": 1, "buffer": 41}
    run = learn(FIRST, "er", **options)
    assert [strategy.setting.buffer for strategy in run.strategies] == [21, 20]
    assert run.strategies[0].samples() == 20 and run.metrics["stored_samples"] == 40
    from remembering.strategy import CALLS

    assert [call for call in CALLS if call[0] == "before"] == [("before", 0), ("before", 1)]
    assert {rows for name, rows in CALLS if name == "after_backward"} == {0, 20, 8 + 20}  # its 8 rows, er has 20
    assert torch.equal(run.weights(), resume(30, FIRST, "er", **options).weights())
