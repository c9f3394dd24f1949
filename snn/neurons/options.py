"""Options of spiking neurons; no torch here, so that help and validation are instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le, Lt

from engram.backbone.contract import ProvidedBy

Neuron = Literal["if", "lif", "plif", "cuba-lif", "adaptive-lif"]
Reset = Literal["soft", "hard"]
Surrogate = Literal["arctan", "fast-sigmoid", "triangle", "sigmoid", "superspike", "gaussian"]
Engine = Literal["fused", "snntorch", "norse"]

SLOPES: Mapping[Surrogate, float] = {
    "arctan": 2.0,
    "fast-sigmoid": 2.0,
    "triangle": 1.0,
    "sigmoid": 4.0,
    "superspike": 1.0,
    "gaussian": 2.0,
}
"""Slopes that spread every surrogate over about one threshold."""

# Which neurons have the option, and its value when nobody gives one.
_OWN: Mapping[str, tuple[frozenset[str], float]] = {
    "decay": (frozenset({"lif", "plif", "cuba-lif", "adaptive-lif"}), 0.5),
    "synaptic_decay": (frozenset({"cuba-lif"}), 0.5),
    "adaptation": (frozenset({"adaptive-lif"}), 0.2),
    "adaptation_decay": (frozenset({"adaptive-lif"}), 0.9),
}

# Norse 1.1 has no argument for the slope of its superspike and triangle; its tanh of 2 x is our sigmoid of slope 4.
_NORSE_SURROGATES: Mapping[str, float] = {"superspike": 1.0, "triangle": 1.0, "sigmoid": 4.0}


@dataclass(frozen=True, kw_only=True)
class NeuronOptions:
    """A layer of spiking neurons: update, compare with the threshold, reset, all in the same step."""

    neuron: Neuron = "lif"
    """if: no leak; lif: leaky; plif: with a learned decay; cuba-lif: a synaptic current; adaptive-lif: a threshold
    that rises with every spike."""
    decay: Annotated[float, Gt(0), Le(1)] | None = None
    """Share of the membrane potential left after a step (plif: at the start). None: 0.5; "if" has none."""
    synaptic_decay: Annotated[float, Ge(0), Lt(1)] | None = None
    """Share of the synaptic current left after a step, cuba-lif only. None: 0.5."""
    adaptation: Annotated[float, Ge(0)] | None = None
    """What a spike adds to the threshold, adaptive-lif only. None: 0.2."""
    adaptation_decay: Annotated[float, Ge(0), Lt(1)] | None = None
    """Share of the threshold's rise left after a step, adaptive-lif only. None: 0.9."""
    threshold: Annotated[float, Gt(0)] = 1.0
    """A neuron whose potential reaches it spikes."""
    reset: Reset = "soft"
    """After a spike: soft subtracts the threshold, hard sets the potential to zero."""
    detach_reset: bool = True
    """Keep the gradient of the spike out of the reset."""
    refractory: Annotated[int, Ge(0), Le(1000)] = 0
    """Steps after a spike in which the potential stays where it is and nothing fires."""
    surrogate: Surrogate = "arctan"
    """Shape of what stands for the derivative of a spike."""
    slope: Annotated[float, Gt(0)] | None = None
    """Steepness of the surrogate. None: 2 for arctan, fast-sigmoid and gaussian, 1 for triangle and superspike, 4 for
    sigmoid."""
    engine: Annotated[Engine, ProvidedBy((("snntorch", "snntorch"), ("norse", "norse")))] = "fused"
    """What runs the steps; snntorch and norse are there to compare with."""

    def filled(self) -> Self:
        """With the neuron's and the surrogate's own values where none were given; idempotent."""
        own = {
            name: value
            for name, (neurons, value) in _OWN.items()
            if self.neuron in neurons and getattr(self, name) is None
        }
        return replace(self, slope=SLOPES[self.surrogate] if self.slope is None else self.slope, **own)

    def problems(self) -> list[str]:
        """Errors that concern more than one option, each "<what> must be <rule>; got <value>. <next step>"."""
        found = []
        for name, (neurons, _) in _OWN.items():
            value = getattr(self, name)
            if value is not None and self.neuron not in neurons:
                known = " or ".join(sorted(neurons))
                found.append(f"{name} must be left out for neuron {self.neuron}; got {value}. Use neuron {known}.")
        if self.neuron == "plif" and self.decay == 1:
            found.append("decay must be below 1 for neuron plif; got 1. A sigmoid never reaches it: use neuron if.")
        return found + [
            f"{what} must be {rule} for engine {self.engine}; got {value}. Use engine fused."
            for what, rule, value in self._not_expressible()
        ]

    def _not_expressible(self) -> list[tuple[str, str, object]]:
        """(option, rule, value) for everything that the peer's own cells cannot do."""
        found: list[tuple[str, str, object]] = []
        if self.engine == "fused":
            return found
        if self.neuron == "adaptive-lif":
            found.append(("neuron", "if, lif, plif or cuba-lif", self.neuron))
        if self.engine == "snntorch" and self.refractory:
            found.append(("refractory", "0", self.refractory))
        if self.engine == "norse":
            found += self._not_in_norse()
        return found

    def _not_in_norse(self) -> list[tuple[str, str, object]]:
        found: list[tuple[str, str, object]] = []
        slope = self.filled().slope
        if _NORSE_SURROGATES.get(self.surrogate) != slope:
            rule = " or ".join(f"{name} with slope {value:g}" for name, value in _NORSE_SURROGATES.items())
            found.append(("surrogate", rule, f"{self.surrogate} with slope {slope:g}"))
        if self.neuron in ("if", "cuba-lif") and self.reset != "hard":
            found.append(("reset", f"hard ({self.neuron})", self.reset))
        if self.neuron in ("if", "cuba-lif") and self.detach_reset:
            found.append(("detach_reset", f"false ({self.neuron})", "true"))
        if self.neuron != "if" and self.decay == 1:
            found.append(("decay", "below 1", self.decay))
        if self.neuron == "cuba-lif" and self.synaptic_decay == 0:
            found.append(("synaptic_decay", "above 0", 0))
        if self.refractory and self.neuron != "cuba-lif":
            found.append(("refractory", "0, but for cuba-lif", self.refractory))
        return found
