"""Random networks in which one channel alone matters: it is found, and a placebo has no effect."""

import torch
from torch import nn

from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.classifier import Classifier
from engram.causal.effects.causes import Cause
from engram.causal.effects.following import directions
from engram.causal.effects.measuring import Effects
from engram.causal.effects.refuting import placebo, placebo_differences
from engram.causal.effects.shown import Shown
from engram.causal.effects.tables import estimates
from engram.causal.effects.tapping import Tapping
from engram.causal.effects.variants import outcomes

NETWORKS, IMAGES, CHANNELS, CLASSES = 100, 100, 6, 4
ALL = [Cause(0, channel) for channel in range(CHANNELS)]


def planted(seed):
    """A network whose logits are of one channel, and of the others by a tenth; labels are drawn by its own answers."""
    torch.manual_seed(seed)
    stage = nn.Sequential(nn.Conv2d(1, CHANNELS, 3), nn.ReLU())
    stage[0].bias.data.fill_(0.3)
    net = StaticBackbone((1, 5, 5), [stage], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    head, causal = nn.Linear(CHANNELS, CLASSES), seed % CHANNELS
    weights = torch.randn(CLASSES, CHANNELS)
    weights = weights / weights.std(0) * 0.5
    weights[:, causal] *= 10
    head.weight.data, head.bias.data = weights, torch.zeros(CLASSES)
    return Classifier(net, head, torch.zeros(1), torch.ones(1)).eval(), causal


@torch.inference_mode()
def measured(seed, images):
    """Differences of probabilities of every channel, and outcomes along a direction by lot; the planted channel."""
    model, causal = planted(seed)
    network = Tapping(model)
    logits = network.look(images)
    model.head.bias.data -= logits.mean(0)
    means = [network.stages[0].mean(1, keepdim=True)]
    shown = Shown(network, means, images, 2)
    targets = torch.distributions.Categorical(logits=shown.logits).sample()
    effects = Effects(ALL, ("mean",), IMAGES)
    effects.measure(shown, targets, slice(0, IMAGES), "mean", slice(0, CHANNELS))
    several = directions(CHANNELS, 0, seed)[:2]
    along = [network.answers([shown.along(0, each, shown.others[shift][0]) for each in several]) for shift in (1, 2)]
    return effects.differences("mean")[0], outcomes(torch.stack(along), targets)[0], causal


def test_the_planted_channel_is_found_and_the_interval_of_a_placebo_covers_zero_in_nearly_all_of_100_networks():
    images = torch.randn(IMAGES + 2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    differences, alongs, planted_ones = zip(*(measured(seed, images) for seed in range(NETWORKS)), strict=True)
    found = estimates(torch.cat(differences))
    right = 0
    for seed, causal in enumerate(planted_ones):
        mine = found[seed * CHANNELS : (seed + 1) * CHANNELS]
        right += mine[causal] == max(mine, key=lambda each: abs(each.effect)) and mine[causal].low > 0
    assert right >= 90
    coins = torch.Generator().manual_seed(0)
    placebos = estimates(torch.cat([placebo_differences(along, coins)[:1] for along in alongs]))
    assert sum(not each.found for each in placebos) >= 90
    assert sum(float(placebo(along, 0).p) < 0.05 for along in alongs[:10]) <= 1
