from __future__ import annotations

import faulthandler
import time

import torch

from engram.backbone.contract import Result

STEPS = 10


class Wait:
    """Waits, and draws a number in every step; where it was told to, it comes to a bad end in the fifth."""

    def __init__(self, config, services):
        self.config, self.services = config, services

    def start(self):
        return {"drawn": []}

    def step(self, state):
        time.sleep(self.config.seconds / STEPS)
        if len(state["drawn"]) == STEPS // 2:
            self._end_badly()
        state["drawn"].append(float(torch.rand(())))
        self.services.log(len(state["drawn"]), {"number": state["drawn"][-1]})
        self.services.progress(len(state["drawn"]), STEPS, "waiting")
        return len(state["drawn"]) < STEPS

    def _end_badly(self):
        if self.config.end == "raise":
            raise ZeroDivisionError("on purpose")
        if self.config.end == "segfault":
            faulthandler._sigsegv()
        held = []
        while self.config.end in ("hang", "hoard"):
            time.sleep(0.01)
            if self.config.end == "hoard":
                held.append(bytearray(b"x" * 2**25))

    def finish(self, state):
        return Result(metrics={"drawn": sum(state["drawn"])})

    def state_dict(self, state):
        return state

    def load_state_dict(self, state, saved):
        state.update(saved)
