"""Explanations against closed forms, brute force and captum where a network calls each module once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.backbone.contract import Site
from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.nets.tapped import tapped_steps
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.causal.explaining import tcav, trusting
from engram.causal.explaining.asking import Asked, blurred
from engram.causal.explaining.attributions import attribution, completeness, grad_cam, stage_gradients
from engram.causal.explaining.configs import ExplainConfig
from engram.causal.explaining.features import chosen, excitement, seen_by

captum = pytest.importorskip("captum")
SHAPE, CLASSES = (2, 8, 8), 3
CONFIG = ExplainConfig(from_trial="x", points=20)


def network(adapter: str | None = None, backbone: str = "vgg-tiny", **options) -> Classifier:
    registry = Registry.discover()
    adapters = [] if adapter is None else [in_full(registry, "adapters", adapter, options)]
    torch.manual_seed(0)
    return build(backbone, {}, SHAPE, CLASSES, torch.zeros(2), torch.ones(2), adapters=adapters).eval()


@pytest.fixture
def x():
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))


class Linear(nn.Module):
    """A network whose every pixel has a weight."""

    in_shape, feature_dim, stage_channels, steps, readout = SHAPE, 5, (2,), 1, "mean"

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(128, 5)

    def forward_steps(self, x, tap=None):
        value = x if tap is None else tap(Site(0, 0, "stages.0"), x[None])[0]
        features = self.layer(value.flatten(1))[None]
        return features if tap is None else tap(Site(None, 0, "features"), features)

    def forward(self, x):
        return self.forward_steps(x)[0]


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return Classifier(Linear(), nn.Linear(5, CLASSES), torch.zeros(2), torch.ones(2)).eval()


def test_a_linear_network_is_explained_by_its_weights(linear, x):
    asked, classes = Asked(linear), torch.tensor([0, 1, 2, 0])
    weights = (linear.head.weight @ linear.backbone.layer.weight)[classes].view_as(x).detach()
    found = attribution(asked, CONFIG, "integrated-gradients")(x, classes)
    torch.testing.assert_close(found, weights * x)
    assert completeness(asked, x, classes, found, "mean").max() < 1e-4
    assert trusting.infidelity(asked, x, classes, weights, 0, 0).max() < 1e-6
    torch.testing.assert_close(grad_cam(asked, x, classes), (weights.mean((-2, -1), True) * x).sum(1).clamp(min=0))
    one = attribution(asked, ExplainConfig(from_trial="x", window=1), "occlusion")(x, classes)
    torch.testing.assert_close(one, (weights * x).sum(1, keepdim=True).expand_as(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("adapter", [None, "feedback.gated"])
def test_integrated_gradients_add_up(adapter, x):
    asked = Asked(network(adapter))
    classes = asked.logits(x).argmax(1)
    gaps = []
    for points in (4, 64):
        config = ExplainConfig(from_trial="x", points=points, baseline="blurred")
        found = attribution(asked, config, "integrated-gradients")(x, classes)
        gaps.append(completeness(asked, x, classes, found, "blurred").median())
    assert gaps[1] < 0.02 and gaps[1] < gaps[0]


def test_grad_cam_is_captums_where_modules_are_called_once(x):
    from captum.attr import LayerGradCam

    model, classes = network(), torch.tensor([0, 1, 2, 0])
    values, grads = stage_gradients(Asked(model, 1), x, classes)
    seen = {}
    modules = dict(model.backbone.named_modules())
    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.setdefault(name, out))
        for name, module in modules.items()
    ]
    model.forward_normalised(x)
    for handle in handles:
        handle.remove()
    name = next(name for name, out in seen.items() if out.shape == values.shape[1:] and torch.equal(out, values[0]))
    reference = LayerGradCam(model.forward_normalised, modules[name]).attribute(x, classes, relu_attributions=True)
    ours = (grads.mean((-2, -1), keepdim=True) * values).sum(2).clamp(min=0).sum(0)
    torch.testing.assert_close(ours, reference.detach().squeeze(1))


def test_steps_are_looked_at_one_by_one(x):
    """Gradients of an unrolled network, against differences at each step."""
    model = network("feedback.gated", steps=3, connections="layer3>layer1")
    for path in model.backbone.paths:
        for parameter in path.parameters():
            nn.init.normal_(parameter, std=0.3)
    asked, classes, x = Asked(model, 0), torch.tensor([0, 1, 2, 0]), x.double()
    model.double()
    values, grads = stage_gradients(asked, x, classes)
    assert len(values) == 3

    def logit(step: int, by: float) -> torch.Tensor:
        def move(site, value):
            if site.stage != 0 or site.step != step:
                return value
            value = value.clone()
            value[0, :, 1, 0, 0] += by
            return value

        features = tapped_steps(model.backbone, x, move)
        return model.head(features.mean(0) if model.backbone.readout == "mean" else features[-1])

    for step in range(3):
        slope = (logit(step, 1e-5) - logit(step, -1e-5)) / 2e-5
        torch.testing.assert_close(
            slope.gather(1, classes[:, None])[:, 0], grads[step, :, 1, 0, 0], atol=1e-6, rtol=1e-4
        )


def test_curves_against_a_loop(linear, x):
    asked, classes = Asked(linear), torch.tensor([0, 1, 2, 0])
    maps, baseline = x.abs().sum(1), blurred(x)
    found = trusting.curve(asked, x, baseline, classes, maps, insert=True)
    order = maps.flatten(1).argsort(dim=1, descending=True)
    for k, count in enumerate([round(64 * part / 20) for part in range(21)]):
        for row in range(4):
            mixed = baseline[row].flatten(1).clone()
            mixed[:, order[row, :count]] = x[row].flatten(1)[:, order[row, :count]]
            expected = asked.logits(mixed.view(1, *SHAPE)).softmax(1)[0, classes[row]]
            torch.testing.assert_close(found[row, k], expected)
    assert trusting.area(torch.tensor([[0.0, 1.0]])).item() == 0.5
    back = trusting.curve(asked, x, baseline, classes, -maps, insert=False)
    torch.testing.assert_close(back[:, 0], found[:, -1])
    torch.testing.assert_close(back.flip(1), found, atol=1e-6, rtol=1e-5)


def test_what_is_said_hardly_changes_with_the_picture(linear, x):
    asked, classes = Asked(linear), torch.tensor([0, 1, 2, 0])
    steady = trusting.sensitivity(lambda x, _: torch.ones_like(x), x, classes, 0, 0)
    assert steady.tolist() == [0, 0, 0, 0]
    found = attribution(asked, CONFIG, "integrated-gradients")
    first = trusting.sensitivity(found, x, classes, 0, 0)
    assert 0 < first.max() < 0.1
    assert torch.equal(first, trusting.sensitivity(found, x, classes, 0, 0))


def test_on_the_foreground():
    maps, masks = torch.tensor([[[3.0, -5.0], [1.0, 0.0]]]), torch.tensor([[[True, True], [False, False]]])
    assert trusting.on_foreground(maps, masks).item() == 0.75
    assert trusting.on_foreground(-maps.clamp(min=0), masks).isnan().all()


def test_a_direction_is_the_normal_of_what_separates():
    generator = torch.Generator().manual_seed(0)
    wanted = torch.nn.functional.normalize(torch.randn(30, generator=generator).double(), dim=0)
    noise = torch.randn(400, 30, generator=generator).double()
    found = tcav.direction(noise[:200] + 3 * wanted, noise[200:])
    assert (found @ wanted) > 0.95
    assert torch.equal(tcav.direction(noise[:3] * 0, noise[:3] * 0), torch.zeros(30).double())


def test_concepts_that_answers_follow_and_those_by_lot():
    """Gradients along one concept's direction; of concepts that are drawn by lot one in twenty has a p below 0.05."""
    generator = torch.Generator().manual_seed(0)
    noise = lambda n: torch.randn(n, 8, generator=generator).double()  # noqa: E731
    along = torch.eye(8).double()[0]
    values = {"used": noise(40) + 3 * along, **{f"lot {k}": noise(40) for k in range(120)}}
    gradients = noise(400)
    gradients[:, 0] += 1
    found = tcav.rows(values, noise(300), noise(300), gradients, torch.zeros(400).long(), ["a"], runs=3, seed=0)
    used, *lots = found
    assert used["score"] > 0.7 and used["p"] <= 0.03
    assert 0.005 < sum(row["p"] <= 0.05 for row in lots) / len(lots) < 0.13
    assert 0.4 < used["random"] < 0.6 and all(0 < row["p"] <= 1 for row in found)


