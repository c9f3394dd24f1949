"""What every objective must keep to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engram.backbone.contract import Asks, Batch, Halves, Objective, ObjectiveSetting, Outputs
from engram.backbone.data.columns import CONCEPTS
from engram.backbone.data.sets import Split
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.objectives.columns import columns_of
from engram.backbone.testing.case import require
from engram.backbone.testing.experiments import plain_state
from engram.backbone.testing.samples import NETWORKS, seeded

ROWS, WIDTH, STEPS, VALUES, ENVIRONMENTS = 8, 6, 3, 10, 2


def check_objective(make: Callable[[ObjectiveSetting], Objective], asks: Asks, data: Split, classes: int) -> None:
    """All of it, on the first images of some data, which have the columns that it needs; ``asks`` is what it says."""
    setting = ObjectiveSetting(
        data=data,
        outputs=classes,
        label_smoothing=0.0,
        device="cpu",
        validation=data,
        reference=first_network(data.in_shape, classes),
    )
    objective = make(setting)
    says_what_it_asks(asks, objective)
    columns = columns_of(data, objective.columns, "cpu")
    if objective.by_itself:
        return  # it is tried in trainings
    values = {name: column[:ROWS] for name, column in columns.items()}
    batch = Batch(torch.zeros(ROWS, *data.in_shape), torch.zeros(ROWS, *data.in_shape), data.labels[:ROWS], _rows())
    batch.columns = values
    batch.logits = (outputs := _outputs(classes, objective, batch)).logits
    loss = objective(outputs, batch, 0)
    require(loss.ndim == 0 and bool(loss.isfinite()), f"the loss is one finite number; got {list(loss.shape)}")
    loss.backward(retain_graph=not objective.recordable)
    of_halves = None if outputs.halves is None else outputs.halves.environments
    looked_at = [outputs.logits, outputs.steps, outputs.features, outputs.predictions, outputs.given]
    looked_at += [outputs.concepts, of_halves]
    grads = [each.grad for each in looked_at if each is not None]
    require(any(grad is not None and grad.any() for grad in grads), "gradients reach what it looks at")
    if objective.by_rows:
        _gives_rows(objective, batch, classes)
    _resumes(objective, make(setting), batch, classes)


def says_what_it_asks(asks: Asks, objective: Objective) -> None:
    """What its entry says is what it is."""
    for name in ("wants", "by_rows", "by_itself"):
        said, found = getattr(asks, name), getattr(objective, name)
        require(said == found, f"asks says what it is: {name} is {found}, and said to be {said}")
    unsaid = set(objective.columns) - set(asks.columns)
    require(not unsaid, f"asks names the columns that it needs; {', '.join(sorted(unsaid))} it does not")


def first_network(in_shape: tuple[int, int, int], classes: int) -> Classifier:
    """For objectives that begin from what another network answers."""
    name, (mean, std) = next(iter(NETWORKS)), torch.tensor([[0.0], [1.0]]).expand(2, in_shape[0])
    return seeded(lambda: build(name, NETWORKS[name], in_shape, classes, mean, std), 1).eval()


def _rows() -> Tensor:
    return torch.arange(ROWS)


def _outputs(classes: int, objective: Objective, batch: Batch, seed: int = 0) -> Outputs:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(ROWS, classes, generator=random, requires_grad=True)
    steps = torch.randn(STEPS, ROWS, classes, generator=random, requires_grad=True)
    features = torch.randn(ROWS, WIDTH, generator=random, requires_grad=True)
    errors = torch.rand(STEPS, generator=random).requires_grad_()
    given = torch.randn(ROWS, VALUES, classes, generator=random, requires_grad=True)
    concepts = torch.randn(ROWS, _concepts(batch), generator=random, requires_grad=True)
    several = torch.randn(ENVIRONMENTS, ROWS, classes, generator=random, requires_grad=True)
    other, mixed = torch.randn(2, ROWS, classes, generator=random)
    rest, spread = torch.randn(ROWS, WIDTH, generator=random), torch.rand((), generator=random)
    wants = objective.wants
    return Outputs(
        logits,
        steps if "steps" in wants else None,
        features if "features" in wants else None,
        predictions=errors if "predictions" in wants else None,
        given=given if "given" in wants else None,
        counterfactual=other if "counterfactual" in wants else None,
        concepts=concepts if "concepts" in wants else None,
        halves=Halves(rest, several, mixed, spread) if "halves" in wants else None,
    )


def _concepts(batch: Batch) -> int:
    """How many concepts the data have."""
    column = batch.columns.get(CONCEPTS)
    return 1 if column is None else column.shape[1]


def _gives_rows(objective: Objective, batch: Batch, classes: int) -> None:
    batch.by_rows = True
    loss = objective(_outputs(classes, objective, batch, 1), batch, 1)
    require(list(batch.losses.shape) == [ROWS], "by_rows: it fills batch.losses, [N]")
    require(torch.allclose(batch.losses.mean(), loss, atol=1e-5), "by_rows: the loss is the mean of batch.losses")
    batch.by_rows = False


def _resumes(objective: Objective, again: Objective, batch: Batch, classes: int) -> None:
    """A fresh one that is given the state goes on with the same bits."""
    again.load_state_dict(plain_state(objective.state_dict(), "an objective's state"))
    for step in (2, 3):
        losses = [each(_outputs(classes, each, batch, step), batch, step) for each in (objective, again)]
        require(torch.equal(*losses), "with the state of another one it goes on to the last bit")
