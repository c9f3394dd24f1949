"""A classifier of new classes from a handful of pictures."""

import io
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import engram
from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.fewshot import enrol
from engram.fewshot.enrolling.rejection import NONE, left_out, limit

NAMES = ["owl", "cat", "owl", "ant", "cat", "ant"]


def pictures(count, seed=0, channels=1):
    return torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10))


def test_the_nearest_mean_of_what_goes_into_the_last_layer_answers(net):
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made, queries = enrol(net, pictures(6), NAMES), pictures(20, 1)
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert made.classes == ("ant", "cat", "owl") and not any(each.requires_grad for each in made.parameters())
    with torch.no_grad():
        support, asked = (net.eval()[:-1](images) for images in (pictures(6), queries))
    means = torch.stack([support[[name == each for each in NAMES]].mean(0) for name in made.classes])
    far = (asked[:, None] - means).square().sum(2)
    assert torch.allclose(made(queries) - asked.square().sum(1, keepdim=True), -far, atol=1e-4)
    assert made.predict(queries) == [made.classes[i] for i in far.argmin(1)]
    assert engram.fewshot.enrol is enrol


def test_picture_by_picture_is_as_all_at_once(net):
    whole, grown = enrol(net, pictures(6), NAMES), enrol(net, pictures(6)[:1], NAMES[:1])
    for image, name in zip(pictures(6)[1:], NAMES[1:], strict=True):
        grown.add([image], [name])
    assert grown.classes == ("owl", "cat", "ant")  # a class that is known keeps its output
    order = [grown.classes.index(name) for name in whole.classes]
    assert torch.allclose(grown(pictures(9, 2))[:, order], whole(pictures(9, 2)), atol=1e-5)


def test_whole_numbers_are_in_their_order(net):
    made = enrol(net, pictures(4), torch.tensor([2, 10, 0, 2]))
    assert made.classes == ("0", "2", "10")
    assert made(pictures(4)).argmax(1)[1:3].tolist() == [2, 0]


def test_a_network_of_features_and_one_that_classifies(net):
    support = pictures(6)
    assert enrol(net, support, NAMES, outputs="features").features(support).shape == (6, 10)
    loaded = SimpleNamespace(module=net)  # as engram.load gives it
    assert enrol(loaded, support, NAMES).features(support).shape == (6, 216)
    whole = build("lenet5", {}, (1, 8, 8), 10, torch.tensor([0.5]), torch.tensor([0.25]))
    made = enrol(whole.eval(), (support * 255).byte(), NAMES)
    features = whole.backbone(whole.normalise((support * 255).byte()))
    assert torch.allclose(made.features((support * 255).byte()), features, atol=1e-5)
    assert isinstance(made, Classifier)
    assert torch.allclose(enrol(whole.backbone, support, NAMES).features(support), whole.backbone(support), atol=1e-5)


def test_the_threshold_is_of_the_support_each_picture_left_out():
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(7, 3, generator=random), torch.tensor([0, 0, 0, 1, 1, 2, 0])
    found = left_out(features, labels, 3)
    for i in range(7):
        others = [j for j in range(7) if j != i and labels[j] == labels[i]]
        if not others:
            assert found[i].isnan()
            continue
        k = len(others) + 1  # as many as the mean that queries are compared with has
        far = [(features[i] - features[others].mean(0)).square().sum() * (1 + 1 / k) / (1 + 1 / (k - 1))]
        far += [
            (features[i] - features[labels == each].mean(0)).square().sum() for each in range(3) if each != labels[i]
        ]
        assert torch.isclose(found[i], min(far))


def test_about_the_share_asked_for_of_known_pictures_is_refused():
    random, refused = torch.Generator().manual_seed(1), []
    for _ in range(200):
        means = 10 * torch.randn(5, 20, generator=random)
        labels = torch.arange(5).repeat(4)
        far = limit(left_out(means[labels] + torch.randn(20, 20, generator=random), labels, 5), 0.1)
        mean = means[0] + torch.randn(4, 20, generator=random).mean(0)
        asked = means[0] + torch.randn(50, 20, generator=random)
        refused.append(((asked - mean).square().sum(1) > far).float().mean())
    assert 0.06 < torch.stack(refused).mean() < 0.12


