"""The constants of one step of a node with a potential, from a NIR node and the semantics it is run under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engram.snn.interchange.nir.graph import SPIKING, Node
from engram.snn.interchange.nir.semantics import Semantics


@dataclass(frozen=True, kw_only=True)
class Cells:
    """One step of a node's neurons, driven by x[t]. Arrays have one value, or one for each neuron.

        i[t] = synaptic_decay i[t-1] + synaptic_gain x[t] + synaptic_leak      (CubaLI, CubaLIF; else i[t] = x[t])
        u[t] = decay v[t-1] + gain i[t] + leak                                 (i[t-1] where current is "before")
        s[t] = how many thresholds u[t] has passed, at most one or several
        v[t] = u[t] - threshold s[t]  (soft)   or   v_reset where s[t]  (hard)

    A node without a threshold sends u[t].
    """

    decay: np.ndarray
    gain: np.ndarray
    leak: np.ndarray
    synaptic_decay: np.ndarray | None = None
    synaptic_gain: np.ndarray | None = None
    synaptic_leak: np.ndarray | None = None
    threshold: np.ndarray | None = None
    v_reset: np.ndarray | None = None
    floor: np.ndarray | None = None
    start: np.ndarray | None = None
    synaptic_start: np.ndarray | None = None
    refractory: int = 0

    def arrays(self) -> dict[str, np.ndarray]:
        """Those that are there, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


def cells_of(node: Node, semantics: Semantics) -> Cells:
    """What a step of a node's neurons computes.

    ``start`` and ``refractory`` are no part of NIR: they stand in a node's metadata, which no other tool reads.
    """
    a = {name: value.astype(np.float64) for name, value in node.arrays.items()}
    one = np.ones_like(a["r"])
    if node.kind in ("I", "IF"):
        decay = one * (semantics.plain_decay if node.kind == "IF" else 1.0)
        gain = {"r": a["r"] * semantics.dt, "one": one, "1/r": 1 / a["r"]}[semantics.plain_gain]
        made: dict[str, Any] = {"decay": decay, "gain": gain, "leak": 0 * one}
        if semantics.floor and node.kind == "IF":
            made["floor"] = -a["v_threshold"]
    else:
        made = _leaky(a, semantics)
    if node.kind in SPIKING:
        made |= {
            "threshold": a["v_threshold"],
            "v_reset": a["v_reset"] if semantics.reset_to == "file" else 0 * a["v_reset"],
        }
    if node.start is not None:
        made["start"] = node.start.astype(np.float64)
    return Cells(**made, refractory=node.refractory)


def _leaky(a: Mapping[str, np.ndarray], semantics: Semantics) -> dict[str, Any]:
    tau = a.get("tau", a.get("tau_mem"))
    assert tau is not None  # every leaky node has one
    gains = {"r": a["r"] * semantics.dt / tau, "no r": semantics.dt / tau, "one": np.ones_like(tau)}
    decay = left(tau, semantics)
    made: dict[str, Any] = {"decay": decay, "gain": gains[semantics.leaky_gain], "leak": a["v_leak"] * (1 - decay)}
    if "tau_syn" in a:
        share = semantics.dt / a["tau_syn"]
        synaptic = left(a["tau_syn"], semantics)
        made["gain"] = a["r"] * semantics.dt / tau if semantics.leaky_gain != "one" else np.ones_like(tau)
        made |= {"synaptic_decay": synaptic, "synaptic_gain": a["w_in"] * share}
        made["synaptic_leak"] = a["v_leak"] * share if semantics.leak_current else 0 * a["v_leak"]
    if semantics.first == "leak":
        made["start"] = a["v_leak"]
        if "tau_syn" in a:
            made["synaptic_start"] = a["v_leak"]
    return made


def left(tau: np.ndarray, semantics: Semantics) -> np.ndarray:
    """The share of a potential that is left after a step."""
    return 1 - semantics.dt / tau if semantics.leak == "euler" else np.exp(-semantics.dt / tau)
