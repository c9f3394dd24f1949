from __future__ import annotations

import random
import time

import numpy as np
import torch

from engram.backbone.contract import Figure, Result


class Walk:
    """Every step draws from the generators of torch, NumPy and Python, which a resumed trial must find as they were."""

    def __init__(self, config, services):
        self.config, self.services = config, services

    def start(self):
        return {"n": 0, "place": torch.zeros(3, dtype=torch.float64), "path": []}

    def step(self, state):
        time.sleep(self.config.pause)
        drawn = [float(torch.rand(())), float(np.random.random()), random.random()]
        state["n"] += 1
        state["place"] = state["place"] + self.config.stride * (torch.tensor(drawn, dtype=torch.float64) - 0.5)
        distance = float(state["place"].norm())
        state["path"].append(distance)
        drift = dict(zip(("drift/torch", "drift/numpy", "drift/python"), state["place"].tolist(), strict=True))
        self.services.log(state["n"], {**drift, "distance": distance, "drawn": sum(drawn)})
        self.services.progress(state["n"], self.config.steps, "walking")
        return state["n"] < self.config.steps

    def finish(self, state):
        (self.services.trial_dir / "path.txt").write_text("".join(f"{each!r}\n" for each in state["path"]))
        series = {"distance": list(enumerate(state["path"], start=1))}
        return Result(
            metrics={"distance": state["path"][-1], "farthest": max(state["path"])},
            tables={"ends": [{"steps": state["n"], "distance": state["path"][-1]}]},
            figures={"walk": Figure(title="Walk", x_label="step", y_label="distance (m)", series=series)},
            artifacts={"path": "path.txt"},
        )

    def state_dict(self, state):
        return dict(state)

    def load_state_dict(self, state, saved):
        state.update(saved)
