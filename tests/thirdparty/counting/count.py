from __future__ import annotations

import json
import random
import time

from engram.backbone.contract import Figure, Result
from engram.backbone.errors import TrialError, UserError


class Count:
    def __init__(self, config, services):
        self.config, self.services = config, services

    def start(self):
        self.services.provenance(data_sha256="0" * 64)
        if self.config.loud:
            self.services.table("pebbles", [{"colour": "grey", "number": 3}])
        if self.config.fail == "user":
            raise UserError("--fail must be never; got user. Leave it out.")
        return {"n": 0, "total": 0.0, "noise": []}

    def step(self, state):
        time.sleep(self.config.pause)
        if self.config.fail == "trial":
            raise TrialError("loss must be finite; got nan at step 0. Lower --stride.")
        if self.config.fail == "crash":
            raise ZeroDivisionError("on purpose")
        state["n"] += 1
        state["total"] += self.config.stride
        state["noise"].append(random.random())
        self.services.log(state["n"], {"so/far": state["total"], "noise": state["noise"][-1]})
        self.services.progress(state["n"], self.config.steps, "counting")
        return state["n"] < self.config.steps

    def finish(self, state):
        (self.services.trial_dir / "note.txt").write_text("counted")
        metrics = {"total": state["total"] + self.config.seed, "noise": sum(state["noise"]), "took": 0.1}
        if self.config.fail == "nan":
            metrics["total"] = float("nan")
        if self.config.fail == "missing":
            del metrics["total"]
        series = {"count": [(i, float(i)) for i in range(state["n"])]}
        return Result(
            metrics=metrics,
            tables={"counts": [{"n": state["n"], "total": state["total"]}]},
            figures={"count": Figure(title="Count", x_label="step", y_label="total", series=series)},
            artifacts={"note": "note.txt"},
        )

    def state_dict(self, state):
        return {**state, "padding": "x" * 2**24} if self.config.fail == "disk" else dict(state)

    def load_state_dict(self, state, saved):
        state.update(saved)


class Twice:
    def __init__(self, config, services):
        self.config, self.services = config, services

    def start(self):
        return {}

    def step(self, state):
        return False

    def finish(self, state):
        count = json.loads((self.services.inputs["count"] / "result.json").read_text())
        return Result(metrics={"double": 2 * count["metrics"]["total"]})

    def state_dict(self, state):
        return state

    def load_state_dict(self, state, saved):
        state.update(saved)
