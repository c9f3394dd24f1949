"""Context-dependent gating: its masks, and what they do against forgetting."""

import pytest
import torch

from engram.backbone.seeding import derive

DIGITS = {"scenario": "task", "lr": 5e-3, "epochs": 8}
WIDE = {**DIGITS, "scenario": "permuted", "head": "multi", "backbone_options": {"width": 2.0}}


def test_the_share_is_exact_and_follows_from_the_seed_alone(experiment):
    def masks(seed=0, share=0.8):
        start = experiment("xdg", scenario="task", seed=seed, strategies_options={"xdg.share": share}).start()
        return start.strategies[0].masks

    torch.manual_seed(derive(0, "anything"))
    first, again, other = masks(), masks(), masks(seed=1)
    assert len(first) == 3 and all(mask.sum() == 13 and len(mask) == 64 for task in first for mask in task)
    flat = [torch.cat(task) for task in first]
    assert torch.equal(torch.cat(flat), torch.cat([m for task in again for m in task]))
    assert not torch.equal(torch.cat(flat), torch.cat([m for task in other for m in task]))
    assert not torch.equal(flat[0], flat[1]) and not torch.equal(first[0][0], first[0][1])
    assert all(mask.sum() == 1 for task in masks(share=0.999) for mask in task)


def test_silencing_nothing_is_finetuning(learn):
    short = {**DIGITS, "epochs": 2}
    plain, gated = learn("finetune", **short), learn("xdg", strategies_options={"xdg.share": 0.0}, **short)
    assert torch.equal(plain.weights(), gated.weights())


def test_weights_of_silent_units_stay(experiment):
    ours = experiment("xdg", **DIGITS)
    state = ours.start()
    layer = state.model.backbone.tail[1]
    before = layer.weight.detach().clone()
    while state.learner.task == 0 and not state.learner.done:
        ours.step(state)
    moved = (layer.weight != before).any(1)
    assert torch.equal(moved, state.strategies[0].masks[0][0].bool())


@pytest.mark.parametrize("optimizer", [{}, {"weight_decay": 1.0}, {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05}])
def test_momentum_of_an_earlier_task_and_decay_move_no_silent_unit(experiment, optimizer):
    ours = experiment("xdg", **{**DIGITS, "epochs": 2, **optimizer})
    state, going = ours.start(), True
    layers = [state.model.backbone.tail[index] for index in (1, 3)]
    before = [layer.weight.detach().clone() for layer in layers]
    while going:
        going = ours.step(state)
        if state.learner.done:
            into, out = (mask.bool() for mask in state.strategies[0].masks[state.learner.task])
            for layer, then, acts in zip(layers, before, (into[:, None], out[:, None] & into), strict=True):
                moved = layer.weight != then
                assert moved.any() and not (moved & ~acts).any()
            before = [layer.weight.detach().clone() for layer in layers]


@pytest.mark.slow
def test_it_halves_forgetting(learn):
    options = {**WIDE, "epochs": 4}
    plain, gated = learn("finetune", **options), learn("xdg", **options)
    assert gated.metrics["test/forgetting"] < plain.metrics["test/forgetting"] / 2
    assert gated.accuracy > plain.accuracy + 0.05


@pytest.mark.slow
def test_it_goes_with_strategies_that_keep_weights(learn):
    alone, both = learn("si", **WIDE), learn("xdg", "si", **WIDE)
    assert both.metrics["test/forgetting"] < alone.metrics["test/forgetting"] / 2


def test_a_broken_off_run_goes_on_exactly(learn, resume):
    short = {**DIGITS, "epochs": 2}
    whole, broken = learn("xdg", "si", **short), resume(50, "xdg", "si", **short)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


@pytest.mark.parametrize("more", [{"adapter": "snn.spiking", "adapter_options": {"steps": 2}}, {"precision": "bf16"}])
def test_it_works_on_spikes_and_in_mixed_precision(learn, more):
    options = {**DIGITS, "epochs": 1, "backbone": "vgg-tiny", "backbone_options": {"width": 0.25}, **more}
    plain, gated = learn("finetune", **options), learn("xdg", **options)
    assert gated.weights().isfinite().all() and not torch.equal(plain.weights(), gated.weights())