def test_what_is_far_from_all_classes_is_none_of_these(net):
    base, noise = pictures(3), 0.02 * pictures(12, 3)
    labels = torch.arange(3).repeat(4)
    made = enrol(net, base[labels] + noise, labels.tolist(), reject=0.1)
    assert made.threshold is not None
    assert made.predict(3 * pictures(4, 5)) == [NONE] * 4
    assert sum(answer == NONE for answer in made.predict(base[labels] + 0.02 * pictures(12, 6))) < 6
    alone = enrol(net, base, ["a", "b", "c"], reject=0.1)
    assert alone.threshold is None and NONE not in alone.predict(3 * pictures(4, 5))  # one picture tells no distance
    alone.add(base[:1] + noise[:1], ["a"])
    assert alone.threshold is not None


def test_its_tensors_make_it_again_from_any_other(net):
    made = enrol(net, pictures(6), NAMES, reject=0.2)
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    again = enrol(net, pictures(1), ["anything"])
    again.load_state_dict(torch.load(file, weights_only=True))
    assert (again.classes, again.threshold) == (made.classes, made.threshold)
    assert torch.equal(again(pictures(9, 4)), made(pictures(9, 4)))
    for each in (made, again):
        each.add(pictures(2, 7), ["cat", "bee"])
    assert again.predict(pictures(9, 4)) == made.predict(pictures(9, 4)) and again.classes[-1] == "bee"


def test_a_network_keeps_a_support_head_of_its_own():
    own = build("mlp", {}, (1, 8, 8), 5, torch.zeros(1), torch.ones(1), head=_named("fewshot.prototype", scale=0.25))
    half = enrol(own, pictures(6), NAMES)(pictures(3, 8))
    assert torch.allclose(4 * half, enrol(own, pictures(6), NAMES, head="prototype")(pictures(3, 8)), rtol=1e-4)
    wide = enrol(own, pictures(6), NAMES, head="prototype", head_options={"distance": "gaussian"})
    assert wide(pictures(3, 8)).shape == (3, 3)


def _named(name, **options):
    from engram.backbone.options import in_full
    from engram.backbone.registry import Registry

    return in_full(Registry.discover(), "heads", name, options)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": NAMES[:5]}, "labels must be one for each of the 6 pictures; got 5."),
        ({"labels": [*NAMES[:5], 1]}, "labels must be names alone, or whole numbers alone; got int, str."),
        ({"labels": [*NAMES[:5], NONE]}, "a class must be called otherwise; got 'none of these'."),
        ({"support": pictures(6)[0]}, "images must be a tensor [N, C, H, W], or pictures [C, H, W] of one shape"),
        ({"support": [], "labels": []}, "images must be a tensor [N, C, H, W]"),
        ({"support": (pictures(6) * 255).byte()}, "images must be floating point numbers"),
        ({"head": "linear"}, "head must be one that makes a classifier of a support set; got linear. Use "),
        ({"reject": 1.0}, "reject must be greater than 0 and less than 1; got 1.0."),
        ({"model": 3}, "model must be a torch.nn.Module, or what engram.load gives; got int."),
    ],
)
def test_what_does_not_go_together_is_said(net, change, said):
    with pytest.raises(UserError) as error:
        enrol(**{"model": net, "support": pictures(6), "labels": NAMES, **change})
    assert str(error.value).startswith(said)


def test_images_of_another_shape_are_refused():
    whole = build("lenet5", {}, (1, 8, 8), 10, torch.tensor([0.5]), torch.tensor([0.25]))
    made = enrol(whole, pictures(6), NAMES)
    with pytest.raises(UserError, match="images must be of 1x8x8, as the network takes them; got 3x8x8"):
        made.predict(pictures(2, channels=3))
