from __future__ import annotations

import torch

from engram.backbone.contract import Bars, Result
from engram.backbone.data.trained import load_as_trained
from engram.backbone.objectives.columns import columns_of
from engram.backbone.saved.model import load_model


class Audit:
    """One unit of work: the accuracy in every group of the test images."""

    def __init__(self, config, services):
        self.config, self.services = config, services

    def start(self):
        return {}

    @torch.no_grad()
    def step(self, state):
        s = self.services
        model, made = load_model(s.inputs["trained"] / "model")
        data, outputs = load_as_trained(made, root=s.data_root, download=s.download)
        s.provenance(data_sha256=data.fingerprint)
        groups = columns_of(data.test, ("group",), "cpu")["group"]
        order = torch.arange(len(data.test))
        right = [model(x).argmax(1) == outputs[y] for x, y, _ in data.test.batches(order, 100, "cpu")]
        right = torch.cat(right).double()
        state["accuracies"] = [float(right[groups == group].mean()) for group in groups.unique()]
        return False

    def finish(self, state):
        found = state["accuracies"]
        names = [f"group {group}" for group in range(len(found))]
        return Result(
            metrics={"test/worst_group_accuracy": min(found)},
            tables={"groups": [{"group": name, "accuracy": each} for name, each in zip(names, found, strict=True)]},
            figures={
                "groups": Bars(
                    title="Accuracy by group", x_label="group", y_label="accuracy", names=names, series={"test": found}
                )
            },
        )

    def state_dict(self, state):
        return state

    def load_state_dict(self, state, saved):
        state.update(saved)
