"""Heads that are trained on the support set, against torch's optimizers and autograd, one episode at a time."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.contract import AdaptingHead, Named
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build, build_head
from engram.fewshot.head_options import MAMLOptions
from engram.fewshot.heads.maml import MAML

FEATURES, WAYS = 6, 3


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def episodes(count=3):
    labels = torch.tensor([[0, 1, 2, 1, 2, 2], [2, 2, 0, 1, 0, 1], [1, 0, 0, 0, 2, 0]])[:count]
    return noise(count, 4, FEATURES), noise(count, 6, FEATURES, seed=1), labels


def made(name, **options):
    return build_head(Named(name, 1, options), FEATURES, 7)


def test_baseline_goes_down_the_gradient_from_the_class_means():
    queries, support, labels = episodes()
    head = made("fewshot.baseline++", steps=7, inner_lr=0.2, scale=5.0)
    logits = head.from_support(queries, support, labels, WAYS)
    for e, known in enumerate(F.normalize(support, dim=-1)):
        start = torch.stack([known[labels[e] == way].mean(0) for way in range(WAYS)])
        vectors = start.requires_grad_()
        for _ in range(7):
            loss = F.cross_entropy(5 * known @ F.normalize(vectors, dim=1).T, labels[e])
            vectors = vectors - 0.2 * torch.autograd.grad(loss, vectors)[0]
        wanted = 5 * torch.cosine_similarity(queries[e].unsqueeze(1), vectors.detach(), dim=-1)
        torch.testing.assert_close(logits[e], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_anil_trains_a_layer_that_begins_at_zero(training):
    queries, support, labels = episodes()
    head = made("fewshot.anil", steps=3, test_steps=6, inner_lr=0.5).train(training)
    logits = head.from_support(queries, support, labels, WAYS)
    for e in range(len(queries)):
        layer = [torch.zeros(WAYS, FEATURES).requires_grad_(), torch.zeros(WAYS).requires_grad_()]
        for _ in range(3 if training else 6):
            slopes = torch.autograd.grad(F.cross_entropy(F.linear(support[e], *layer), labels[e]), layer)
            layer = [
                (value - 0.5 * slope).detach().requires_grad_() for value, slope in zip(layer, slopes, strict=True)
            ]
        torch.testing.assert_close(logits[e], F.linear(queries[e], *layer), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fewshot.baseline++", "fewshot.anil"])
def test_gradients_of_the_steps_reach_the_features(name):
    """Of second order: against finite differences."""
    queries, support, labels = episodes(count=1)
    head = made(name, steps=3)

    def loss(support):
        return head.from_support(queries, support, labels, WAYS).square().sum()

    moved, direction = support.clone().requires_grad_(), noise(*support.shape, seed=5)
    loss(moved).backward()
    wanted = (loss(support + 1e-3 * direction) - loss(support - 1e-3 * direction)) / 2e-3
    torch.testing.assert_close((moved.grad * direction).sum(), wanted, rtol=5e-3, atol=1e-3)


class Tiny(nn.Module):
    """A network of two layers, with BatchNorm where it is asked for."""

    def __init__(self, norm=False):
        super().__init__()
        self.steps = 1
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)
        self.norm = nn.BatchNorm1d(5) if norm else nn.Identity()

    def forward(self, x):
        return self.second(self.norm(self.first(x.flatten(1))).tanh())


def pictures(count=2):
    labels = torch.tensor([[0, 1, 1], [1, 0, 1]])[:count]
    return noise(count, 4, 1, 2, 2).double(), noise(count, 3, 1, 2, 2, seed=1).double(), labels


def maml(**options):
    return MAML(3, 2, MAMLOptions(**options))


@pytest.mark.parametrize("norm", [False, True])
def test_maml_by_hand(norm):
    """Logits and the gradients of second order, of a loop that keeps the graph; BatchNorm by the support set."""
    torch.manual_seed(0)
    net = Tiny(norm).double()
    queries, support, labels = pictures()
    other = copy.deepcopy(net)
    logits = maml(steps=3, inner_lr=0.5).from_images(net, queries, support, labels, 2)
    logits.square().sum().backward()

    def hidden(weights, x, known):
        x = x.flatten(1) @ weights[0].T + weights[1]
        if norm:
            seen = known.flatten(1) @ weights[0].T + weights[1]
            spread = (seen.var(0, correction=0) + 1e-5).sqrt()
            x = (x - seen.mean(0)) / spread * weights[4] + weights[5]
        return x.tanh() @ weights[2].T + weights[3]

    layers = [other.first, other.second] + ([other.norm] if norm else [])
    begin, wanted = [each for layer in layers for each in (layer.weight, layer.bias)], []
    for e in range(2):
        weights = [*begin, torch.zeros(2, 3).double().requires_grad_(), torch.zeros(2).double().requires_grad_()]
        for _ in range(3):
            out = hidden(weights, support[e], support[e]) @ weights[-2].T + weights[-1]
            slopes = torch.autograd.grad(F.cross_entropy(out, labels[e]), weights, create_graph=True)
            weights = [value - 0.5 * slope for value, slope in zip(weights, slopes, strict=True)]
        wanted.append(hidden(weights, queries[e], support[e]) @ weights[-2].T + weights[-1])
    torch.testing.assert_close(logits, torch.stack(wanted))
    torch.stack(wanted).square().sum().backward()
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
        assert one.grad.any() or (norm and one is net.first.bias)  # which BatchNorm takes away


def test_the_gradient_of_maml_is_that_of_finite_differences():
    torch.manual_seed(0)
    net, given = Tiny(norm=True).double(), (*pictures(), 2)
    head = maml(steps=4, inner_lr=0.5)
    head.from_images(net, *given).square().sum().backward()
    weight, direction = net.first.weight, noise(5, 4, seed=3).double()
    found = []
    for sign in (1, -1):
        moved = copy.deepcopy(net)
        with torch.no_grad():
            moved.first.weight += sign * 1e-5 * direction
        found.append(head.from_images(moved, *given).square().sum().item())
    torch.testing.assert_close((weight.grad * direction).sum().item(), (found[0] - found[1]) / 2e-5, rtol=1e-5, atol=0)


def test_maml_leaves_the_network_as_it_is_and_needs_no_gradients_outside():
    torch.manual_seed(0)
    net = build("vgg-tiny", {"width": 0.25}, (1, 8, 8), 2, torch.zeros(1), torch.ones(1)).backbone
    head = build_head(Named("fewshot.maml", 1, {"test_steps": 3}), net.feature_dim, 2).eval()
    assert isinstance(head, AdaptingHead) and not isinstance(made("fewshot.anil"), AdaptingHead)
    before = copy.deepcopy(net.state_dict())
    queries, support, labels = noise(2, 4, 1, 8, 8), noise(2, 3, 1, 8, 8, seed=1), pictures()[2]
    logits = head.from_images(net, queries, support, labels, 2)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            inside = head.from_images(net, queries.clone(), support.clone(), labels.clone(), 2)
        torch.testing.assert_close(inside.clone(), logits)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    few = head.from_images(net, queries[:, :1], support, labels, 2)
    torch.testing.assert_close(few, logits[:, :1])
    alone = head.from_images(net, queries[1:], support[1:].flip(1), labels[1:].flip(1), 2)
    torch.testing.assert_close(alone, logits[1:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(head.train().from_images(net, queries, support, labels, 2), logits)


def test_what_has_no_fixed_classifier_says_so():
    net = Tiny()
    net.steps = 4
    with pytest.raises(UserError, match=r"the network for fewshot\.maml must be one without steps; got one of 4 steps"):
        maml().from_images(net, *pictures(), 2)
    for name in ("fewshot.maml", "fewshot.tim"):
        with pytest.raises(UserError, match="a head for fixed classes must be one that"):
            made(name).fitted(noise(3, FEATURES), torch.arange(3), 3)


def test_tim_by_torchs_adam():
    """The loss as the paper has it, each episode by itself; nothing stays from one call to the next."""
    queries, support, labels = episodes()
    head = made("fewshot.tim", steps=20, inner_lr=0.01, scale=8.0, certainty=0.3)
    logits = head.from_support(queries, support, labels, WAYS)
    for e in range(3):
        asked, known = F.normalize(queries[e], dim=1), F.normalize(support[e], dim=1)
        vectors = nn.Parameter(torch.stack([known[labels[e] == way].mean(0) for way in range(WAYS)]))
        optimizer = torch.optim.Adam([vectors], lr=0.01)
        for _ in range(20):
            optimizer.zero_grad()
            p = (-4 * torch.cdist(asked, vectors).square()).softmax(1)
            loss = F.cross_entropy(-4 * torch.cdist(known, vectors).square(), labels[e])
            loss = loss + (p.mean(0) * p.mean(0).log()).sum() - 0.3 * (p * p.log()).sum(1).mean()
            loss.backward()
            optimizer.step()
        wanted = (-4 * torch.cdist(asked, vectors).square()).softmax(1)
        torch.testing.assert_close(logits[e].softmax(1), wanted.detach(), rtol=1e-3, atol=1e-4)
    assert torch.equal(head.from_support(queries, support, labels, WAYS), logits)
    with torch.inference_mode():
        assert torch.equal(head.from_support(*episodes(), WAYS), logits)
    assert not list(head.state_dict())


def test_all_queries_together_help_tim():
    """One image a class of those that lie close together, and as many queries of each."""
    places = noise(60, 5, 1, 8)
    asked = torch.arange(5).repeat_interleave(12).expand(60, -1)
    support = (places + 0.8 * noise(60, 5, 1, 8, seed=1)).flatten(1, 2)
    queries = (places + 0.8 * noise(60, 5, 12, 8, seed=2)).flatten(1, 2)
    labels = torch.arange(5).expand(60, -1)

    def right(**options):
        return (
            (made("fewshot.tim", **options).from_support(queries, support, labels, 5).argmax(-1) == asked)
            .double()
            .mean()
        )

    assert right() > right(steps=0) + 0.02
