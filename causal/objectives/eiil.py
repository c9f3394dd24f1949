"""The objective ``eiil``: environments that nobody has named, found by what a first network relies on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Batch, ObjectiveSetting, Outputs, Row, Training
from engram.backbone.data.columns import ENVIRONMENT, GROUP
from engram.backbone.data.sets import Split
from engram.backbone.data.subgroups import subgroups
from engram.backbone.data.views import seen
from engram.backbone.errors import must
from engram.backbone.objectives.around import Around
from engram.backbone.objectives.columns import columns_of
from engram.causal.objectives.environment_options import GroupDROOptions
from engram.causal.objectives.groupdro import GroupDRO
from engram.causal.objectives.irm import IRM
from engram.causal.objectives.reference import answers_of
from engram.causal.objectives.reference_options import EIILOptions
from engram.causal.slopes import slopes

FOUND = ("fails", "holds")
"""What the environments are called: where what the reference relies on does not help, and where it does."""


class EIIL(Around):
    """Environment inference: IRM or GroupDRO on the two environments in which a reference network is least invariant.

    GroupDRO's groups are these environments within every class.

    Args:
        options: what follows, and its options.
        setting: with a reference; no column of the data is looked at.

    Attributes:
        fails: [N] bool, the environment of every training image.

    Raises:
        UserError: the answers of the reference tell no two environments apart.

    Source: Creager, Jacobsen and Zemel 2021 (arXiv 2010.07249), section 3.
    """

    def __init__(self, options: EIILOptions, setting: ObjectiveSetting) -> None:
        logits, labels = answers_of(setting), setting.data.labels.to(setting.device)
        self.fails = least_invariant(logits, labels).cpu()
        self.right = (logits.argmax(1) == labels).cpu()
        if self.fails.all() or not self.fails.any():
            rule, got = "better surer on some training images and less sure on others", "the same on all"
            remedy = "Train it for fewer epochs, or for more: --reference-epochs"
            raise must("the reference network of eiil", rule, got, remedy)
        self.data = _in_environments(setting, self.fails)
        known = replace(setting, data=self.data)
        if options.then == "irm":
            inner = IRM(options, known)
        else:
            inner = GroupDRO(GroupDROOptions(column=GROUP, rate=options.rate), known)
        super().__init__(inner)
        self.column, self.columns = inner.column, ()
        self.of = columns_of(self.data, [self.column], "cpu")[self.column].to(setting.device)

    def begin(self, training: Training) -> None:
        on: Any = _On(training, self.data)
        self.inner.begin(on)

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        batch.columns[self.column] = self.of[batch.indices.to(self.of.device, non_blocking=True)]
        return self.inner(outputs, batch, step)

    def tables(self) -> Mapping[str, Sequence[Row]]:
        rows: list[Row] = []
        for name, those in zip(FOUND, (self.fails, ~self.fails), strict=True):
            right = float(self.right[those].double().mean())
            rows.append({"environment": name, "images": int(those.sum()), "reference right": right})
        return {"environments": rows}


class _On:
    """A training as it would be on data with the environments that were found."""

    def __init__(self, training: Training, data: Split) -> None:
        self._training, self.data = training, data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._training, name)


def least_invariant(logits: Tensor, labels: Tensor) -> Tensor:
    """Two environments in which a classifier is as far from invariant as can be, [N] bool.

    Of all soft assignments q_i in [0, 1] these have the largest IRM penalty

        (sum_i q_i g_i)^2 + (sum_i (1 - q_i) g_i)^2,    g_i = d CE(s z_i, y_i) / d s at s = 1 = CE_i - H_i

    The second sum is what is left of sum_i g_i, so the penalty is convex in the first one and largest where that is as
    large as can be: where q_i = 1 for g_i > 0, and 0 for the others. With two classes these are the images that the
    classifier gets wrong. The paper climbs to the same place by gradients.

    Args:
        logits: z [N, K].
        labels: y [N] int64.

    Returns: g_i > 0, where a less sure classifier would have a smaller loss.
    """
    return slopes(logits.double(), labels) > 0


def _in_environments(setting: ObjectiveSetting, fails: Tensor) -> Split:
    """The training images with the environments found, and these within every class for groups."""
    environments = tuple(FOUND[0] if each else FOUND[1] for each in fails.tolist())
    classes = tuple(map(str, range(setting.outputs)))
    groups = subgroups(classes, setting.data.labels, environments)
    return seen(setting.data, torch.arange(setting.outputs), columns={ENVIRONMENT: environments, GROUP: groups})
