"""Few-shot heads against brute force, one episode, one query and one class at a time."""

import pytest
import sklearn.linear_model
import torch

from engram.backbone.contract import Centred, Head, Named
from engram.backbone.errors import UserError
from engram.backbone.nets.heads import linear_form
from engram.backbone.nets.making import build, build_head
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model, save_model
from engram.backbone.solving import ridge, solve_gram

FEATURES, WAYS = 6, 3


def episodes(seed=0, count=4, per_class=(1, 2, 3), queries=5, features=FEATURES):
    """Support sets with so many images of the classes, in an order of their own, and queries, all of noise."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.tensor([way for way, number in enumerate(per_class) for _ in range(number)])
    labels = torch.stack([labels[torch.randperm(len(labels), generator=random)] for _ in range(count)])
    support = torch.randn(count, labels.shape[1], features, generator=random)
    return torch.randn(count, queries, features, generator=random), support, labels


def made(name, **options):
    return build_head(Named(name, 1, options), FEATURES, 7)


def one_by_one(queries, support, labels, distance, ways=WAYS):
    """Minus the distance of every query to the mean of every class."""
    found = torch.zeros(len(queries), queries.shape[1], ways)
    for e, (each, shown, label) in enumerate(zip(queries, support, labels, strict=True)):
        for way in range(ways):
            mean = shown[label == way].mean(0)
            for q, query in enumerate(each):
                found[e, q, way] = -distance(query, mean, shown, label)
    return found


def squared(query, mean, shown, label):
    return (query - mean).square().sum()


def gaussian(query, mean, shown, label, shrinkage=0.3):
    within = torch.stack([shown[i] - shown[label == label[i]].mean(0) for i in range(len(shown))])
    covariance = (1 - shrinkage) * within.T @ within / len(shown)
    covariance += shrinkage * (shown - shown.mean(0)).square().mean() * torch.eye(FEATURES)
    return (query - mean) @ torch.linalg.inv(covariance) @ (query - mean)


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("per_class", [(1, 1, 1), (1, 2, 3), (4, 5, 3)])
@pytest.mark.parametrize("distance", [squared, gaussian])
def test_prototypes_have_the_softmax_of_minus_the_squared_distance(distance, per_class, scale):
    given = episodes(per_class=per_class)
    head = made(
        "fewshot.prototype", distance="gaussian" if distance is gaussian else "euclidean", shrinkage=0.3, scale=scale
    )
    wanted = scale * one_by_one(*given, distance)
    torch.testing.assert_close(head.from_support(*given, WAYS).softmax(-1), wanted.softmax(-1))


def test_a_prototype_head_is_the_linear_layer_of_the_paper():
    queries, support, labels = episodes()
    head = made("fewshot.prototype", scale=2.0).fitted(support[0], labels[0], WAYS)
    assert isinstance(head, Head)
    layer, means = head.as_linear(), head.prototypes.detach()
    torch.testing.assert_close(layer.weight.detach(), 4 * means)
    torch.testing.assert_close(layer.bias.detach(), -2 * (means * means).sum(1))
    torch.testing.assert_close(layer(queries[0]), head(queries[0]))


def test_one_shot_gaussian_is_euclidean_in_units_of_the_variance():
    queries, support, labels = episodes(per_class=(1, 1, 1))
    logits = made("fewshot.prototype", distance="gaussian", shrinkage=0.25).from_support(queries, support, labels, WAYS)
    plain = made("fewshot.prototype").from_support(queries, support, labels, WAYS)
    variance = support.var(1, correction=0).mean(1)
    torch.testing.assert_close(logits * 0.25 * variance[:, None, None], plain)
    twice = made("fewshot.prototype", distance="gaussian").from_support(3 * queries, 3 * support, labels, WAYS)
    torch.testing.assert_close(
        twice, made("fewshot.prototype", distance="gaussian").from_support(queries, support, labels, WAYS)
    )


def test_a_support_set_without_variance_has_no_opinion():
    logits = made("fewshot.prototype", distance="gaussian").from_support(
        torch.ones(1, 2, 6), torch.zeros(1, 3, 6), torch.tensor([[0, 1, 2]]), 3
    )
    assert torch.equal(logits, torch.zeros(1, 2, 3))


@pytest.mark.parametrize("name", ["fewshot.prototype", "cosine"])
def test_a_learned_scale_is_trained_and_kept(name):
    given = episodes()
    head = made(name, scale=3.0, learn_scale=True)
    logits = head.from_support(*given, WAYS)
    torch.testing.assert_close(logits, made(name, scale=3.0).from_support(*given, WAYS))
    logits.square().sum().backward()
    assert head.scale.grad != 0
    with torch.no_grad():
        head.scale.fill_(5.0)
    assert head.fitted(given[1][0], given[2][0], WAYS).scale == 5


def test_cosines_to_class_means():
    given = episodes()
    wanted = one_by_one(*given, lambda query, mean, *_: -torch.cosine_similarity(query, mean, dim=0))
    head = made("cosine", scale=4.0)
    torch.testing.assert_close(head.from_support(*given, WAYS), 4 * wanted)
    assert linear_form(head) is None
    fitted = head.fitted(given[1][1], given[2][1], WAYS)
    torch.testing.assert_close(fitted(given[0][1]), 4 * wanted[1])


@pytest.mark.parametrize("name", ["fewshot.prototype", "cosine"])
def test_distances_are_computed_in_full_precision_under_autocast(name):
    given = episodes()
    head = made(name)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.from_support(*given, WAYS), head.from_support(*given, WAYS).float())
        inside = head.from_support(*given, WAYS)
    assert torch.equal(inside, head.from_support(*given, WAYS))


@pytest.mark.parametrize("transform", ["un", "l2n", "cl2n"])
def test_simpleshot_is_the_distance_of_normalised_features(transform):
    queries, support, labels = episodes()
    base = torch.randn(50, FEATURES, generator=torch.Generator().manual_seed(9)) + 2
    head = made("fewshot.simpleshot", transform=transform)
    head.centre(base)

    def changed(features):
        features = features - base.mean(0) if transform == "cl2n" else features
        return features if transform == "un" else features / features.norm(dim=-1, keepdim=True)

    wanted = one_by_one(changed(queries), changed(support), labels, squared)
    torch.testing.assert_close(head.from_support(queries, support, labels, WAYS).softmax(-1), wanted.softmax(-1))


def test_simpleshot_is_refused_without_the_mean_of_the_training_classes():
    given = episodes()
    head = made("fewshot.simpleshot")
    assert isinstance(head, Centred) and not isinstance(made("fewshot.prototype"), Centred)
    with pytest.raises(UserError, match=r"fewshot\.simpleshot must be told the mean feature .* Call centre"):
        head.from_support(*given, WAYS)
    made("fewshot.simpleshot", transform="l2n").from_support(*given, WAYS)


@pytest.mark.parametrize("per_class", [(1, 1, 1), (1, 2, 3), (5, 4, 6)])
def test_ridge_is_that_of_scikit_learn(per_class):
    """With fewer images than features and with more: with an intercept, and one-hot targets."""
    queries, support, labels = episodes(per_class=per_class)
    head = made("fewshot.ridge", penalty=0.7, scale=3.0)
    logits = head.from_support(queries, support, labels, WAYS)
    for e in range(len(queries)):
        model = sklearn.linear_model.Ridge(alpha=0.7).fit(support[e].double(), torch.eye(WAYS)[labels[e]].double())
        torch.testing.assert_close(logits[e], 3 * torch.tensor(model.predict(queries[e].double())).float())


def test_gradients_of_ridge_reach_the_features_and_what_is_learned():
    support, labels = episodes(count=2)[1].double(), episodes(count=2)[2]
    for rows in (support, support[:, :, :3]):  # fewer images than features, and more

        def predicted(rows, penalty):
            return ridge(rows, penalty.exp(), torch.nn.functional.one_hot(labels, WAYS).double())

        rows = rows.clone().requires_grad_()
        assert torch.autograd.gradcheck(predicted, (rows, torch.tensor(0.3, dtype=torch.double, requires_grad=True)))
    head = made("fewshot.ridge")
    head.from_support(*episodes(), WAYS).log_softmax(-1)[..., 0].sum().backward()
    assert head.log_penalty.grad != 0 and head.scale.grad != 0


def test_both_ways_to_solve_agree():
    random = torch.Generator().manual_seed(0)
    rows, right = torch.randn(3, 4, 7, generator=random).double(), torch.randn(3, 7, 2, generator=random).double()
    shift = torch.tensor([0.1, 1.0, 10.0]).double()
    square = rows.mT @ rows + shift[:, None, None] * torch.eye(7)
    torch.testing.assert_close(solve_gram(rows, shift, right), torch.linalg.solve(square, right))
    tall = torch.cat([rows, rows], 1) / 2**0.5
    torch.testing.assert_close(solve_gram(tall, shift, right), torch.linalg.solve(square, right))
    targets = torch.randn(3, 4, 2, generator=random).double()
    torch.testing.assert_close(ridge(rows, shift, targets), torch.linalg.solve(square, rows.mT @ targets))


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_matching_sums_the_attention_to_each_class(scale):
    queries, support, labels = episodes()
    logits = made("fewshot.matching", scale=scale).from_support(queries, support, labels, WAYS)
    for e, query in enumerate(queries):
        attention = (scale * torch.cosine_similarity(query[:, None], support[e], dim=-1)).softmax(-1)
        sums = torch.stack([attention[:, labels[e] == way].sum(1) for way in range(WAYS)], 1)
        torch.testing.assert_close(logits[e].exp(), sums)
    torch.testing.assert_close(logits.softmax(-1), logits.exp())


def test_matching_knows_how_little_attention_a_class_gets():
    support, labels = torch.tensor([[[1.0, 0], [0, 1], [-1, 0]]]), torch.tensor([[0, 1, 2]])
    head = build_head(Named("fewshot.matching", 1, {"scale": 1000.0}), 2, 3)
    features = support.clone().requires_grad_()
    logits = head.from_support(torch.tensor([[[1.0, 0]]]), features, labels, 3)
    torch.testing.assert_close(logits, torch.tensor([[[0.0, -1000, -2000]]]))
    logits.sum().backward()
    assert features.grad.isfinite().all()


HEADS = {
    "prototype": Named("fewshot.prototype", 1, {}),
    "gaussian": Named("fewshot.prototype", 1, {"distance": "gaussian"}),
    "cosine": Named("cosine", 1, {}),
    "simpleshot": Named("fewshot.simpleshot", 1, {"transform": "cl2n"}),
    "ridge": Named("fewshot.ridge", 1, {}),
    "matching": Named("fewshot.matching", 1, {}),
    "baseline++": Named("fewshot.baseline++", 1, {"steps": 20}),
    "anil": Named("fewshot.anil", 1, {}),
    "tim": Named("fewshot.tim", 1, {"steps": 20}),
}


def separable(seed=0, count=40, ways=4, shots=3, queries=4, features=8):
    """Classes as clouds at random places, new ones in every episode; and the classes of the queries."""
    random = torch.Generator().manual_seed(seed)
    places = 3 * torch.randn(count, ways, features, generator=random)
    labels = torch.arange(ways).repeat_interleave(shots).expand(count, -1)
    asked = torch.arange(ways).repeat_interleave(queries).expand(count, -1)
    support = places[:, labels[0]] + torch.randn(count, ways * shots, features, generator=random)
    return places[:, asked[0]] + torch.randn(count, ways * queries, features, generator=random), support, labels, asked


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_every_head_beats_chance_and_believes_its_support_set(head):
    queries, support, labels, asked = separable()
    made = build_head(head, 8, 9).eval()
    if isinstance(made, Centred):
        made.centre(support.flatten(0, 1))
    right = (made.from_support(queries, support, labels, 4).argmax(-1) == asked).float().mean()
    assert right > 0.95
    turned = torch.stack(
        [each[torch.randperm(12, generator=torch.Generator().manual_seed(e))] for e, each in enumerate(labels)]
    )
    wrong = (made.from_support(queries, support, turned, 4).argmax(-1) == asked).float().mean()
    assert abs(wrong - 0.25) < 0.1


@pytest.mark.parametrize("name", [name for name in HEADS if name != "tim"] + ["relation"])
def test_a_fitted_head_is_saved_and_loaded_as_any_other(name, tmp_path):
    """As many images, classes and options as there are; whatever a head was told or had learned is with it."""
    head = HEADS.get(name, Named("fewshot.relation", 1, {"units": 8}))
    head = in_full(Registry.discover(), "heads", head.name, head.options)
    backbone = in_full(Registry.discover(), "backbones", "mlp", {"units": 6, "depth": 1})
    model = build(backbone.name, backbone.options, (1, 4, 4), 7, torch.zeros(1), torch.ones(1), head).eval()
    images, labels = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 1])
    with torch.no_grad():
        features = model.backbone(model.normalise(images))
        if isinstance(model.head, Centred):
            model.head.centre(features)
        model.head = model.head.fitted(features, labels, 3).eval()
        made = Made(backbone=backbone, head=head, classes=("a", "b", "c"), in_shape=(1, 4, 4))
        save_model(tmp_path, model, made)
        again, _ = load_model(tmp_path)
        assert torch.equal(again(images), model(images)) and again(images).isfinite().all()