def test_no_concept_can_be_told():
    from engram.backbone.data.sets import MemorySplit

    split = MemorySplit(
        torch.zeros(20, 1, 2, 2, dtype=torch.uint8), torch.arange(20) % 2, {"group": ("a",) * 16 + ("b",) * 4}
    )
    with pytest.raises(UserError, match="a column of the data \\(group\\); got colour"):
        tcav.Examples.of(split, "colour", 0)
    with pytest.raises(UserError, match="each of whose values 5 training images have; got group = b with 4"):
        tcav.Examples.of(split, "group", 0)


def test_features_and_what_excites_them(x):
    asked = Asked(network(), 0)
    excited = excitement(asked, x)
    assert excited.shape == (4, asked.shape[0])
    view = seen_by(asked, x, chosen(excited, 1, 2)[0][0])
    assert view.shape == x.shape and view.abs().sum() > 0
    assert chosen(torch.ones(3, 2), 2, 1) == []


def test_what_cannot_be_explained():
    with pytest.raises(UserError, match="--stage must be from 0 to 2, the stages of the network; got 4"):
        Asked(network(), 4)
    frozen = network()
    plain = frozen.backbone.forward_steps
    frozen.backbone.forward = lambda x: torch.no_grad()(plain)(x)[0]
    with pytest.raises(UserError, match="one that gradients flow through"):
        Asked(frozen.requires_grad_(False))
    assert "named once" in ExplainConfig(from_trial="x", methods=("occlusion", "occlusion")).problems()[0]
