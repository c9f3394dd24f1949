"""Both ways of running a network under interventions give what its own code gives, in batches of any size."""

import pytest
import torch
from torch import nn

from engram.backbone.measures.spans import spans
from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.causal.effects.causes import Cause, causes
from engram.causal.effects.measuring import Effects
from engram.causal.effects.network import network, stage_means
from engram.causal.effects.replaying import Replay, parts_of
from engram.causal.effects.shown import Shown
from engram.causal.effects.tapping import Tapping
from engram.causal.effects.variants import Variant
from engram.causal.intervening.doing import do
from engram.causal.intervening.place import Box, Place

PLAIN = {
    "vgg-tiny": ({"width": 0.25}, (1, 8, 8)),
    "resnet-tiny": ({"width": 0.25, "pooling": "stride"}, (3, 9, 9)),
    "lenet5": ({"pooling": "max"}, (1, 8, 8)),
    "mlp": ({"units": 8}, (3, 4, 4)),
}


def made(name, options, shape, *adapters):
    torch.manual_seed(0)
    named = [in_full(Registry.discover(), "adapters", each, given) for each, given in adapters]
    model = build(name, options, shape, 5, torch.zeros(shape[0]), torch.ones(shape[0]), adapters=named)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def several(stages):
    """Variants of every kind: single channels, all of a stage, a region, and places behind held."""
    found = []
    for stage, value in enumerate(stages):
        for channel in range(min(value.shape[2], 3)):
            found.append(Variant(Place(stage, channels=(channel,)), value[:, :, channel : channel + 1].roll(1, 1)))
        found.append(Variant(Place(stage), value.mean(1, keepdim=True)))
        found.append(Variant(Place(stage, region=Box(0, 0, 1, 1)), torch.zeros(1, 1, value.shape[2], 1, 1)))
        if stage + 1 < len(stages):
            for behind in (Place(stage + 1), Place(stage + 1, channels=(0, 1))):
                found.append(Variant(Place(stage, channels=(0,)), torch.zeros(1, 1, 1, 1, 1), (behind,)))
    return found


@pytest.mark.parametrize("name", PLAIN)
@torch.inference_mode()
def test_what_is_run_from_the_stage_on_is_what_taps_give(name):
    model = made(name, *PLAIN[name])
    images = torch.rand(4, *PLAIN[name][1])
    parts = parts_of(model)
    assert parts is not None and isinstance(network(model), Replay)
    quick, whole = Replay(model, parts), Tapping(model)
    torch.testing.assert_close(quick.look(images), whole.look(images), atol=1e-5, rtol=1e-5)
    variants = several(whole.stages)
    found = quick.answers(variants)
    torch.testing.assert_close(found, whole.answers(variants), atol=1e-5, rtol=1e-5)
    assert float(found.std(0).max()) > 1e-4


@pytest.mark.parametrize("adapter", [("feedback.gated", {"steps": 3}), ("snn.spiking", {"steps": 3})])
@torch.inference_mode()
def test_networks_with_steps_are_run_under_taps_as_do_would(adapter):
    model = made("vgg-tiny", {"width": 0.25}, (1, 8, 8), adapter)
    for path in getattr(model.backbone, "paths", ()):
        path.conv.weight.normal_()
    images = torch.rand(4, 1, 8, 8)
    asked = network(model)
    assert isinstance(asked, Tapping)
    torch.testing.assert_close(asked.look(images), model(images))
    for variant in (each for each in several(asked.stages) if not each.held):
        with do(model, stage=variant.place.stage, channel=variant.place.channels, region=variant.place.region).put(
            variant.values.expand(3, -1, -1, *asked.stages[variant.place.stage].shape[3:])
        ):
            expected = model(images)
        torch.testing.assert_close(asked.answers([variant])[0], expected)


@pytest.mark.parametrize("name", ["vgg-tiny", pytest.param("resnet-tiny", marks=pytest.mark.slow)])
def test_effects_are_equal_in_batches_of_any_size(name):
    options, shape = PLAIN[name]
    model, count = made(name, options, shape), 7
    images, targets = torch.rand(count + 1, *shape), torch.arange(count) % 5
    means = stage_means(model, images)
    every, asked = causes([each.shape for each in means], 2), network(model)
    found = []
    for size in (1, 3, count):
        effects = Effects(every, ("mean", "resample", "zero"), count)
        for at in spans(count, size):
            shown = Shown(asked, means, images[at.start : at.stop + 1], 1)
            for how in effects.how:
                effects.measure(shown, targets[at], at, how, slice(0, len(every)))
        found.append(torch.stack([effects.differences(how)[:2].mean(-1) for how in effects.how]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-6, rtol=0)
    assert float(found[0].abs().max()) > 1e-2


def test_what_a_stage_is_cut_into_covers_it_once():
    every = causes([(2, 5, 4), (3, 1, 1)], 3)
    cover = torch.zeros(5, 4)
    for box in (each.region for each in every if each.region is not None and each.stage == 0):
        cover[box.top : box.bottom, box.left : box.right] += 1
    assert bool((cover == 1).all())
    assert [each for each in every if each.stage == 1] == [Cause(1), *(Cause(1, channel) for channel in range(3))]
