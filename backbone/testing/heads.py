"""What every head must keep to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engram.backbone.contract import Centred, Conceptual, Conditional, Entry, Head, SupportHead
from engram.backbone.nets.heads import linear_form
from engram.backbone.testing.case import require
from engram.backbone.testing.networks import same_tensors
from engram.backbone.testing.samples import CLASSES, seeded

WIDTH = 6


def check_head(entry: Entry, make: Callable[[int, int], nn.Module]) -> None:
    """All of it; ``make`` is given the number of features and of classes."""
    head = seeded(lambda: make(WIDTH, CLASSES))
    known = isinstance(head, Head | SupportHead | nn.Linear)
    require(known, "a head has forward and as_linear, or from_support (engram.backbone.contract)")
    if isinstance(head, SupportHead):
        _classifies_by_support(head, entry, make)
    if entry.fixed and entry.trainable and isinstance(head, Head | nn.Linear):
        _gives_logits(head, entry)
        _is_saved(head, make)


def _gives_logits(head: nn.Module, entry: Entry) -> None:
    features = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    logits = head.eval()(features)
    require(list(logits.shape) == [5, CLASSES], f"[B, F] features give [B, K] logits; got {list(logits.shape)}")
    steps = head(torch.stack([features, 2 * features]))
    require(torch.allclose(steps[0], logits, atol=1e-5), "the features of every step, [S, B, F], give [S, B, K]")
    logits.square().sum().backward()
    require(any(each.grad is not None and each.grad.any() for each in head.parameters()), "gradients reach weights")
    _says_its_linear_form(head, features, entry)
    require(isinstance(head, nn.Linear) == entry.layer, "layer=True is said of a torch.nn.Linear, and of nothing else")
    require(isinstance(head, Conceptual) == entry.conceptual, "conceptual=True is said of what is Conceptual alone")
    given = head.column if isinstance(head, Conditional) else ""
    require(given == entry.given, f"given is the column of what is Conditional; it is {given!r}, not {entry.given!r}")


def _is_saved(head: nn.Module, make: Callable[[int, int], nn.Module]) -> None:
    again = seeded(lambda: make(WIDTH, CLASSES), 1)
    again.load_state_dict(head.state_dict())
    require(same_tensors(head.state_dict(), again.state_dict()), "its tensors are its state_dict")
    features = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2))
    require(torch.equal(again.eval()(features), head(features)), "saved and made again it gives the same bits")


def _classifies_by_support(head: SupportHead, entry: Entry, make: Callable[[int, int], nn.Module]) -> None:
    require(entry.support, "a head with from_support says support=True")
    if isinstance(head, nn.Module):
        head.eval()
    if isinstance(head, Centred):
        head.centre(torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(4)))
    random = torch.Generator().manual_seed(3)
    queries, labels = torch.randn(2, 4, WIDTH, generator=random), torch.tensor([[0, 1, 2, 0, 1], [2, 1, 0, 0, 2]])
    support = torch.randn(2, 5, WIDTH, generator=random)
    logits = head.from_support(queries, support, labels, 3)
    require(list(logits.shape) == [2, 4, 3], f"from_support gives [E, Q, K] logits; got {list(logits.shape)}")
    turned = head.from_support(queries, support.flip(1), labels.flip(1), 3)
    require(torch.allclose(turned, logits, atol=1e-4), "the order of the support set does not matter")
    renamed = torch.tensor([2, 0, 1])  # class k is now called so
    other = head.from_support(queries, support, renamed[labels], 3)
    require(torch.allclose(other[..., renamed], logits, atol=1e-4), "what classes are called does not matter")
    alone = head.from_support(queries[1:], support[1:], labels[1:], 3)
    require(torch.allclose(alone, logits[1:], atol=1e-4), "an episode is not influenced by another")
    if not entry.transductive:
        few = head.from_support(queries[:, :1], support, labels, 3)
        require(torch.allclose(few, logits[:, :1], atol=1e-4), "a query is not influenced by another, or transductive")
    if logits.requires_grad:
        learned = list(head.parameters()) if isinstance(head, nn.Module) else []
        reached = torch.autograd.grad(logits.square().sum(), learned, allow_unused=True)
        require(any(each is not None and each.any() for each in reached), "gradients reach what the head learns")
    if entry.fixed:
        fitted = head.fitted(support[0], labels[0], 3).eval()
        require(torch.allclose(fitted(queries[0]), logits[0], atol=1e-4), "fitted gives the logits of from_support")
        steps = fitted(queries)
        require(torch.allclose(steps[0], logits[0], atol=1e-4), "the features of every step, [S, B, F], give [S, B, K]")
        again = seeded(lambda: make(WIDTH, 3), 1)
        again.load_state_dict(fitted.state_dict())
        require(
            torch.equal(again.eval()(queries[0]), fitted(queries[0])), "saved and made again it gives the same bits"
        )
        _says_its_linear_form(fitted, queries[0], entry)


def _says_its_linear_form(head: nn.Module, features: Tensor, entry: Entry) -> None:
    layer = linear_form(head)
    require((layer is not None) == entry.linear, "linear=False is said where as_linear() is None, and only there")
    if layer is not None:
        require(torch.allclose(layer(features), head(features), atol=1e-5), "as_linear() gives the same logits")
